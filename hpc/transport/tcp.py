"""The peer's end of a connection over TCP: a zmq DEALER with CURVE."""

import os
import select
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from hpc.errors import ConnectError, KeyRefused
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
    """A connection that zmq makes again by itself whenever it breaks; the controller then identifies itself again.

    If a signal handler raises in the very moment in which parts of a transmission move, the connection is given up:
    the next call raises Disconnected, and the session sends again over a new one what was lost.
    """

    route = "tcp"

    def __init__(self, address: str, server_key: str, public_key: str, secret_key: str) -> None:
        self.address = address
        self._up = False
        self._closed = False
        # A signal handler has raised between the parts of a transmission: how many have moved cannot be told.
        self._torn = False
        # The key is let in no more: zmq would try it for ever, while there may be a new one in the connection file.
        self._refused = False
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
            # Every new connection gets a queue of its own, and begins with a probe (sent by the next call in this
            # process, to which the descriptor wakes it); what was queued for a broken one is forgotten, because the
            # session sends it again. Without this option zmq would send the old messages, and no probe.
            (zmq.IMMEDIATE, 1),
            (zmq.PROBE_ROUTER, 1),
            (zmq.RECONNECT_IVL, RECONNECT_MS),
            (zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS),
            (zmq.CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS),
            (zmq.IPV6, "[" in self.address),
        ):
            sock.setsockopt(option, value)
        # The methods of the C part, which are faster.
        base: Any = super(zmq.Socket, sock)
        self._send, self._recv = base.send, base.recv
        self._fd = int(sock.getsockopt(zmq.FD))
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self._poll.register(int(self._monitor.getsockopt(zmq.FD)), select.POLLIN)
        sock.connect(self.address)

    @property
    def connected(self) -> bool:  # noqa: D102
        while not self._closed and (found := zmtp.next_event(self._monitor)) is not None:
            self._up = found[0] == zmtp.SUCCEEDED
            self._refused |= found[0] == zmtp.FAILED_AUTH
        return self._up and not self._closed and not self._torn

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
                raise KeyRefused(
                    f"{self.address} refused: wrong key. The connection file is of another cluster, of an earlier one,"
                    " or the key in it was revoked or renewed since"
                )
            if event == zmtp.FAILED_NO_DETAIL:
                raise KeyRefused(
                    f"{self.address} refused: wrong key of the controller (the connection file is of another cluster,"
                    " or of an earlier one), or nothing is behind the tunnel that ends there"
                )
            if event in (zmtp.FAILED_PROTOCOL, zmtp.DISCONNECTED):
                detail = f" (0x{value:x})" if event == zmtp.FAILED_PROTOCOL else ""
                raise ConnectError(f"what answers at {self.address} is no controller of hpc{detail}")
            self._up = event == zmtp.SUCCEEDED
        zmtp.readable(self._sock)  # lets the socket hear of its connection, so that the first send finds it

    def send(self, frames: Sequence[Frame]) -> None:  # noqa: D102
        self._check()
        parts = zmtp.parts_of(frames)
        last = len(parts) - 1
        flags = zmtp.SNDMORE | zmtp.NOBLOCK
        try:
            for i, frame in enumerate(parts):
                part, copy = zmtp.outgoing(frame)
                self._send(part, flags if i < last else zmtp.NOBLOCK, copy)
        except zmq.Again:
            pass  # there is no connection now: the session sends it over the next one
        except zmq.ZMQError as error:
            raise self._lost(error.strerror) from None
        except BaseException:
            self._torn = True
            raise

    def recv(self, timeout_s: float | None = None) -> list[Frame] | None:  # noqa: D102
        self._check()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            # Waiting stands apart from receiving: it is here that an interruption comes, and does no harm.
            while not zmtp.readable(self._sock):
                left_ms = None if deadline is None else (deadline - time.monotonic()) * 1000
                if left_ms is not None and left_ms <= 0:
                    return None
                ready = self._poll.poll(left_ms)
                if len(ready) > 1 or (ready and ready[0][0] != self._fd):
                    self.connected  # noqa: B018 - takes in what the monitor has to say
                    self._check()
            try:
                parts = [self._recv(zmtp.NOBLOCK, False)]
                while parts[-1].more:
                    parts.append(self._recv(zmtp.NOBLOCK, False))
                frames = zmtp.received(parts)
                if len(frames) > 1 or frames[0]:  # an empty one only asked whether we are there
                    return frames
            except zmq.ZMQError as error:
                raise self._lost(error.strerror) from None
            except BaseException:
                self._torn = True
                raise

    def _check(self) -> None:
        if self._closed:
            raise self._lost("closed")
        if self._torn:
            raise self._lost("interrupted in the midst of a transmission")
        if self._refused:
            raise self._lost("its key is let in no more")

    def fileno(self) -> int:  # noqa: D102
        return self._fd

    def pending(self) -> bool:  # noqa: D102
        return self._torn or self._closed or self._refused or zmtp.readable(self._sock)

    def close(self) -> None:  # noqa: D102
        if self._closed:
            return
        self._closed = True
        self._sock.disable_monitor()
        self._monitor.close()
        self._sock.close()
        _shared.release()

    def _lost(self, why: str) -> Disconnected:
        return Disconnected(f"the connection to {self.address} is gone: {why}")


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
