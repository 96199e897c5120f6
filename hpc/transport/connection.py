"""The peer's end of a connection to the controller."""

import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence

from hpc.transport.framing import Frame


class Connection(ABC):
    """An ordered channel of transmissions to the controller; `hpc.transport.connect` makes it.

    One thread may send while another one receives if the route is ``unix``; with ``tcp`` all calls must come from one
    thread at a time. An exception that a signal handler raises (Ctrl-C) loses nothing: a transmission under way is
    completed by the next call, or that call raises Disconnected.

    Attributes
    ----------
    route : str
        ``unix`` or ``tcp``.
    address : str
        Where the controller was found.
    obstacle : str
        Why it is ``tcp`` although the controller runs on this machine, '' if that is not so.
    """

    route = ""
    address = ""
    obstacle = ""

    def __repr__(self) -> str:
        return f"<Connection {self.route} to {self.address}, {'up' if self.connected else 'down'}>"

    @property
    @abstractmethod
    def connected(self) -> bool:
        """Whether the other side is there, as far as is known. A ``tcp`` connection may come back by itself."""

    @abstractmethod
    def send(self, frames: Sequence[Frame]) -> None:
        """Send a transmission; return when it is handed over. Large frames must not change until acknowledged.

        While a ``tcp`` connection is down nothing is sent, and nothing raised: the next one begins with an
        identification, and then the session sends again what was not received.

        Raises
        ------
        Disconnected
            The connection is gone.
        """

    @abstractmethod
    def recv(self, timeout_s: float | None = None) -> list[Frame] | None:
        """Wait for a transmission; None if the time is over first.

        Small frames come as bytes, large ones as writable memory.

        Raises
        ------
        Disconnected
            The connection is gone.
        ProtocolError
            The other side does not speak the protocol.
        """

    def recv_nowait(self) -> list[Frame] | None:
        """Return a transmission if one is there. Raises as `recv` does."""
        return self.recv(0)

    @abstractmethod
    def fileno(self) -> int:
        """Return a descriptor that becomes readable when something comes in; see `pending`."""

    @abstractmethod
    def pending(self) -> bool:
        """Say whether something may be received now, whatever `fileno` shows. Call it before waiting on that."""

    @abstractmethod
    def close(self) -> None:
        """Close; what was sent is still delivered, as far as a short time permits."""

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# Large enough that a burst of small messages never blocks; the kernel clips it to what the machine permits.
SOCKET_BUFFER_NBYTES = 1024 * 1024


def widen(sock: socket.socket) -> None:
    """Ask for large kernel buffers."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_NBYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_NBYTES)
