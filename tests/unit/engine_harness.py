"""An engine in a forked child, and a scripted controller to play against it."""

import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpc import transport
from hpc.engine.start import EngineOptions, preload, run_engine
from hpc.security import host
from hpc.security.connection import ConnectionInfo
from hpc.transport.shared import mapped
from hpc.wire import codec, objects
from hpc.wire import messages as m
from hpc.wire.functions import dump_function
from hpc.wire.session import Session

preload()

TIMEOUT_S = 10.0
CLIENT = 7


class Peer:
    """What the controller knows of one channel of the engine."""

    def __init__(self) -> None:
        self.link: Any = None
        self.session = Session()


class ScriptedController:
    """Says what a test tells it to, and keeps what the engine says."""

    def __init__(self, directory: Path, route: str = "unix") -> None:
        self.route = route
        self.directory = directory
        self.file = directory / "engine.json"
        self.channels = {"work": Peer(), "control": Peer()}
        self.inbox: list[tuple[m.Message, list[Any], str]] = []
        self.info: m.EngineInfo | None = None
        self.engine_id = 3
        self.pid = 0
        self.resumed = True
        self.refusal = ""
        self.server: Any = None
        self.serial = 0

    # ---------------------------------------------------------------- being there

    def listen(self) -> None:
        self.serial += 1
        path, keys = "", ("", "", "")
        if self.route == "unix":
            path = str(self.directory / f"c{self.serial}")
            self.server = transport.Server(unix_path=path)
        else:
            public, secret = transport.new_keypair()
            keys = (public, *transport.new_keypair())
            self.server = transport.Server(
                tcp=["tcp://127.0.0.1:0"], server_public=public, server_secret=secret, authorise=lambda _: "engine"
            )
        ConnectionInfo(
            cluster="c" * 32,
            name="test",
            role="engine",
            host=host.hostname(),
            boot_id=host.boot_id(),
            addresses=[f"tcp://127.0.0.1:{port}" for port in self.server.ports],
            server_key=keys[0],
            public_key=keys[1],
            secret_key=keys[2],
            unix=path,
            pid=os.getpid(),
            started=host.own_start_ticks(),
            created=time.time(),
        ).save(self.file)

    def vanish(self) -> None:
        self.server.close()

    def start_engine(self, **options: Any) -> None:
        options = {
            "connection_file": self.file,
            "mpi": False,
            "log_level": os.environ.get("ENGINE_LOG", "error"),
            **options,
        }
        self.pid = os.fork()
        if not self.pid:
            code = 70
            try:
                code = run_engine(EngineOptions(**options))
            finally:
                os._exit(code)

    def wait_until_ready(self) -> None:
        self.pump(lambda: all(peer.link is not None for peer in self.channels.values()))

    def exit_code(self) -> int:
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            self.turn(0.01)
        raise AssertionError("the engine does not end")

    def stop(self) -> None:
        if self.pid:
            os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)
            self.pid = 0

    # ---------------------------------------------------------------- talking

    def pump(self, until: Callable[[], Any], timeout_s: float = TIMEOUT_S) -> Any:
        deadline = time.monotonic() + timeout_s
        while not (found := until()):
            if time.monotonic() > deadline:
                raise AssertionError(f"timed out; heard {[type(x[0]).__name__ for x in self.inbox]}")
            self.turn(0.05)
        return found

    def turn(self, timeout_s: float) -> None:
        for arrival in self.server.poll(timeout_s):
            if arrival.kind == transport.OPENED:
                self.server.send(arrival.link, [codec.encode(m.Identify(codec.PROTOCOL, "test", "c" * 32))])
            elif arrival.kind == transport.FRAMES:
                self._frames(arrival.link, list(arrival.frames))
            elif arrival.kind == transport.CLOSED:
                for peer in self.channels.values():
                    if peer.link is arrival.link:
                        peer.link = None
        self.server.flush()

    def _frames(self, link: Any, frames: list[Any]) -> None:
        if link.data is None:
            _, _, hello = codec.from_peer(frames[0], "stranger")
            assert isinstance(hello, m.Hello)
            if self.refusal:
                self.server.send(link, [codec.encode(m.Refused(self.refusal))])
                return
            peer = self.channels[hello.channel]
            self.info = hello.engine
            if not self.resumed:
                peer.session = Session()
            peer.link, link.data = link, hello.channel
            self.server.send(link, [codec.encode(m.Welcome(peer.session.received, self.resumed, self.engine_id))])
            for transmission in peer.session.resume(hello.received):
                self.server.send(link, transmission)
            return
        session = self.channels[link.data].session
        seq, ack, message = codec.from_peer(frames[0], "engine")
        if session.accept(seq, ack, frames) and not isinstance(message, m.Ack):
            self.inbox.append((message, frames[1:], link.data))

    def tell(self, channel: str, message: m.Message, frames: Sequence[Any] = ()) -> None:
        peer = self.channels[channel]
        packed = peer.session.pack(message, frames)
        if peer.link is not None:
            self.server.send(peer.link, packed)
            self.server.flush()

    def expect(self, kind: type, timeout_s: float = TIMEOUT_S) -> Any:
        """Return the first message of a kind that nobody has taken yet."""

        def take() -> Any:
            for at, (message, frames, channel) in enumerate(self.inbox):
                if type(message) is kind:
                    del self.inbox[at]
                    return message, frames, channel
            return None

        return self.pump(take, timeout_s)

    # ---------------------------------------------------------------- work

    def define(self, function: Callable[..., Any]) -> bytes:
        blob = dump_function(function)
        self.tell("work", m.Define(blob.digest, blob.name), [blob.by_reference, blob.by_value])
        return blob.digest

    def run(
        self,
        body: list[Any],
        functions: list[bytes],
        stop: int,
        *,
        first: int = 1,
        start: int = 0,
        kind: m.Kind = m.Kind.CALLS,
        limit_s: float = 0.0,
    ) -> None:
        run = m.Run(CLIENT, first, start, stop, kind, functions)
        run.terms = m.Terms(limit_s) if limit_s else None
        self.tell("work", run, body)

    def run_calls(self, function: Callable[..., Any] | bytes, calls: Sequence[tuple[Any, ...]], **where: Any) -> None:
        digest = function if isinstance(function, bytes) else self.define(function)
        self.run(calls_body(calls), [digest], where.pop("stop", len(calls)), **where)

    def run_span(self, function: Callable[..., Any] | bytes, *columns: Any, **where: Any) -> None:
        digest = function if isinstance(function, bytes) else self.define(function)
        self.run(objects.dumps(list(columns)), [digest], where.pop("stop", len(columns[0])), kind=m.Kind.SPAN, **where)

    def outcomes(self, n: int, first: int = 1, timeout_s: float = TIMEOUT_S) -> dict[int, m.Entry]:
        """Return the entry of each of n tasks; fail if one ends twice."""
        found: dict[int, m.Entry] = {}

        def enough() -> bool:
            for at in reversed(range(len(self.inbox))):
                message, frames, _ = self.inbox[at]
                if type(message) is m.Results and message.first == first:
                    del self.inbox[at]
                    add(found, message, frames)
            return len(found) >= n

        self.pump(enough, timeout_s)
        return dict(sorted(found.items()))

    def values(self, n: int, first: int = 1) -> list[Any]:
        return [value_of(entry) for entry in self.outcomes(n, first).values()]

    def execute(self, code: str, first: int = 1) -> m.Entry:
        self.run_calls(b"!execute", [(code, f"<client 7, execute {first}>")], first=first)
        return self.outcomes(1, first)[0]

    def printed(self, code: str, first: int = 1) -> str:
        """Execute code that may take long enough for some of its output to be sent ahead; return all it printed."""
        entry = self.execute(code, first)
        pieces = [self.expect(m.Output)[0] for _ in range(entry.n_outputs)]
        ahead = sorted((piece.number, piece.text) for piece in pieces if piece.stream == "stdout")
        return "".join(text for _, text in ahead) + entry.stdout


