"""A peer's end of parcels: large frames that stay with their sender and are fetched in pieces (docs/protocol.md, 2.3).

So the controller, which passes them on, never holds more than a few pieces; a slow receiver stops nobody but itself,
and small messages go between the pieces. Sans-I/O, one `Parcels` for a process: feed it the messages of `TRAFFIC`,
transmit what it returns. All that it says may be said again, so a new connection goes on where the old one broke.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

from hpc.errors import ProtocolError
from hpc.transport.framing import Frame, allocate
from hpc.transport.meter import meter
from hpc.transport.shared import SharedFrame
from hpc.wire import codec
from hpc.wire import messages as m

TRAFFIC: Final = frozenset((m.Offer, m.Withdraw, m.Fetch, m.Piece, m.Release))

# Frames of a body become parcels if together they have so many bytes, and each has so many.
LEND_NBYTES: Final = 1024 * 1024
LEND_FRAME_NBYTES: Final = 64 * 1024
# Measured (docs/decisions/0009-tcp-route.md): smaller pieces cost more calls, larger ones keep all but one hop waiting.
PIECE_NBYTES: Final = 1024 * 1024
# What one process has asked for and not got yet; a small message waits behind no more than this.
WINDOW_NBYTES: Final = 8 * PIECE_NBYTES


class Lent:
    """The frames of one body that stay here: ``table`` names them in its message, ``left`` may still be fetched."""

    __slots__ = ("left", "table")

    def __init__(self, table: list[m.Label]) -> None:
        self.table = table
        self.left = {label.number for label in table}

    def __repr__(self) -> str:
        return f"<Lent {len(self.table)} frames, {len(self.left)} not released>"


class Shelf:
    """What this process has lent. Any thread may lend.

    Attributes
    ----------
    n_served : int
        How many pieces have left so far.
    """

    def __init__(self) -> None:
        self.n_served = 0
        self._numbers = itertools.count(1)
        self._places: dict[int, tuple[memoryview, Lent]] = {}
        self._unread: set[int] = set()

    def __repr__(self) -> str:
        return f"<Shelf with {len(self._places)} parcels>"

    def __len__(self) -> int:
        return len(self._places)

    def is_read(self) -> bool:
        """Say whether all that is on it was fetched to its end, at least once."""
        return not self._unread

    def lend(self, body: list[Any]) -> tuple[list[Any], Lent | None]:
        """Keep the large frames of a body; return it with empty ones in their place.

        Never the first, which is read on the way. The memory must not change until it is released.
        """
        if len(body) < 2:
            return body, None
        large = [
            i
            for i, frame in enumerate(body)
            if i and type(frame) is not SharedFrame and len(frame) >= LEND_FRAME_NBYTES
        ]
        views = [memoryview(body[i]).cast("B") for i in large]
        if sum(map(len, views)) < LEND_NBYTES:
            return body, None
        lent = Lent([m.Label(i, next(self._numbers), len(view)) for i, view in zip(large, views, strict=True)])
        rest = list(body)
        for label, view in zip(lent.table, views, strict=True):
            self._places[label.number] = view, lent
            self._unread.add(label.number)
            rest[label.place] = b""
        return rest, lent

    def piece(self, fetch: m.Fetch) -> list[Frame]:
        """Return the transmission that answers a request."""
        head = codec.encode(m.Piece(fetch.number, fetch.start))
        place = self._places.get(fetch.number)
        self.n_served += 1
        if place is None or fetch.stop == len(place[0]):
            self._unread.discard(fetch.number)
        meter.count(fetch.stop - fetch.start)
        return [head] if place is None else [head, place[0][fetch.start : fetch.stop]]

    def release(self, number: int) -> None:
        """Let go of a parcel that nobody will fetch any more."""
        self._unread.discard(number)
        place = self._places.pop(number, None)
        if place is not None:
            place[1].left.discard(number)


class _Incoming:
    """A parcel that is on its way here: bytes before ``next`` were asked for, those of ``asked`` have not come."""

    __slots__ = ("asked", "memory", "nbytes", "next", "received")

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.memory: memoryview | None = None
        self.next = self.received = 0
        self.asked: dict[int, int] = {}

    def __repr__(self) -> str:
        return f"<Incoming {self.received} of {self.nbytes} bytes, {len(self.asked)} pieces asked for>"

    def is_complete(self) -> bool:
        """Say whether all of it is here."""
        return self.next >= self.nbytes and not self.asked


class Parcels:
    """What this process has lent, and what it is fetching.

    Attributes
    ----------
    shelf : Shelf
        What it has lent.
    n_received : int
        How many pieces have come so far.
    """

    def __init__(self) -> None:
        self.shelf = Shelf()
        self.n_received = 0
        self.window_nbytes = WINDOW_NBYTES
        self.piece_nbytes = PIECE_NBYTES
        self._incoming: dict[int, _Incoming] = {}
        self._queue: deque[int] = deque()  # of which something is still to be asked for
        self._asked_nbytes = 0

    def __repr__(self) -> str:
        return f"<Parcels {self.shelf!r}, {len(self._incoming)} incoming, {self._asked_nbytes} bytes asked for>"

    def lend(self, body: list[Any]) -> tuple[list[Any], Lent | None]:
        """See `Shelf.lend`."""
        return self.shelf.lend(body)

    # ------------------------------------------------------------ what the controller says

    def handle(self, message: m.Message, frames: Sequence[Frame]) -> list[list[Frame]]:
        """Take in a message of `TRAFFIC`; return what to transmit, outside of the session's stream.

        Raises
        ------
        ProtocolError
            A piece is not as long as was asked for.
        """
        if type(message) is m.Piece:
            return self._piece(message, frames)
        if type(message) is m.Fetch:
            return [self.shelf.piece(message)]
        if type(message) is m.Offer:
            return self._offered(message)
        if type(message) is m.Release:
            self.shelf.release(message.number)
        elif type(message) is m.Withdraw:
            self._forget(message.number)
            return self._ask()
        return []

    def _offered(self, offer: m.Offer) -> list[list[Frame]]:
        if offer.number not in self._incoming:  # else it came before, and its handling was interrupted
            self._incoming[offer.number] = _Incoming(offer.nbytes)
            meter.expect(offer.nbytes)
            self._queue.append(offer.number)
        return self._ask()

    def _piece(self, piece: m.Piece, frames: Sequence[Frame]) -> list[list[Frame]]:
        incoming = self._incoming.get(piece.number)
        if incoming is None or incoming.memory is None or piece.start not in incoming.asked:
            return []  # it came before, over a connection that broke
        stop = incoming.asked[piece.start]
        nbytes = stop - piece.start
        if len(frames) != 2 or len(frames[1]) != nbytes:
            raise ProtocolError(f"a piece of {nbytes} bytes was asked for, what came has another length")
        incoming.memory[piece.start : stop] = frames[1]
        if incoming.asked.pop(piece.start, None) is not None:
            incoming.received += nbytes
            meter.count(nbytes)
            self.n_received += 1
            self._asked_nbytes -= nbytes
        if incoming.is_complete():
            return [_taken(piece.number), *self._ask()]
        asked_to = incoming.next
        requests = self._ask()
        if incoming.next == asked_to:
            # The controller counts what is under way: it is told of each piece, also when nothing is left to ask for.
            requests.append([codec.encode(m.Fetch(piece.number, 0, 0, incoming.received))])
        return requests

    def _ask(self) -> list[list[Frame]]:
        """Ask for what the window permits."""
        requests: list[list[Frame]] = []
        while self._queue and self._asked_nbytes < self.window_nbytes:
            number = self._queue[0]
            incoming = self._incoming.get(number)
            if incoming is None or incoming.next >= incoming.nbytes:
                self._queue.popleft()
                continue
            if incoming.memory is None:
                try:
                    incoming.memory = allocate(incoming.nbytes)
                except ProtocolError as error:
                    self._forget(number)
                    requests.append([codec.encode(m.Withdraw(number, str(error)))])
                    continue
            start = incoming.next
            stop = min(start + self.piece_nbytes, incoming.nbytes)
            incoming.asked[start] = stop
            incoming.next = stop
            self._asked_nbytes += stop - start
            requests.append([codec.encode(m.Fetch(number, start, stop, incoming.received))])
        return requests

    # ------------------------------------------------------------ connections

    def resume(self, resumed: bool = True) -> list[list[Frame]]:
        """Return what to transmit over a new connection, once it is welcome.

        A controller that does not know the session (``resumed`` false) will make its offers anew.
        """
        if not resumed:
            self._incoming.clear()
            self._queue.clear()
            self._asked_nbytes = 0
        requests = []
        for number, incoming in list(self._incoming.items()):
            if incoming.is_complete():
                requests.append(_taken(number))
            requests += [
                [codec.encode(m.Fetch(number, start, stop, incoming.received))]
                for start, stop in list(incoming.asked.items())
            ]
        return requests + self._ask()

    # ------------------------------------------------------------ what came

    def contents(self, table: Iterable[m.Label], body: Sequence[Frame]) -> list[Frame]:
        """Return a body with its parcels, which are writable memory, in their places; see `forget`.

        Raises
        ------
        ProtocolError
            One of them is not here.
        """
        frames = list(body)
        for label in table:
            incoming = self._incoming.get(label.number)
            if incoming is None or incoming.memory is None or not incoming.is_complete() or label.place >= len(frames):
                raise ProtocolError(f"a message came before its parcel {label.number} of {label.nbytes} bytes")
            frames[label.place] = incoming.memory
        return frames

    def forget(self, table: Iterable[m.Label]) -> None:
        """Let go of parcels whose message has been handled."""
        for label in table:
            self._forget(label.number)

    def _forget(self, number: int) -> None:
        incoming = self._incoming.pop(number, None)
        if incoming is not None:
            self._asked_nbytes -= sum(stop - start for start, stop in incoming.asked.items())


def _taken(number: int) -> list[Frame]:
    return [codec.encode(m.Taken(number))]
