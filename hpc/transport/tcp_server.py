"""The controller's end of TCP: one zmq ROUTER with CURVE, its monitor, and the keeper of keys (ZAP, RFC 27).

zmq hides connections; this finds them again. A routing id is new for every connection, because zmq makes it up as long
as the peer does not bring one of its own (those are refused). The first message of a routing id tells the descriptor of
its connection (ZMQ_SRCFD), and the monitor tells which descriptor was accepted and which is gone.
"""

import ctypes
import errno
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from hpc.transport import zmtp
from hpc.transport.framing import Frame
from hpc.transport.link import CLOSED, FRAMES, NOBODY, NOISE, OPENED, Arrival, Link
from hpc.transport.tcp_link import Channel, TcpLink
from hpc.transport.threshold import Threshold

if TYPE_CHECKING:
    zmq: Any
    z85: Any  # the type checker does not look into it
else:
    import zmq
    from zmq.utils import z85

# What is read in one turn before unix peers and the owner get theirs; zmq takes its peers in turns by itself.
MESSAGES_PER_TURN: Final = 256
# Connections may come and go as fast as they are counted.
EVENTS_PER_TURN: Final = 64
NBYTES_PER_TURN: Final = 16 * 1024 * 1024
BACKLOG: Final = 1024
_new: Final = tuple.__new__
_SNDMORE_NOBLOCK: Final = zmtp.SNDMORE | zmtp.NOBLOCK
ZAP_DOMAIN: Final = b"hpc"
# Routing ids of links that are gone are remembered, so that a late message does not look like a new peer.
MAX_BURIED: Final = 10000


