"""Fuzz run against a controller that lives: whatever its peers send, it goes on, answers, and stays small.

Peers of every role, by unix socket and by TCP, and a launcher say messages of every kind, with random and with damaged
content, at any moment of a session; others send bytes that are no protocol at all. An input counts when the controller
has dealt with it: after each the peer says something that has to be answered.

    python tests/fuzz/fuzz_controller.py --inputs 1000000        the seed is printed
"""

import argparse
import contextlib
import multiprocessing
import os
import random
import socket
import sys
import tempfile
import time
import typing
import uuid
from pathlib import Path

sys.path.insert(0, os.path.dirname(__file__))
import fuzz_codec
from fuzz_codec import damage, some

from hpc.controller.server import ControllerOptions, run_controller
from hpc.errors import ConnectError, ProtocolError
from hpc.security import connection
from hpc.security.host import boot_id, hostname
from hpc.transport import Connection, Disconnected, connect
from hpc.transport.unix import UnixConnection
from hpc.wire import codec
from hpc.wire import messages as m

NAME = "fuzz"
DIGEST = b"0123456789abcdef"
FUNCTIONS = [DIGEST, b"!execute", b"!bcast", b"!pull"]
# Small numbers mean something more often: a task that is there, an engine, a parcel.
SMALL = [0, 1, 2, 3, 4, 8, 100]
WAIT_S = 30.0
MAX_RSS_NBYTES = 512 << 20
# How many inputs a session lives.
SESSION_INPUTS = 500
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(15) + b"\0" + bytes(31)
# What ends the controller, or makes it write files, is a client's right and no fault.
HARMLESS = {"list", "admit", "revoke", "", "x"}


def allowed(frame: bytes, role: str) -> bool:
    """Say whether a message may be sent without ending the run by right."""
    try:
        message = codec.from_peer(frame, role)[2]
    except ProtocolError:
        return True
    if isinstance(message, m.Keys):
        return message.what in HARMLESS
    return not (isinstance(message, m.Shutdown) and message.controller) and not (
        role == "launcher" and isinstance(message, m.Goodbye)
    )


def _says_goodbye(frame: bytes, role: str) -> bool:
    try:
        return isinstance(codec.from_peer(frame, role)[2], m.Goodbye)
    except ProtocolError:
        return False


class Maker:
    """Makes inputs, from one seed."""

    def __init__(self, seed: str) -> None:
        self.rng = random.Random(seed)
        fuzz_codec.NUMBERS = [*fuzz_codec.NUMBERS, *SMALL * 6]

    def input(self, role: str, seq: int) -> list[bytes]:
        """Return a transmission that a peer of that role might say, or not."""
        rng = self.rng
        while True:
            kind = rng.choice(codec.SPEAKS[role] if rng.random() < 0.9 else fuzz_codec.KINDS)
            if not kind.__struct_config__.tag:
                continue
            message = some(rng, kind)
            self._make_plausible(message)
            number = rng.choice([0, seq, seq, seq, seq + 1, 2**64 - 1])
            frame = codec.encode(message, number, rng.choice([0, 0, 0, 0, 0, 1, 2**64 - 1]))
            if rng.random() < 0.5:
                frame = damage(rng, frame)
            if allowed(frame, role):
                return [
                    frame,
                    *(rng.randbytes(rng.choice([0, 1, 40, 3000])) for _ in range(rng.choice([0, 1, 1, 2, 9]))),
                ]

    def _make_plausible(self, message: typing.Any) -> None:
        rng = self.rng
        if isinstance(message, m.Submit | m.Run) and rng.random() < 0.8:
            message.functions = [rng.choice(FUNCTIONS)]
        if isinstance(message, m.Submit) and rng.random() < 0.8:
            message.count = rng.choice([1, 1, 3, 10])
            message.targets = rng.choice(
                [None, None, [rng.choice(SMALL)] * (message.count if message.kind == 2 else 1)]
            )
            message.sources, message.parcels = [], []
        if isinstance(message, m.Define) and rng.random() < 0.5:
            message.digest = DIGEST
        if isinstance(message, m.Query):
            message.what = rng.choice(["ping", "status", "queue_status", message.what])
        if isinstance(message, m.Keys):
            message.what = rng.choice(sorted(HARMLESS))


