"""A controller in a thread, and raw peers that speak the protocol to it."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import uuid

import msgspec

from hpc.controller.server import ControllerOptions, run_controller
from hpc.errors import ConnectError
from hpc.security import connection
from hpc.security.host import boot_id, hostname, own_start_ticks
from hpc.transport import Disconnected, connect, new_keypair
from hpc.wire import codec
from hpc.wire import messages as m
from hpc.wire.session import Peer

WAIT_S = 10.0
# Every connection that was made; the tests close them.
connections = []


class RawPeer:
    """A connection to a controller that records what it is told; ``tcp`` does without the unix socket."""

    def __init__(
        self, name, role, *, channel="", engine=None, tcp=False, key_of=None, keys=None, session=None, **hello
    ):
        self.info = connection.find(key_of or role, name=name)
        if keys is not None:
            self.info = msgspec.structs.replace(self.info, public_key=keys[0], secret_key=keys[1])
        fields = {
            "protocol": codec.PROTOCOL,
            "software": "test",
            "role": role,
            "session": session or uuid.uuid4().hex,
            "channel": channel,
            "received": 0,
            "host": hostname(),
            "pid": os.getpid(),
            "user": "tester",
            "engine": engine,
        }
        self.peer = Peer(m.Hello(**{**fields, **hello}))
        self.tcp = tcp
        self.got = []
        self.connect()

    def connect(self):
        info = self.info
        self.connection = connect(
            unix="" if self.tcp else info.unix,
            addresses=info.engine_addresses or info.addresses,
            server_key=info.server_key,
            public_key=info.public_key,
            secret_key=info.secret_key,
        )
        connections.append(self.connection)

    def cut(self):
        self.connection.close()
        self.peer.disconnected()

    def say(self, message, frames=()):
        packed = self.peer.pack(message, frames)
        if packed is not None:
            self.connection.send(packed)

    def hear(self, kind, timeout_s=WAIT_S, where=lambda message: True):
        """Return the next message of that kind, with its frames; others before it are kept in ``got``."""
        deadline = time.monotonic() + timeout_s
        while True:
            frames = self.connection.recv(max(0.0, deadline - time.monotonic()))
            if frames is None:
                raise TimeoutError(f"no {kind.__name__}; there were {self.got}")
            message, answers = self.peer.receive(frames)
            for answer in answers:
                self.connection.send(answer)
            if message is None:
                continue
            self.got.append(message)
            if isinstance(message, kind) and where(message):
                return message, list(frames[1:])

    def hear_end(self, timeout_s=WAIT_S):
        """Read until the connection is closed."""
        with contextlib.suppress(Disconnected):
            while self.connection.recv(timeout_s) is not None:
                pass
            raise TimeoutError("the connection stays open")


def engine_info(*, rank=0, size=1, group=None, pid=None, started=None, host=None):
    return m.EngineInfo(
        uuid.uuid4().hex,
        group or uuid.uuid4().hex,
        rank,
        size,
        host or hostname(),
        os.getpid() if pid is None else pid,
        own_start_ticks() if started is None else started,
        boot_id(),
    )


class RawEngine:
    """Both channels of an engine."""

    def __init__(self, name, info=None, **more):
        self.info = info or engine_info()
        self.work, self.control = (
            RawPeer(name, "engine", channel=channel, engine=self.info, session=self.info.uuid, **more)
            for channel in ("work", "control")
        )
        self.id = self.work.hear(m.Welcome)[0].id
        self.control.hear(m.Welcome)

    def close(self):
        self.work.cut()
        self.control.cut()


class RunningController:
    def __init__(self, **options):
        self.name = "t" + uuid.uuid4().hex[:12]
        self.directory = connection.cluster_dir(self.name)
        # One for all, because the log belongs to the process, and each controller thinks that it is alone in it.
        self.log_file = connection.base_dir() / "controllers.log"
        self.options = ControllerOptions(
            **{"name": self.name, "ip": "127.0.0.1", "port": 0, "log_file": self.log_file, **options}
        )
        self.launcher, theirs = socket.socketpair()
        self.status = None
        self.thread = threading.Thread(target=self._run, args=(theirs,))
        self.thread.start()
        self.launched = self._launcher_link()
        self.tell(m.Query(1, "ping"))
        assert self.launched.recv(WAIT_S) is not None

    def _launcher_link(self):
        from hpc.transport.unix import UnixConnection

        return UnixConnection(self.launcher, "the controller")

    def tell(self, message):
        self.launched.send([codec.encode(message)])

    def _run(self, theirs):
        self.status = run_controller(self.options, theirs)

    def client(self, **more):
        peer = RawPeer(self.name, "client", **more)
        peer.hear(m.Welcome)
        return peer

    def engine(self, info=None, **more):
        return RawEngine(self.name, info, **more)

    def log(self):
        return self.log_file.read_text()

    def wait_for_log(self, text, timeout_s=WAIT_S):
        deadline = time.monotonic() + timeout_s
        while text not in self.log():
            assert time.monotonic() < deadline, f"{text!r} is not in the log:\n{self.log()}"
            time.sleep(0.01)

    def stop(self):
        with contextlib.suppress(OSError):
            self.launched.close()
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()
        assert "Traceback" not in self.log()
        return self.status


def close_connections():
    for each in connections:
        each.close()
    connections.clear()


# A process that registers as an engine, says so, and waits to be killed; given a number, it exits with that by itself.
ENGINE_PROCESS = """
import sys, os
sys.path.insert(0, {path!r})
from controller_harness import RawEngine, engine_info
from hpc.wire import messages as m
RawEngine({name!r}, engine_info(**{fields!r}))
print("up", flush=True)
line = sys.stdin.readline()
os._exit(int(line or 0))
"""


def spawn_engine(name, **fields):
    program = ENGINE_PROCESS.format(path=os.path.dirname(__file__), name=name, fields=fields)
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "up\n"
    return process


def knock_with_an_unknown_key(name):
    """Come as somebody whose key the controller does not know, see that nothing answers, and return the secret half."""
    info = connection.find("client", name=name)
    public, secret = new_keypair()
    with contextlib.suppress(ConnectError):
        stranger = connect(
            addresses=info.addresses, server_key=info.server_key, public_key=public, secret_key=secret, timeout_s=1
        )
        assert stranger.recv(0.3) is None
        stranger.close()
    return secret