class TcpServer:
    """Part of `hpc.transport.Server`, which calls `turn` when one of `handlers` was called or `awake` is set."""

    def __init__(
        self,
        endpoints: Sequence[str],
        server_secret: str,
        server_public: str,
        authorise: Callable[[str], str | None],
        arrived: Callable[[Arrival], None],
    ) -> None:
        self.links: dict[bytes, TcpLink] = {}
        self.endpoints: list[str] = []
        self.ports: list[int] = []
        # The descriptors of zmq tell of news once; so they are noted until all was read.
        self.awake = self._router_wakes = self._monitor_wakes = self._zap_wakes = True
        self._authorise, self._arrived = authorise, arrived
        self.threshold = Threshold()
        self._channels: dict[int, Channel] = {}  # alive
        self._dead: list[Channel] = []  # whose end is still to be told
        self._buried: set[bytes] = set()
        self._failure: tuple[int, int] | None = None  # the last event, if it was a failed handshake
        _seed()
        self._context = zmq.Context(io_threads=1)
        try:
            self._zap = self._socket(zmq.REP)
            self._zap.setsockopt(zmq.LINGER, 0)
            self._zap.bind("inproc://zeromq.zap.01")
            self._router = self._socket(zmq.ROUTER)
            zmtp.configure(self._router)
            for option, value in (
                (zmq.CURVE_SERVER, 1),
                (zmq.CURVE_SECRETKEY, server_secret.encode()),
                (zmq.CURVE_PUBLICKEY, server_public.encode()),
                (zmq.ZAP_DOMAIN, ZAP_DOMAIN),
                (zmq.ZAP_ENFORCE_DOMAIN, 1),
                (zmq.ROUTER_MANDATORY, 1),
                (zmq.BACKLOG, BACKLOG),
            ):
                self._router.setsockopt(option, value)
            base: Any = super(zmq.Socket, self._router)
            self._send, self._recv = base.send, base.recv
            self._monitor = zmtp.monitor(self._context, self._router, zmtp.EVENTS)
            for endpoint in endpoints:
                self._bind(endpoint)
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self.handlers: dict[int, Callable[[int], None]] = {
            int(self._router.getsockopt(zmq.FD)): self._router_readable,
            int(self._monitor.getsockopt(zmq.FD)): self._monitor_readable,
            int(self._zap.getsockopt(zmq.FD)): self._zap_readable,
        }

    def __repr__(self) -> str:
        return f"<TcpServer at {', '.join(self.endpoints)}: {len(self.links)} links>"

    def _socket(self, kind: int) -> Any:
        return self._context.socket(kind)

    def _bind(self, endpoint: str) -> None:
        self._router.setsockopt(zmq.IPV6, "[" in endpoint)
        try:
            self._router.bind(endpoint)
        except zmq.ZMQError as error:
            raise OSError(error.errno, f"cannot listen on {endpoint}: {error.strerror}") from None
        bound = self._router.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()
        self.endpoints.append(bound)
        self.ports.append(int(bound.rpartition(":")[2]))

    def _router_readable(self, _: int) -> None:
        self.awake = self._router_wakes = True

    def _monitor_readable(self, _: int) -> None:
        self.awake = self._monitor_wakes = True

    def _zap_readable(self, _: int) -> None:
        self.awake = self._zap_wakes = True

    # ------------------------------------------------------------ in

    def turn(self) -> None:
        """Let new peers in, read what came, tell who is gone."""
        self.awake = False
        if self._zap_wakes:
            self._zap_wakes = False
            self._answer_zap()
        # The monitor first, then all messages, then the ends: what a peer said before it went is told before its end.
        if self._monitor_wakes:
            self._read_monitor(EVENTS_PER_TURN)
        if self._read_router():
            if self._dead:
                self._bury()
        else:
            self.awake = self._router_wakes = True

    def _answer_zap(self) -> None:
        while zmtp.readable(self._zap):
            request = self._zap.recv_multipart(zmtp.NOBLOCK)
            role, key = None, ""
            if len(request) == 7 and request[0] == b"1.0" and request[5] == b"CURVE":
                key = z85.encode(request[6]).decode()
                role = self._authorise(key)
                if role is None:
                    address = request[3].decode("latin-1")
                    detail = f"refused a peer at {address}: its key {key[:8]}... is not known here"
                    self._arrived(Arrival(NOISE, NOBODY, detail=detail))
            request_id = request[1] if len(request) > 1 else b""
            status, text, user = (b"200", b"OK", key.encode()) if role else (b"400", b"unknown key", b"")
            self._zap.send_multipart([b"1.0", request_id, status, text, user, b""])

    def _read_monitor(self, at_most: int = sys.maxsize) -> None:
        self._monitor_wakes = False
        while (found := zmtp.next_event(self._monitor)) is not None:
            event, value = found
            if event == zmtp.ACCEPTED:
                came = self._channels[value] = Channel(value)
                self.threshold.came(came, time.monotonic())
            elif event == zmtp.DISCONNECTED:
                channel = self._channels.pop(value, None)
                if channel is not None:
                    self.threshold.gone(channel)
                    channel.alive = False
                    self._explain(channel)
                    self._dead.append(channel)
            # A handshake fails on the I/O thread, which then closes the connection before it does anything else.
            failed = event in (zmtp.FAILED_AUTH, zmtp.FAILED_PROTOCOL, zmtp.FAILED_NO_DETAIL)
            self._failure = found if failed else None
            at_most -= 1
            if not at_most:
                self.awake = self._monitor_wakes = True
                return

    def _explain(self, channel: Channel) -> None:
        event, value = self._failure or (0, 0)
        if event == zmtp.FAILED_PROTOCOL:
            channel.reason = zmtp.protocol_reason(value)
        elif event == zmtp.FAILED_AUTH:
            channel.quiet = True  # said when the key was refused
        elif event == zmtp.FAILED_NO_DETAIL:
            # Whoever connects and goes without a word looked for the way, as `hpc.transport.connect` does.
            channel.quiet = value in (errno.EPIPE, errno.ECONNRESET, 0)
            channel.reason = f"no handshake within {zmtp.HANDSHAKE_MS / 1000:g} s"
        else:
            channel.reason = "its bytes are not of the protocol"

    def _read_router(self) -> bool:
        """Read messages; say whether all were read."""
        if not self._router_wakes and not zmtp.readable(self._router):
            return True
        self._router_wakes = False
        recv, router = self._recv, self._router
        nbytes = 0
        try:
            for n in range(MESSAGES_PER_TURN):
                if n and not zmtp.readable(router):  # cheaper than the exception below
                    return True
                routing_id = recv(zmtp.NOBLOCK, True)
                parts = [recv(0, False)]
                while parts[-1].more:
                    parts.append(recv(0, False))
                link = self.links.get(routing_id)
                if link is None:
                    link = self._meet(routing_id, parts[0])
                    if link is None:
                        continue
                frames = zmtp.received(parts)
                if len(frames) > 1 or frames[0]:
                    self._arrived(_new(Arrival, (FRAMES, link, frames, None, "")))
                    nbytes += sum(map(len, frames))
                    if nbytes > NBYTES_PER_TURN:
                        return False
        except zmq.Again:
            return True
        return False

    def _meet(self, routing_id: bytes, part: Any) -> TcpLink | None:
        """Return a new link for a routing id that is not known; None if it is not to have one."""
        if routing_id in self._buried:
            return None
        self._read_monitor()  # its connection is accepted, and the last one with that descriptor gone, by now
        fd = part.get(zmq.SRCFD)
        channel = self._claim(fd, routing_id)
        if channel is None:
            self._forget(routing_id)
            return None
        if part.get("Identity") or len(routing_id) != 5 or routing_id[:1] != b"\0":
            detail = f"refused a peer at {channel.address}: it brings a routing id of its own"
            self._arrived(Arrival(NOISE, NOBODY, detail=detail))
            channel.quiet = True
            self._forget(routing_id)
            channel.cut()
            return None
        key = part.get("User-Id")
        role = self._authorise(key)
        if role is None:  # it was revoked since the handshake
            channel.quiet = True
            self._forget(routing_id)
            channel.cut()
            return None
        self.threshold.known(channel, role)
        link = TcpLink(routing_id, channel, role, key)
        channel.link = self.links[routing_id] = link
        self._arrived(Arrival(OPENED, link))
        return link

    def _claim(self, fd: int, routing_id: bytes) -> Channel | None:
        """Return the connection with that descriptor that belongs to the routing id."""
        living = self._channels.get(fd)
        if living is not None and living.link is not None:
            living = None
        gone = next((channel for channel in self._dead if channel.fd == fd and channel.link is None), None)
        if gone is not None and (living is None or not self._reaches(routing_id)):
            return gone
        if living is None and fd not in self._channels:
            living = self._channels[fd] = Channel(fd)
        return living

    def _reaches(self, routing_id: bytes) -> bool:
        try:
            self._router.send_multipart([routing_id, b""], zmtp.NOBLOCK)
        except zmq.ZMQError:
            return False
        return True

    def _bury(self) -> None:
        dead, self._dead = self._dead, []
        for channel in dead:
            if channel.link is not None:
                self._lose(channel.link)
                channel.link = None  # they refer to each other, and the collector seldom comes
            elif not channel.quiet:
                who = channel.address or "an unknown address (it was gone at once)"
                detail = f"refused a peer at {who}: {channel.reason}"
                self._arrived(Arrival(NOISE, NOBODY, detail=detail))

    def _lose(self, link: TcpLink) -> None:
        known = self.links.pop(link.routing_id, None)
        self._forget(link.routing_id)
        if known is not None and not link.closed:
            link.closed = True
            self._arrived(Arrival(CLOSED, link))

    def _forget(self, routing_id: bytes) -> None:
        if len(self._buried) >= MAX_BURIED:
            self._buried.clear()
        self._buried.add(routing_id)

    # ------------------------------------------------------------ out

    def send(self, link: Link, frames: Sequence[Frame]) -> None:
        """Hand a transmission to zmq, which queues it."""
        assert isinstance(link, TcpLink)  # noqa: S101 - links of this route are made here
        self.awake = True  # a send may swallow the sign that something came in
        try:
            self._send(link.routing_id, _SNDMORE_NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (errno.EHOSTUNREACH, errno.EAGAIN):
                raise
            self._lose(link)
            return
        parts = zmtp.parts_of(frames)
        last = len(parts) - 1
        for i, frame in enumerate(parts):
            part, copy = zmtp.outgoing(frame)
            self._send(part, zmtp.SNDMORE if i < last else 0, copy)

    def close_link(self, link: Link, linger: bool) -> None:
        """Take no notice of the peer any more; without ``linger``, cut the connection now."""
        assert isinstance(link, TcpLink)  # noqa: S101
        link.closed = True
        self.links.pop(link.routing_id, None)
        self._forget(link.routing_id)
        if not linger:
            self.cut(link)

    def withdraw(self, key: str) -> None:
        """Lose all links of a key; nothing that they have sent is read any more."""
        for link in [link for link in self.links.values() if link.key == key]:
            self._lose(link)
            self.cut(link)

    def patrol(self, now: float) -> None:
        """Cut connections that have not shown who they are and do not behave."""
        for detail in self.threshold.look(now):
            self.awake = True
            self._arrived(Arrival(NOISE, NOBODY, detail=detail))

    def cut(self, link: Link) -> None:
        """Cut the connection of a closed link, if the peer has not gone by itself."""
        assert isinstance(link, TcpLink)  # noqa: S101
        self._read_monitor()
        self.awake = True
        link.channel.cut()

    def close(self) -> None:
        """Close; what is queued goes out, as far as `zmtp.LINGER_MS` permits."""
        self._router.disable_monitor()
        self._monitor.close()
        self._zap.close()
        self._router.close()
        self._context.term()


def _seed() -> None:
    """Make the routing ids that zmq makes up impossible to guess; it takes the first from rand(), and seeds that never.

    A peer that brought the id which is due next would otherwise end the process (an assertion in zmq).
    """
    ctypes.CDLL(None).srand(int.from_bytes(os.urandom(4), "little"))