class FuzzPeer:
    """A peer that says hello, an input, and then what cannot be in its place, which is answered by Identify."""

    def __init__(self, role: str, tcp: bool, maker: Maker) -> None:
        self.role, self.tcp, self.maker = role, tcp, maker
        self.info = connection.find(role, name=NAME)
        self.connection: Connection | None = None
        self.channel = "work"
        self.inputs = 0

    def _begin_session(self) -> None:
        self.session, self.received, self.seq = uuid.uuid4().hex, 0, 0
        group = uuid.uuid4().hex
        self.engine = m.EngineInfo(self.session, group, 0, 1, hostname(), os.getpid(), 1, boot_id())
        self.channel = self.maker.rng.choice(["work", "control"])

    def _hello(self) -> m.Hello:
        engine = self.role == "engine"
        return m.Hello(
            codec.PROTOCOL,
            "fuzz",
            self.role,
            self.session,
            self.channel if engine else "",
            self.received,
            hostname(),
            0,
            "fuzz",
            self.engine if engine else None,
        )

    def send(self) -> None:
        """Send the next input."""
        if self.connection is None:
            info = self.info
            self.connection = connect(
                unix="" if self.tcp else info.unix,
                addresses=info.addresses,
                server_key=info.server_key,
                public_key=info.public_key,
                secret_key=info.secret_key,
                timeout_s=WAIT_S,
            )
            self._hear_identify()
        if not self.inputs % SESSION_INPUTS:
            self._begin_session()
        self.inputs += 1
        hello = codec.encode(self._hello())
        frames = self.maker.input(self.role, self.seq + 1)
        while self.tcp and _says_goodbye(frames[0], self.role):  # zmq takes seconds to close such a connection
            frames = self.maker.input(self.role, self.seq + 1)
        self.said = frames
        with contextlib.suppress(Disconnected):
            if self.maker.rng.random() < 0.02:
                self.connection.send([damage(self.maker.rng, hello)])
            self.connection.send([hello])
            self.connection.send(frames)
            self.connection.send([codec.encode(m.Ack(), 2**63)])

    def conclude(self) -> None:
        """Wait until the controller has dealt with the input."""
        assert self.connection is not None
        try:
            self._hear_identify()
        except (Disconnected, ConnectError):
            self.close()

    def _hear_identify(self) -> None:
        assert self.connection is not None
        while frames := self.connection.recv(WAIT_S):
            seq, _, message = codec.from_controller(frames[0], self.role)
            if isinstance(message, m.Identify):
                return
            if isinstance(message, m.Welcome):
                self.seq = message.received
            elif isinstance(message, m.Refused | m.Goodbye):
                raise Disconnected(str(message))
            elif isinstance(message, m.Stop):
                self.inputs = 0
            self.received = max(self.received, seq)
        raise TimeoutError(f"the controller has not answered a {self.role} within {WAIT_S:g} s: {self.said}")

    def close(self) -> None:
        """Hang up, and be somebody else the next time."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        self.inputs = 0


class Launcher:
    """The other end of the link that the controller inherits."""

    role = "launcher"

    def __init__(self, sock: socket.socket, maker: Maker) -> None:
        self.connection, self.maker, self.number = UnixConnection(sock, "the controller"), maker, 10**6

    def send(self) -> None:
        """Send the next input, in order as a transmission: who is at this link is trusted that far."""
        self.number += 1
        self.connection.send(self.maker.input(self.role, 0))
        self.connection.send([codec.encode(m.Query(self.number, "ping"))])

    def conclude(self) -> None:
        """Wait until the controller has dealt with the input."""
        while frames := self.connection.recv(WAIT_S):
            message = codec.from_controller(frames[0], self.role)[2]
            if isinstance(message, m.Answer) and message.request == self.number:
                return
        raise TimeoutError("the controller has not answered its launcher")

    def close(self) -> None:
        """End the controller."""
        self.connection.close()


class Stranger:
    """Sends bytes to either door, and goes."""

    role = "stranger"

    def __init__(self, maker: Maker) -> None:
        self.maker = maker
        info = connection.find("client", name=NAME)
        host, _, port = info.addresses[-1].removeprefix("tcp://").rpartition(":")
        self.doors = ((socket.AF_UNIX, info.unix), (socket.AF_INET, (host, int(port))))

    def send(self) -> None:
        """Send."""
        rng = self.maker.rng
        family, door = self.doors[rng.random() < 0.2]
        frames = self.maker.input("client", 1)
        pieces = fuzz_codec.framing.pack([codec.encode(some(rng, m.Hello)), *frames])
        data = damage(rng, pieces if isinstance(pieces, bytes) else b"".join(pieces))
        if family == socket.AF_INET:
            data = damage(rng, GREETING) + data
        with socket.socket(family) as sock, contextlib.suppress(ConnectionError):
            sock.connect(door)
            sock.sendall(data)

    def conclude(self) -> None:
        """Do nothing: it is for the others to find that the controller lives."""

    def close(self) -> None:
        """Nothing is open."""


def start(log_file: Path) -> tuple[multiprocessing.Process, socket.socket]:
    """Start a controller that forgets who is away."""
    ours, theirs = socket.socketpair()
    options = ControllerOptions(name=NAME, ip="127.0.0.1", port=0, lease_s=1.0, grace_s=1.0, log_file=log_file)

    def controller() -> None:
        ours.close()
        sys.exit(run_controller(options, theirs))

    process = multiprocessing.get_context("fork").Process(target=controller)
    process.start()
    theirs.close()
    deadline = time.monotonic() + WAIT_S
    while not (connection.cluster_dir(NAME) / "monitor.json").exists():
        assert time.monotonic() < deadline, "the controller does not start"
        time.sleep(0.02)
    return process, ours


def rss_nbytes(pid: int | None) -> int:
    """Return how much memory a process has."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def run(inputs: int, seed: int, log_file: Path) -> str:
    """Fuzz; return what came of it."""
    process, sock = start(log_file)
    maker = Maker(str(seed))
    roles = ("client", "client", "client", "monitor", "engine", "engine")
    launcher = Launcher(sock, maker)
    peers = [FuzzPeer(role, tcp=False, maker=maker) for role in roles * 2]
    peers += [FuzzPeer(role, tcp=True, maker=maker) for role in ("client", "monitor", "engine")]
    everybody = [*peers, launcher, Stranger(maker), Stranger(maker)]
    done, slowest_s, begun = 0, 0.0, time.monotonic()
    try:
        while done < inputs:
            turn = time.monotonic()
            for peer in everybody:
                peer.send()
            for peer in everybody:
                peer.conclude()
            slowest_s = max(slowest_s, time.monotonic() - turn)
            done += len(everybody)
        elapsed_s, nbytes = time.monotonic() - begun, rss_nbytes(process.pid)
        assert process.is_alive(), "the controller has ended"
        launcher.number += 1
        launcher.connection.send([codec.encode(m.Query(launcher.number, "ping"))])
        launcher.conclude()
    finally:
        for peer in everybody:
            peer.close()
        process.join(WAIT_S)
        log = log_file.read_text()
    assert process.exitcode == 0, f"the controller ended with {process.exitcode}:\n{log[-3000:]}"
    mistakes = log.count("please report it")
    assert not mistakes, f"{mistakes} mistakes of the controller:\n{log[log.index('please report it') - 200 :][:4000]}"
    assert nbytes < MAX_RSS_NBYTES, f"the controller has grown to {nbytes >> 20} MiB"
    return (
        f"{done} inputs in {elapsed_s:.0f} s, the slowest round of {len(everybody)} took {slowest_s:.2f} s;"
        f" the controller answers, has {nbytes >> 20} MiB, and logged {len(log) >> 10} KiB"
    )


def main(argv: list[str] | None = None) -> int:
    """Run; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000, help="how many inputs to try")
    parser.add_argument("--seed", type=int, default=None, help="to make the same inputs again")
    options = parser.parse_args(argv)
    seed = int.from_bytes(os.urandom(4)) if options.seed is None else options.seed
    with tempfile.TemporaryDirectory() as directory:
        os.environ["HPC_DIR"] = directory
        print(f"seed {seed}", flush=True)
        print(run(options.inputs, seed, Path(directory) / "controller.log"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
