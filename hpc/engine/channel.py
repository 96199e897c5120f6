"""One of an engine's two connections to the controller, and the stream of messages that outlives it."""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from hpc.errors import ConnectError, ProtocolError
from hpc.transport import Connection, Disconnected
from hpc.transport.parcels import TRAFFIC, Parcels
from hpc.wire.messages import Hello, Message, Refused, Results, Welcome
from hpc.wire.session import Frame, Peer

# Between attempts to connect: an eighth of the time since the first one, within these limits.
SHORTEST_DELAY_S: Final = 0.02
LONGEST_DELAY_S: Final = 2.0

log = logging.getLogger("hpc.engine")


class RefusedError(ConnectError):
    """The controller does not want this engine; trying again is of no use."""


class Channel:
    """A connection and its session.

    ``lock`` belongs to whoever uses the channel. The main thread holds that of the work channel whenever user code does
    not run, so that the control thread may send held results meanwhile, and in the right order.

    The channels of an engine have one `Parcels`; they are fetched and served over the control channel.
    """

    def __init__(self, hello: Hello, dial: Callable[[], Connection], parcels: Parcels | None = None) -> None:
        self.peer = Peer(hello)
        self.parcels = Parcels() if parcels is None else parcels
        self.connection: Connection | None = None
        self.lock = threading.Lock()
        self._dial = dial
        self._trying_since = 0.0

    def __repr__(self) -> str:
        return f"<Channel {self.peer.hello.channel}, {self.connection!r}>"

    def dial(self) -> None:
        """Connect, anew if need be; the controller speaks first then. Raises what `hpc.transport.connect` raises."""
        self.drop()
        self.connection = self._dial()

    def drop(self) -> None:
        """Let go of the connection; what was not acknowledged is kept for the next one."""
        connection, self.connection = self.connection, None
        self.peer.disconnected()
        if connection is not None:
            connection.close()

    def delay_s(self) -> float:
        """Return how long to wait before the next attempt: longer each time, and never all engines at once."""
        now = time.monotonic()
        self._trying_since = self._trying_since or now
        delay_s = min(max((now - self._trying_since) / 8, SHORTEST_DELAY_S), LONGEST_DELAY_S)
        return delay_s * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret

    def send(self, message: Message, frames: Iterable[Frame] = ()) -> None:
        """Send a message, now or with the next connection; the large frames of results are fetched later."""
        if type(message) is Results:
            frames, lent = self.parcels.lend(list(frames))
            if lent is not None:
                message.parcels = lent.table
        packed = self.peer.pack(message, frames)
        if packed is not None:
            self._transmit([packed])

    def take(self, frames: Sequence[Frame]) -> Message | None:
        """Take one transmission in and send what is due for it; return its message if it is for the engine, and news.

        Raises
        ------
        RefusedError
            The controller refuses.
        """
        try:
            message, answers = self.peer.receive(frames)
            if type(message) in TRAFFIC and message is not None:
                answers += self.parcels.handle(message, frames)
                message = None
            elif type(message) is Welcome and self.peer.hello.channel == "control":
                answers += self.parcels.resume(message.resumed)
        except ProtocolError as error:
            log.error("%s", error)
            self.drop()
            return None
        if answers:
            self._transmit(answers)
        if isinstance(message, Welcome):
            self._trying_since = 0.0
        if isinstance(message, Refused):
            raise RefusedError(f"the controller refuses this engine: {message.reason}")
        return message

    def _transmit(self, transmissions: Iterable[Sequence[Frame]]) -> None:
        if self.connection is None:
            return
        try:
            for transmission in transmissions:
                self.connection.send(transmission)
        except Disconnected:
            # Whoever reads will find out too, and connect again; nothing is lost, the session keeps it.
            self.peer.disconnected()
