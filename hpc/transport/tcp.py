"""The peer's end of a connection over TCP: a zmq DEALER with CURVE."""

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from hpc.errors import ConnectError
from hpc.transport import zmtp
from hpc.transport.connection import Connection
from hpc.transport.framing import Frame
from hpc.transport.link import Disconnected

if TYPE_CHECKING:
    zmq: Any  # the type checker does not look into it
else:
    import zmq

# zmq adds a random part of the first to every wait, so that peers do not come back all at once.
RECONNECT_MS: Final = 100
RECONNECT_MAX_MS: Final = 5000
CONNECT_TIMEOUT_MS: Final = 5000

_WATCHED: Final = zmtp.EVENTS & ~zmtp.ACCEPTED


class _Shared:
    """The one zmq context of all connections of a process, and so their one I/O thread."""

    def __init__(self) -> None:
        self._context: Any = None
        self._pid = 0
        self._users = 0

    def acquire(self) -> Any:
        if self._context is None or self._pid != os.getpid():  # a context does not survive a fork
            self._context, self._pid, self._users = zmq.Context(io_threads=1), os.getpid(), 0
        self._users += 1
        return self._context

    def release(self) -> None:
        """Wait, after the last one, until what was sent is out (at most `zmtp.LINGER_MS`)."""
        if self._pid != os.getpid():
            return
        self._users -= 1
        if not self._users:
            context, self._context = self._context, None
            context.term()


_shared = _Shared()


class TcpConnection(Connection):
    """A connection that zmq makes again by itself whenever it breaks; the controller then identifies itself again."""

    route = "tcp"

    def __init__(self, address: str, server_key: str, public_key: str, secret_key: str) -> None:
        self.address = address
        self._up = False
        self._closed = False
        self._parts: list[Any] = []
        self._outgoing: tuple[list[Any], list[Any]] | None = None
        context = _shared.acquire()
        self._sock = sock = context.socket(zmq.DEALER)
        self._monitor = zmtp.monitor(context, sock, _WATCHED)
        try:
            self._open(server_key, public_key, secret_key)
        except BaseException:
            self.close()
            raise

    def _open(self, server_key: str, public_key: str, secret_key: str) -> None:
        sock = self._sock
        zmtp.configure(sock)
        for option, value in (
            (zmq.CURVE_SERVERKEY, server_key.encode()),
            (zmq.CURVE_PUBLICKEY, public_key.encode()),
            (zmq.CURVE_SECRETKEY, secret_key.encode()),
            # Every new connection gets a queue of its own, and begins with a probe; what was queued for a broken one is
            # forgotten, because the session sends it again. Without it zmq would send old messages, and no probe.
            (zmq.IMMEDIATE, 1),
            (zmq.PROBE_ROUTER, 1),
            (zmq.RECONNECT_IVL, RECONNECT_MS),
            (zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS),
            (zmq.CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS),
            (zmq.IPV6, "[" in self.address),
        ):
            sock.setsockopt(option, value)
        # The methods of the C part: no Python runs between the call and its effect (see `send`).
        base: Any = super(zmq.Socket, sock)
        self._send, self._recv = base.send, base.recv
        sock.connect(self.address)

    @property
    def connected(self) -> bool:  # noqa: D102
        while not self._closed and (found := zmtp.next_event(self._monitor)) is not None:
            self._up = found[0] == zmtp.SUCCEEDED
        return self._up and not self._closed

    def shake_hands(self, deadline: float) -> None:
        """Wait until the controller has accepted the keys; `ConnectError` if it has not by then, or refuses."""
        while not self._up:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not self._monitor.poll(left_s * 1000):
                raise ConnectError(f"{self.address} accepts connections, but did not complete the handshake in time")
            found = zmtp.next_event(self._monitor)
            if found is None:
                continue
            event, value = found
            if event == zmtp.FAILED_AUTH:
                raise ConnectError(
                    f"{self.address} refused: wrong key. The connection file is of another cluster or of an earlier one"
                )
            if event == zmtp.FAILED_NO_DETAIL:
                raise ConnectError(
                    f"{self.address} refused: wrong key of the controller (the connection file is of another cluster,"
                    " or of an earlier one), or nothing is behind the tunnel that ends there"
                )
            if event in (zmtp.FAILED_PROTOCOL, zmtp.DISCONNECTED):
                detail = f" (0x{value:x})" if event == zmtp.FAILED_PROTOCOL else ""
                raise ConnectError(f"what answers at {self.address} is no controller of hpc{detail}")
            self._up = event == zmtp.SUCCEEDED
        zmtp.readable(self._sock)  # lets the socket hear of its connection, so that the first send finds it

    def send(self, frames: Sequence[Frame]) -> None:  # noqa: D102
        last = len(frames) - 1
        more = zmtp.SNDMORE | zmtp.NOBLOCK
        calls = [(*zmtp.outgoing(frame), more if i < last else zmtp.NOBLOCK) for i, frame in enumerate(frames)]
        sent: list[Any] = []
        if self._outgoing is not None:  # left by a call that was interrupted
            begun, already = self._outgoing
            calls = begun[len(already) :] + calls
        self._outgoing = (calls, sent)
        try:
            # All parts in one call of C code: a signal handler that raises comes before it or after it.
            parts, copies, flags = zip(*calls, strict=True)
            sent.extend(map(self._send, parts, flags, copies))
        except zmq.Again:
            pass  # there is no connection now: the session sends it over the next one
        except zmq.ZMQError as error:
            raise self._lost(error) from None
        self._outgoing = None

    def recv(self, timeout_s: float | None = None) -> list[Frame] | None:  # noqa: D102
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        flags = 0 if deadline is None else zmtp.NOBLOCK
        try:
            while True:
                parts = self._parts
                while not parts or parts[-1].more:
                    # Recorded by the C code of list.extend: an interrupted call is taken up by the next one.
                    parts.extend(map(self._recv, (flags,), (False,)))
                frames: list[Frame] = [zmtp.received(part) for part in parts]
                if len(frames) > 1 or frames[0]:
                    self._parts = []
                    return frames
                self._parts = []  # an empty one only asked whether we are there
        except zmq.Again:
            if deadline is not None and self._wait(deadline):
                return self.recv(max(0.0, deadline - time.monotonic()))
            return None
        except zmq.ZMQError as error:
            raise self._lost(error) from None

    def _wait(self, deadline: float) -> bool:
        left_s = deadline - time.monotonic()
        return left_s > 0 and bool(self._sock.poll(left_s * 1000))

    def fileno(self) -> int:  # noqa: D102
        return int(self._sock.getsockopt(zmq.FD))

    def pending(self) -> bool:  # noqa: D102
        return bool(self._parts) or zmtp.readable(self._sock)

    def close(self) -> None:  # noqa: D102
        if self._closed:
            return
        self._closed = True
        self._sock.disable_monitor()
        self._monitor.close()
        self._sock.close()
        _shared.release()

    def _lost(self, error: Exception) -> Disconnected:
        return Disconnected(f"the connection to {self.address} is closed: {error}")


def connect_tcp(address: str, server_key: str, public_key: str, secret_key: str, deadline: float) -> TcpConnection:
    """Connect and wait for the end of the handshake; ``deadline`` is a time of `time.monotonic`."""
    try:
        connection = TcpConnection(address, server_key, public_key, secret_key)
    except (zmq.ZMQError, ValueError) as error:
        raise ConnectError(f"cannot connect to {address}: {error}") from None
    try:
        connection.shake_hands(deadline)
    except BaseException:
        connection._sock.setsockopt(zmq.LINGER, 0)
        connection.close()
        raise
    return connection
