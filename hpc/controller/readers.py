"""Who fetches parcels, how much of that is under way at once, and which pieces are kept for others."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from hpc.controller.contacts import Contact
from hpc.controller.parcel import Key, Parcel
from hpc.wire import messages as m
from hpc.wire.session import Frame

# Pieces that were asked for and have not been confirmed, of all receivers together. One that has nothing under way may
# always have one piece more, so those who stop cannot use it up.
BUDGET_NBYTES: Final = 24 * 1024 * 1024
# Pieces kept for slower receivers of the same parcel; who is slower still has them sent again.
CACHE_NBYTES: Final = 8 * 1024 * 1024


class Held:
    """A message that waits until its receiver has its parcels: those of ``missing`` it has not got yet."""

    __slots__ = ("contact", "frames", "message", "missing", "table")

    def __init__(self, contact: Contact, message: m.Message, frames: Sequence[Any]) -> None:
        self.contact, self.message, self.frames = contact, message, frames
        self.table: list[m.Label] = []
        self.missing: set[int] = set()

    def __repr__(self) -> str:
        return f"<Held {type(self.message).__name__} for {self.contact}, {len(self.missing)} parcels missing>"


class Consumer:
    """A peer that fetches: its readers by number, what it has asked for and not been served."""

    __slots__ = ("key", "queued", "readers", "requests", "under_way")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.readers: dict[int, Reader] = {}
        self.requests: deque[tuple[Reader, int, int]] = deque()
        self.under_way = 0
        self.queued = False

    def __repr__(self) -> str:
        return f"<Consumer {self.key[0]} {self.key[1]}, {len(self.readers)} parcels, {self.under_way} bytes under way>"


class Reader:
    """One parcel on its way to one receiver, which knows it by ``number``.

    ``started`` bytes are served or being served, ``received`` of them the receiver has confirmed; -1 after its
    connection broke, till it says how far it is.
    """

    __slots__ = ("consumer", "held", "number", "offered", "parcel", "received", "started")

    def __init__(self, number: int, parcel: Parcel, consumer: Consumer, held: Held) -> None:
        self.number, self.parcel, self.consumer, self.held = number, parcel, consumer, held
        self.offered = False
        self.started = self.received = 0
        consumer.readers[number] = self
        parcel.n_readers += 1

    def __repr__(self) -> str:
        return f"<Reader {self.number} of {self.parcel!r}, {self.received} bytes there>"

    def is_all_passed(self) -> bool:
        """Say whether all of it was passed on to the receiver."""
        return self.started >= self.parcel.nbytes and not any(self in asked for asked in self.parcel.asked.values())


class Flow:
    """Shares what may be under way among all that fetch, in turns.

    Parameters
    ----------
    serve : callable
        Serves one request.
    """

    def __init__(self, serve: Callable[[Reader, int, int], None]) -> None:
        self._serve = serve
        self._ring: deque[Consumer] = deque()
        self.budget_nbytes = BUDGET_NBYTES
        self.under_way = 0

    def __repr__(self) -> str:
        return f"<Flow {self.under_way} bytes under way, {len(self._ring)} peers wait>"

    def request(self, reader: Reader, start: int, stop: int) -> None:
        """Serve a request, at once or when it is its turn."""
        consumer = reader.consumer
        consumer.requests.append((reader, start, stop))
        if not consumer.queued:
            consumer.queued = True
            self._ring.append(consumer)
        self._go_on(consumer)

    def confirm(self, reader: Reader, received: int) -> None:
        """Note how many bytes of a parcel its receiver has."""
        if reader.received < 0:
            reader.started = reader.received = received
        arrived = min(received, reader.started) - reader.received
        if arrived > 0:
            reader.received += arrived
            self._count(reader.consumer, -arrived)
            self._go_on(reader.consumer)

    def leave(self, reader: Reader) -> None:
        """Strike a reader off."""
        consumer = reader.consumer
        if consumer.readers.pop(reader.number, None) is None:
            return
        reader.parcel.n_readers -= 1
        if reader.received >= 0:
            self._count(consumer, reader.received - reader.started)
        self._go_on(consumer)

    def restart(self, consumer: Consumer) -> None:
        """Forget what a peer has asked for; it asks again."""
        consumer.requests.clear()
        self._count(consumer, -consumer.under_way)
        for reader in consumer.readers.values():
            reader.started, reader.received = 0, -1
        self._go_on(consumer)

    def _count(self, consumer: Consumer, nbytes: int) -> None:
        consumer.under_way += nbytes
        self.under_way += nbytes

    def _go_on(self, consumer: Consumer) -> None:
        while not consumer.under_way and consumer.requests:
            self._start(consumer)
        while self._ring and self.under_way < self.budget_nbytes:
            each = self._ring.popleft()
            self._start(each)
            each.queued = bool(each.requests)
            if each.queued:
                self._ring.append(each)

    def _start(self, consumer: Consumer) -> None:
        while consumer.requests:
            reader, start, stop = consumer.requests.popleft()
            if reader.number in consumer.readers:
                reader.started += stop - start
                self._count(consumer, stop - start)
                self._serve(reader, start, stop)
                return


class Pieces:
    """Pieces that have passed and that other readers of the same parcel will want, the latest of them."""

    def __init__(self) -> None:
        self._frames: dict[tuple[int, int, int], tuple[Parcel, Frame]] = {}
        self.nbytes = 0
        self.limit_nbytes = CACHE_NBYTES

    def __repr__(self) -> str:
        return f"<Pieces {len(self._frames)} of {self.nbytes} bytes>"

    def put(self, parcel: Parcel, piece: tuple[int, int], frame: Frame) -> None:
        """Keep a piece; the oldest ones make room for it."""
        if piece in parcel.cached:
            return
        self.nbytes += len(frame)
        self._frames[id(parcel), *piece] = parcel, frame
        parcel.cached.add(piece)
        while self.nbytes > self.limit_nbytes:
            oldest = next(iter(self._frames))
            self._remove(oldest)

    def get(self, parcel: Parcel, piece: tuple[int, int]) -> Frame | None:
        """Return a piece if it is here."""
        found = self._frames.get((id(parcel), *piece)) if parcel.cached else None
        return None if found is None else found[1]

    def drop(self, parcel: Parcel) -> None:
        """Forget the pieces of a parcel that nobody reads any more."""
        for piece in list(parcel.cached):
            self._remove((id(parcel), *piece))

    def _remove(self, key: tuple[int, int, int]) -> None:
        parcel, frame = self._frames.pop(key)
        parcel.cached.discard(key[1:])
        self.nbytes -= len(frame)
