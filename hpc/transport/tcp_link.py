"""A peer on TCP: the connection that the kernel knows, and the link that zmq makes of it."""

import errno
import socket

from hpc.transport.link import Link


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
        self.address = peer_address(fd)
        self.link: TcpLink | None = None
        self.alive = True
        self.quiet = False  # its end is no news
        self.reason = ""

    def __repr__(self) -> str:
        return f"<Channel {self.fd} from {self.address}, {'up' if self.alive else 'down'}, {self.link!r}>"

    def cut(self) -> None:
        """Shut the connection down under the hands of zmq, if the descriptor still is this connection's."""
        if self.alive and self.address and peer_address(self.fd) == self.address:
            sock = socket.socket(fileno=self.fd)
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError as error:
                if error.errno not in (errno.ENOTCONN, errno.EBADF):
                    raise
            finally:
                sock.detach()


def peer_address(fd: int) -> str:
    """Return ``host:port`` of the other end of a descriptor that belongs to zmq; '' if it is gone."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return ""
    try:
        found = sock.getpeername()
        return f"{found[0]}:{found[1]}" if isinstance(found, tuple) else ""
    except OSError:
        return ""
    finally:
        sock.detach()
