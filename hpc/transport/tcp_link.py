"""A peer on TCP: the connection that the kernel knows, and the link that zmq makes of it."""

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Final

from hpc.transport.link import Link

# struct tcp_info of linux/tcp.h: 8 bytes, 24 numbers of 32 bits, three of 64 bits, and then tcpi_bytes_received.
_RECEIVED: Final = struct.Struct("=128xQ")


class TcpLink(Link):
    """A peer on a zmq connection."""

    __slots__ = ("channel", "routing_id")

    def __init__(self, routing_id: bytes, channel: "Channel", role: str, key: str) -> None:
        super().__init__(roles=frozenset({role}), route="tcp", name=f"{channel.address} (tcp)")
        self.routing_id = routing_id
        self.channel = channel
        self.key = key


class Channel:
    """A TCP connection between its ACCEPTED and its DISCONNECTED, and the link it belongs to once that is known."""

    __slots__ = ("address", "alive", "fd", "link", "quiet", "reason")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        with _borrowed(fd) as sock:
            self.address = _address(sock)
        self.link: TcpLink | None = None
        self.alive = True
        self.quiet = False  # its end is no news
        self.reason = ""

    def __repr__(self) -> str:
        return f"<Channel {self.fd} from {self.address}, {'up' if self.alive else 'down'}, {self.link!r}>"

    def cut(self) -> None:
        """Shut the connection down under the hands of zmq, if the descriptor still is this connection's."""
        with _borrowed(self.fd) as sock:
            if self.alive and self.address and sock is not None and _address(sock) == self.address:
                with contextlib.suppress(OSError):  # the other end was faster
                    sock.shutdown(socket.SHUT_RDWR)

    def nbytes_received(self) -> int:
        """Return how much has come in; 0 where the kernel does not tell it, or the connection is gone."""
        if sys.platform != "linux":
            return 0
        with _borrowed(self.fd) as sock:
            try:
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED.size) if sock is not None else b""
            except OSError:  # the descriptor is that of something else by now
                return 0
        return int(_RECEIVED.unpack(info)[0]) if len(info) == _RECEIVED.size else 0


@contextlib.contextmanager
def _borrowed(fd: int) -> Iterator[socket.socket | None]:
    """Give a socket for a descriptor that zmq may close at any moment, and the number be another's then."""
    try:
        own = os.dup(fd)
    except OSError:
        yield None
        return
    try:
        sock = socket.socket(fileno=own)
    except OSError:  # it was a file's
        os.close(own)
        yield None
        return
    with sock:
        yield sock


def _address(sock: socket.socket | None) -> str:
    """Return ``host:port`` of the other end, '' if it is gone."""
    try:
        found = sock.getpeername() if sock is not None else ""
    except OSError:
        return ""
    return f"{found[0]}:{found[1]}" if isinstance(found, tuple) else ""