def calls_body(calls: Sequence[tuple[Any, ...]], which: Sequence[int] = ()) -> list[Any]:
    """Return the body of a bundle; ``which`` names the function of each call, by default the first one."""
    entries, buffers = [], []
    for at, arguments in enumerate(calls):
        payload, *more = objects.dumps((arguments, {}))
        entries.append((which[at] if which else 0, len(more), bytes(payload)))
        buffers += more
    return [codec.encode_calls(entries), *buffers]


def add(found: dict[int, m.Entry], message: m.Results, frames: list[Any]) -> None:
    entries, buffers = codec.decode_entries(frames[0]), mapped(frames[1:])
    if message.packed:
        (whole,) = entries
        values = objects.loads([whole.payload, *buffers])
        assert len(values) == message.stop - message.start
        entries = [m.Entry(whole.status, whole.started, whole.completed, pickle.dumps(value)) for value in values]
        entries[0].stdout, entries[0].stderr, entries[0].n_outputs = whole.stdout, whole.stderr, whole.n_outputs
        buffers = []
    assert len(entries) == message.stop - message.start
    assert message.failed == [message.start + i for i, entry in enumerate(entries) if entry.status]
    for offset, entry in enumerate(entries, message.start):
        assert offset not in found, f"task {offset} ended twice"
        found[offset] = entry
        mine, buffers = buffers[: entry.n_buffers], buffers[entry.n_buffers :]
        if mine:
            entry.payload = pickle.dumps(objects.loads([entry.payload, *mine]))
    assert not buffers


def value_of(entry: m.Entry) -> Any:
    if entry.status:
        from hpc.wire.failures import load_error

        return load_error(entry.payload)
    return objects.loads([entry.payload])


@contextmanager
def playing(directory: Path, route: str = "unix", **options: Any) -> Iterator[ScriptedController]:
    controller = ScriptedController(directory, route)
    if route == "unix":
        controller.listen()
        controller.start_engine(**options)
    else:  # a zmq context must not be forked
        controller.start_engine(**options)
        controller.listen()
    try:
        controller.wait_until_ready()
        yield controller
    finally:
        controller.stop()
        controller.server.close()


# What the tests have the engine do.


def square(x):
    return x * x


def nap(seconds):
    time.sleep(seconds)
    return seconds


def wait_for(path):
    """Return when the test says so."""
    while not os.path.exists(path):
        time.sleep(0.001)
    return "released"


def wait_if(path):
    return wait_for(path) if path else "quick"


def fail_at_3(x):
    if x % 10 == 3:
        raise ValueError(f"no {x}")
    return x


def busy_file(path):
    """Say that the task has begun, then never end by itself."""
    open(path, "w").close()
    while True:
        time.sleep(0.001)
