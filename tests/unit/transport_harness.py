"""A server that is driven step by step, and peers of it, over both routes."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpc.transport import FRAMES, OPENED, Arrival, Connection, Link, Server, connect, new_keypair

TIMEOUT_S = 10.0
SERVER = new_keypair()
KEYS = {role: new_keypair() for role in ("client", "engine", "monitor")}
STRANGER = new_keypair()
ROLES = {public: role for role, (public, _) in KEYS.items()}


class Harness:
    """A server for one route, what has arrived so far, and a way to connect to it."""

    def __init__(self, route: str, directory: Path) -> None:
        self.route = route
        self.path = str(directory / "s")
        self.server = Server(
            unix_path=self.path if route == "unix" else None,
            tcp=["tcp://127.0.0.1:0"] if route == "tcp" else [],
            server_public=SERVER[0],
            server_secret=SERVER[1],
            authorise=ROLES.get,
        )
        self.arrivals: list[Arrival] = []
        self.connections: list[Connection] = []

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.server.ports[0]}"

    def turn(self, timeout_s: float = 0.0) -> None:
        arrived = self.server.poll(timeout_s)
        for arrival in arrived:
            if arrival.kind == OPENED:
                arrival.link.trust("client")
        self.arrivals += arrived

    def until(self, what: Callable[[], Any]) -> Any:
        """Let the server work until something is true."""
        end = time.monotonic() + TIMEOUT_S
        while not (found := what()):
            assert time.monotonic() < end, self.arrivals
            self.turn(0.02)
        return found

    def of(self, kind: Any) -> list[Arrival]:
        return [arrival for arrival in self.arrivals if arrival.kind == kind]

    def await_arrivals(self, kind: Any, n: int = 1) -> list[Arrival]:
        return self.until(lambda: len(self.of(kind)) >= n and self.of(kind))

    def frames(self, n: int = 1) -> list[list[bytes]]:
        """Wait for n transmissions, return and forget them."""
        found = [[bytes(frame) for frame in arrival.frames] for arrival in self.await_arrivals(FRAMES, n)]
        self.arrivals = [arrival for arrival in self.arrivals if arrival.kind != FRAMES]
        return found

    def connect(self, role: str = "client", **changed: Any) -> Connection:
        """Connect in the background, as the handshake of TCP needs the server at work."""
        public, secret = KEYS[role]
        keys = {"server_key": SERVER[0], "public_key": public, "secret_key": secret}
        wanted: dict[str, Any] = {**keys, "timeout_s": TIMEOUT_S, **changed}
        if self.route == "unix":
            connection = connect(unix=self.path, **wanted)
        else:
            with self.working():
                connection = connect(addresses=[self.address], **wanted)
        self.connections.append(connection)
        return connection

    @contextmanager
    def working(self) -> Iterator[None]:
        """Let the server work in a thread of its own."""
        done = threading.Event()

        def work() -> None:
            while not done.is_set():
                self.turn(0.01)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def pair(self, role: str = "client") -> tuple[Connection, Link]:
        """Return a new connection and its link."""
        known = len(self.of(OPENED))
        connection = self.connect(role)
        return connection, self.await_arrivals(OPENED, known + 1)[-1].link

    def receive(self, connection: Connection) -> list[bytes]:
        """Return what a peer receives while the server works."""
        found = self.until(connection.recv_nowait)
        return [bytes(frame) for frame in found]

    def close(self) -> None:
        for connection in self.connections:
            connection.close()
        self.server.close()


@contextmanager
def dealer(harness: Harness, **options: Any) -> Iterator[Any]:
    """Give a socket of bare zmq with a client's keys, connected; what it sent is out at the end."""
    import zmq

    with zmq.Context() as context, context.socket(zmq.DEALER) as sock:
        sock.linger = 1000
        sock.probe_router = 1
        sock.curve_serverkey = SERVER[0].encode()
        sock.curve_publickey, sock.curve_secretkey = (key.encode() for key in KEYS["client"])
        for name, value in options.items():
            setattr(sock, name, value)
        sock.connect(harness.address)
        yield sock
