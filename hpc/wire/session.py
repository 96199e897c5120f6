"""A reliable, ordered stream of messages over connections that come and go (docs/protocol.md, section 3).

Each side numbers what it sends and keeps it until the other side has acknowledged it. After a reconnection both say
how far they have received; the rest is sent again, and what comes twice is dropped. So a cut network, or a controller
that was restarted, neither loses nor doubles a task or a result.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

import msgspec

from hpc.errors import ProtocolError
from hpc.wire import codec
from hpc.wire import messages as m

Frame: TypeAlias = bytes | bytearray | memoryview
Frames: TypeAlias = Sequence[Frame]

# An acknowledgement of its own is due after this much, when no other message carries it.
ACK_EVERY_MESSAGES: Final = 32
ACK_EVERY_NBYTES: Final = 4 * 1024 * 1024


class GapError(ProtocolError):
    """Messages are missing before this one: the connection is to be made anew, and the session resumed."""


class Session:
    """One direction-less half of a stream: numbers, acknowledges, keeps, repeats.

    It owns references to the frames that it keeps: whoever packs a writable buffer must not change it before
    `acknowledged` has passed the sequence number that `pack` gave it. ``kept_nbytes`` counts their bytes.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0
        self.acknowledged = 0
        self.kept_nbytes = 0
        self._kept: deque[tuple[int, m.Message, tuple[Frame, ...], int]] = deque()
        self._owed_messages = 0
        self._owed_nbytes = 0

    def __repr__(self) -> str:
        return f"<Session sent {self.sent} (acknowledged {self.acknowledged}), received {self.received}>"

    def pack(self, message: m.Message, frames: Iterable[Frame] = ()) -> list[Frame]:
        """Give a message its number and keep it; return the frames to transmit."""
        body = tuple(frames)
        seq = self.sent + 1
        head = codec.encode(message, seq, self.received)
        nbytes = len(head) + sum(map(len, body)) if body else len(head)
        self.sent = seq  # no call between this line and the next: a KeyboardInterrupt cannot come between them
        self._kept.append((seq, message, body, nbytes))
        self.kept_nbytes += nbytes
        self._owed_messages = self._owed_nbytes = 0
        return [head, *body]

    def accept(self, seq: int, ack: int, frames: Frames) -> bool:
        """Take note of a message that came in; False if it came before and is to be dropped."""
        if ack > self.acknowledged:
            if ack > self.sent:
                raise ProtocolError(f"the peer acknowledges message {ack}, only {self.sent} were sent")
            self._forget(ack)
        if seq == 0:
            return True
        if seq <= self.received:
            return False
        if seq != self.received + 1:
            raise GapError(f"message {seq} came where {self.received + 1} was due")
        self.received = seq
        self._owed_messages += 1
        self._owed_nbytes += sum(map(len, frames)) if len(frames) > 1 else len(frames[0])
        return True

    def ack_due(self) -> bool:
        """Say whether so much came in that the other side should hear of it now, by `acknowledge`."""
        return self._owed_messages >= ACK_EVERY_MESSAGES or self._owed_nbytes >= ACK_EVERY_NBYTES

    def acknowledge(self) -> list[Frame]:
        """Return the frames of an acknowledgement that stands alone."""
        self._owed_messages = self._owed_nbytes = 0
        return [codec.encode(m.Ack(), 0, self.received)]

    def resume(self, peer_received: int) -> list[list[Frame]]:
        """Return what the other side has not received, to be transmitted in order after a reconnection."""
        if not self.acknowledged <= peer_received <= self.sent:
            raise ProtocolError(
                f"the peer has received {peer_received} messages of this session,"
                f" {self.sent} were sent and {self.acknowledged} acknowledged"
            )
        self._forget(peer_received)
        return [[codec.encode(message, seq, self.received), *body] for seq, message, body, _ in self._kept]

    def _forget(self, received: int) -> None:
        self.acknowledged = received
        kept = self._kept
        while kept and kept[0][0] <= received:
            self.kept_nbytes -= kept.popleft()[3]

    @property
    def unacknowledged(self) -> int:
        """How many messages are kept because the other side has not acknowledged them."""
        return len(self._kept)


class Peer:
    """A peer's half of a connection to the controller: identification, session, resumption. Sans-I/O.

    Feed every transmission that comes in to `receive`; transmit what it and `pack` return. `pack` returns None while
    the peer is not welcome (yet, or again): the message is kept and goes out with the resumption.
    """

    def __init__(self, hello: m.Hello) -> None:
        self.hello = hello
        self.session = Session()
        self.welcome: m.Welcome | None = None
        self.cluster = ""
        self._connected = False

    def __repr__(self) -> str:
        state = "connected" if self._connected else "not connected"
        return f"<Peer {self.hello.role} {self.hello.session[:8]} {self.hello.channel} {state}, {self.session!r}>"

    @property
    def connected(self) -> bool:
        """Whether the controller has welcomed this connection."""
        return self._connected

    def disconnected(self) -> None:
        """Note that the connection is gone; the session goes on with the next one."""
        self._connected = False

    def pack(self, message: m.Message, frames: Iterable[Frame] = ()) -> list[Frame] | None:
        """Give a message its number and keep it; return the frames to transmit, None while there is no welcome."""
        packed = self.session.pack(message, frames)
        return packed if self._connected else None

    def receive(self, frames: Frames) -> tuple[m.Message | None, list[list[Frame]]]:
        """Take one transmission in; return its message, None if it is not for the application, and what to transmit.

        Raises
        ------
        ProtocolError
            The transmission is malformed, or of another cluster or version.
        """
        seq, ack, message = codec.from_controller(frames[0], self.hello.role)
        if not seq:
            if isinstance(message, m.Identify):
                return None, [self._introduce(message)]
            if isinstance(message, m.Welcome):
                self.welcome, self._connected = message, True
                return message, self.session.resume(message.received)
            if isinstance(message, m.Refused):
                self._connected = False
                return message, []
        session = self.session
        if not session.accept(seq, ack, frames):
            return None, []
        return (None if type(message) is m.Ack else message), [session.acknowledge()] if session.ack_due() else []

    def _introduce(self, identify: m.Identify) -> list[Frame]:
        if identify.protocol != codec.PROTOCOL:
            raise ProtocolError(
                f"the controller (hpc {identify.software}) speaks version {identify.protocol} of the protocol,"
                f" this side (hpc {self.hello.software}) version {codec.PROTOCOL}:"
                " install the same release of hpc on both sides"
            )
        if self.cluster and identify.cluster != self.cluster:
            raise ProtocolError(f"another cluster ({identify.cluster}) answers at the address of {self.cluster}")
        self.cluster = identify.cluster
        self._connected = False
        return [codec.encode(msgspec.structs.replace(self.hello, received=self.session.received))]
