"""The controller's end of all connections, in one loop without threads."""

import contextlib
import errno
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from hpc.errors import ProtocolError
from hpc.transport.framing import BUFFER_NBYTES, Frame
from hpc.transport.link import CLOSED, FRAMES, NOBODY, NOISE, OPENED, WATCH, Arrival, Link
from hpc.transport.poller import READ, WRITE, new_poller
from hpc.transport.unix_server import UnixLink, UnixListener

if TYPE_CHECKING:
    from hpc.transport.tcp_server import TcpServer

_new = tuple.__new__

# A link that was told to close and whose peer does not read is cut off after this.
LINGER_S: Final = 2.0
# So many new peers are let in before those that are there get their turn.
ACCEPTS_PER_TURN: Final = 64


class Server:
    """Links to all peers: `send` to them, `poll` for what arrives.

    It never blocks but in `poll`, starts no thread of its own, and reads a bounded amount from each link in a turn, so
    that neither a peer that floods nor one that never reads holds up the others.

    Parameters
    ----------
    unix_path : str, optional
        Where to listen for peers on this host. Only processes of this user are let in.
    tcp : sequence of str
        Where to listen for others: ``tcp://*:10000``; port 0 for any, see `ports`.
    server_secret, server_public : str
        The key pair that proves the controller to them (`new_keypair`).
    authorise : callable
        Gives the role that belongs to a peer's public key, None if the key is not known. Called in `poll`.
    """

    def __init__(
        self,
        *,
        unix_path: str | None = None,
        tcp: Sequence[str] = (),
        server_secret: str = "",
        server_public: str = "",
        authorise: Callable[[str], str | None] | None = None,
    ) -> None:
        self._arrivals: list[Arrival] = []
        self._buffer = memoryview(bytearray(BUFFER_NBYTES))
        self._dirty: list[UnixLink] = []
        self._links: dict[int, UnixLink] = {}
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._watched: dict[int, Any] = {}
        self._condemned: list[tuple[float, Link]] = []
        self._listener: UnixListener | None = None
        self._listening = False
        self._tcp: TcpServer | None = None
        self._poller = new_poller()
        try:
            if unix_path is not None:
                self._listener = UnixListener(unix_path)
                self._handlers[self._listener.sock.fileno()] = self._accept
                self._listen()
            if tcp:
                from hpc.transport import tcp_server

                self._tcp = tcp_server.TcpServer(
                    tcp, server_secret, server_public, authorise or (lambda _: None), self._arrived
                )
                for fd, handler in self._tcp.handlers.items():
                    self._handlers[fd] = handler
                    self._poller.register(fd, READ)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        places = [self._listener.path] if self._listener else []
        places += self._tcp.endpoints if self._tcp else []
        n_tcp = len(self._tcp.links) if self._tcp else 0
        return f"<Server at {', '.join(places) or 'no address'}: {len(self._links)} unix links, {n_tcp} tcp links>"

    @property
    def ports(self) -> list[int]:
        """The TCP ports that are bound, in the order of ``tcp``."""
        return self._tcp.ports if self._tcp else []

    # ------------------------------------------------------------ in

    def poll(self, timeout_s: float | None = None) -> list[Arrival]:
        """Flush, then wait until something arrives or the time is over (None: for ever); return what arrived."""
        self.flush()
        tcp = self._tcp
        if tcp is not None and tcp.awake:
            tcp.turn()
        if self._arrivals or (tcp is not None and tcp.awake):
            timeout_s = 0.0
        elif self._condemned:
            left_s = max(0.0, self._condemned[0][0] - time.monotonic())
            timeout_s = left_s if timeout_s is None else min(timeout_s, left_s)
        if tcp is not None and tcp.threshold.watched:
            left_s = tcp.threshold.wait_s(time.monotonic())
            timeout_s = left_s if timeout_s is None else min(timeout_s, left_s)
        links, handlers = self._links, self._handlers
        for fd, events in self._poller.poll(timeout_s):
            link = links.get(fd)
            if link is not None:
                self._serve(link, events)
            elif fd in handlers:  # not if an event before has closed it
                handlers[fd](events)
        if tcp is not None and tcp.awake:
            tcp.turn()
        if tcp is not None and tcp.threshold.watched:
            tcp.patrol(time.monotonic())
        if self._condemned:
            self._execute()
        arrivals, self._arrivals = self._arrivals, []
        return arrivals

    def _serve(self, link: UnixLink, events: int) -> None:
        if events & ~WRITE:
            try:
                transmissions = link.receive()
            except ProtocolError as error:
                self._arrivals.append(Arrival(NOISE, link, detail=f"{error} (from {link.name})"))
                transmissions = None
            except OSError:
                transmissions = None
            if transmissions is None:
                self._drop(link)
                return
            if not link.finishing:
                for frames in transmissions:
                    # As Arrival(FRAMES, link, frames) does, but without a call of Python.
                    self._arrivals.append(_new(Arrival, (FRAMES, link, frames, None, "")))
        if events & WRITE and link.blocked:
            link.blocked = False
            self._poller.modify(link.fd, READ)
            self._write(link)

    def _accept(self, _: int) -> None:
        assert self._listener is not None  # noqa: S101 - it is what calls this
        for _turn in range(ACCEPTS_PER_TURN):
            try:
                peer = self._listener.accept(self._buffer)
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                # The waiting peer would wake us again and again: listen on when a link has been closed.
                self._poller.unregister(self._listener.sock.fileno())
                self._listening = False
                self._arrivals.append(Arrival(NOISE, NOBODY, detail=f"no more peers can be let in: {error.strerror}"))
                return
            if peer is None:
                return
            if isinstance(peer, str):
                self._arrivals.append(Arrival(NOISE, NOBODY, detail=peer))
            else:
                self._add(peer)

    def _listen(self) -> None:
        if self._listener is not None and not self._listening:
            self._poller.register(self._listener.sock.fileno(), READ)
            self._listening = True

    def _add(self, link: UnixLink) -> None:
        self._links[link.fd] = link
        self._poller.register(link.fd, READ)
        self._arrivals.append(Arrival(OPENED, link))

    def _arrived(self, arrival: Arrival) -> None:
        self._arrivals.append(arrival)

    # ------------------------------------------------------------ out

    def send(self, link: Link, frames: Sequence[Frame]) -> None:
        """Queue a transmission; large frames must not change until the peer has acknowledged them.

        Nothing happens if the link is closed: its session sends again what was not received.
        """
        if link.closed:
            return
        if isinstance(link, UnixLink):
            link.queue(frames)
            if not link.dirty:
                link.dirty = True
                self._dirty.append(link)
        elif self._tcp is not None:
            self._tcp.send(link, frames)

    def flush(self) -> None:
        """Write what is queued, as far as the kernel takes it."""
        dirty = self._dirty
        if dirty:
            self._dirty = []
            for link in dirty:
                link.dirty = False
                if not link.blocked and not link.closed:
                    self._write(link)

    def _write(self, link: UnixLink) -> None:
        try:
            done = link.write()
        except OSError:
            # What the peer sent before it went is still to be read; the end of the stream comes after that.
            link.outgoing.clear()
            if link.finishing:
                self._drop(link)
            return
        if not done:
            link.blocked = True
            self._poller.modify(link.fd, READ | WRITE)
        elif link.finishing:
            self._drop(link)

    # ------------------------------------------------------------ life

    def close_link(self, link: Link, linger: bool = True) -> None:
        """Close a link; with ``linger``, what is queued goes out first. No arrival of this link follows."""
        if link.closed:
            return
        if isinstance(link, UnixLink):
            link.finishing = True
            if not linger:
                self._drop(link)
            elif not link.blocked:
                self._write(link)  # which drops it when all is out
        elif self._tcp is not None:
            self._tcp.close_link(link, linger)
        if linger and not (isinstance(link, UnixLink) and link.closed):
            self._condemned.append((time.monotonic() + LINGER_S, link))

    def _execute(self) -> None:
        now = time.monotonic()
        while self._condemned and self._condemned[0][0] <= now:
            link = self._condemned.pop(0)[1]
            if isinstance(link, UnixLink):
                self._drop(link)
            elif self._tcp is not None:
                self._tcp.cut(link)

    def _drop(self, link: UnixLink) -> None:
        if link.closed:
            return
        link.closed = True
        del self._links[link.fd]
        self._poller.unregister(link.fd)
        link.sock.close()
        link.outgoing.clear()
        if not link.finishing:
            self._arrivals.append(Arrival(CLOSED, link))
        self._listen()

    def adopt(self, sock: socket.socket, role: str) -> Link:
        """Take over one end of a socket pair as a link that needs no credentials; OPENED does not come for it."""
        link = UnixLink(sock, roles=frozenset({role}), name=f"{role} (inherited)", pid=0, buffer=self._buffer)
        self._links[link.fd] = link
        self._poller.register(link.fd, READ)
        return link

    def tcp_links(self) -> list[Link]:
        """Return all links that use TCP."""
        return list(self._tcp.links.values()) if self._tcp else []

    def withdraw(self, key: str) -> None:
        """Cut all connections that were made with a public key; what they have sent and is not read is dropped."""
        if self._tcp is not None:
            self._tcp.withdraw(key)

    def watch(self, fd: int, token: Any) -> None:
        """Report a descriptor (pidfd, pipe) as WATCH with this token in every turn in which it is readable."""
        self._watched[fd] = token
        self._handlers[fd] = lambda _: self._arrivals.append(Arrival(WATCH, NOBODY, token=token))
        self._poller.register(fd, READ)

    def unwatch(self, fd: int) -> None:
        """Watch a descriptor no more; call it before the descriptor is closed."""
        if self._watched.pop(fd, None) is not None:
            del self._handlers[fd]
            self._poller.unregister(fd)

    def close(self) -> None:
        """Write what the kernel takes, close everything, remove the socket's file."""
        self.flush()
        for link in list(self._links.values()):
            link.finishing = True
            self._drop(link)
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._tcp is not None:
            self._tcp.close()
            self._tcp = None
        with contextlib.suppress(OSError):
            self._poller.close()
