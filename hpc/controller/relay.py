"""Large frames on their way through the controller, a few pieces at a time (docs/protocol.md, section 2.3).

A peer that sends large frames keeps them and names them; here each is a `Parcel`, which stands in bodies like a frame,
goes through the brain like one, and is released at its sender when nothing refers to it any more. Before a message with
parcels goes to its receiver they are offered to that one, which fetches them; the pieces are passed on as they come. So
what is held here is bounded, a receiver that stops holds up nobody else, and all that is small goes between the pieces.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from hpc.controller import events as ev
from hpc.controller.contacts import Contact, Contacts
from hpc.controller.parcel import Key, Parcel, SegmentParcel, for_elsewhere, unpack
from hpc.controller.readers import Consumer, Flow, Held, Pieces, Reader
from hpc.errors import ProtocolError
from hpc.transport import Server
from hpc.transport.shared import SharedFrame
from hpc.wire import codec
from hpc.wire import messages as m
from hpc.wire.failures import dump_error
from hpc.wire.session import Frame, Frames

ABOUT_PARCELS: Final = frozenset((m.Piece, m.Fetch, m.Taken, m.Withdraw))

# No honest peer asks for more at once, nor for larger pieces.
MAX_PIECE_NBYTES: Final = 16 * 1024 * 1024
MAX_REQUESTS: Final = 4096
# How long a client whose connection broke may take to come back while engines wait for data that it has, and others for
# the engines. A cut network is noticed 10 to 15 s after it began, so this spans one of 20 s.
PATIENCE_S: Final = 15.0


class Relay:
    """What is on its way, between whom.

    Parameters
    ----------
    server, contacts
        The controller's.
    post : callable
        Sends a message in the session of a contact.

    Attributes
    ----------
    said : list of EngineSaid
        What the brain is to be told: tasks that failed because their data is gone.
    away : dict
        Clients whose connection is broken, and until when they are waited for.
    """

    def __init__(self, server: Server, contacts: Contacts, post: Callable[..., None]) -> None:
        self._server, self._contacts, self._post = server, contacts, post
        self._numbers = itertools.count(1)
        self._consumers: dict[Key, Consumer] = {}
        self._fetched: dict[tuple[Key, int], Parcel] = {}  # of which pieces have been asked for
        self._waiting: dict[Contact, deque[Held]] = {}  # engines get everything in order
        self._released: list[tuple[Key, int]] = []
        self.away: dict[Key, float] = {}
        self.pieces = Pieces()
        self.flow = Flow(self._serve)
        self.said: list[ev.EngineSaid] = []

    def __repr__(self) -> str:
        return f"<Relay to {len(self._consumers)} peers, {self.flow!r}, {self.pieces!r}>"

    def owed_nbytes(self, contact: Contact) -> int:
        """Return how many bytes were offered to a peer that it does not have yet."""
        consumer = self._consumers.get(_key(contact))
        if consumer is None:
            return 0
        return sum(each.parcel.nbytes - max(0, each.received) for each in consumer.readers.values())

    # ------------------------------------------------------------ messages with parcels

    def unpack(self, contact: Contact, table: list[m.Label], body: Frames) -> ev.Frames:
        """Return a body that came from a peer with its parcels in their places; `ProtocolError` if they do not fit."""
        return unpack(table, body, _key(contact), self._released)

    def concerns(self, contact: Contact, frames: Sequence[Any]) -> bool:
        """Say whether a message has to take the way of `carry`: for what is in it, or for what waits before it."""
        if len(frames) > 1:
            kinds = set(map(type, frames))
            if Parcel in kinds or (SharedFrame in kinds and contact.link is not None and contact.link.route == "tcp"):
                return True
        return bool(self._waiting) and contact in self._waiting

    def carry(self, contact: Contact, message: m.Message, frames: Sequence[Any]) -> None:
        """Offer the parcels of a message to its receiver; send it when that has them."""
        if contact.link is not None and contact.link.route == "tcp":
            frames = for_elsewhere(frames)
        held = Held(contact, message, frames)
        if contact.role == "engine":
            self._waiting.setdefault(contact, deque()).append(held)
        parcels = [(i, frame) for i, frame in enumerate(frames) if isinstance(frame, Parcel)]
        for _, parcel in parcels:
            if not (isinstance(parcel, SegmentParcel) or self._is_here(parcel.owner)):
                self._fail(held, _whose(parcel.owner))
                return
        key = _key(contact)
        consumer = self._consumers.get(key) or self._consumers.setdefault(key, Consumer(key))
        for i, parcel in parcels:
            reader = Reader(next(self._numbers), parcel, consumer, held)
            held.table.append(m.Label(i, reader.number, parcel.nbytes))
            held.missing.add(reader.number)
            self._offer(reader)
        if not held.missing:
            self._complete(held)

    def _offer(self, reader: Reader) -> None:
        carrier = self._carrier(reader.consumer.key)
        if carrier is not None:
            reader.offered = True
            self._post(carrier, m.Offer(reader.number, reader.parcel.nbytes))

    def _complete(self, held: Held) -> None:
        """Send a message that has all it needs, and for an engine those that waited behind it."""
        if held.contact.role != "engine":
            self._send(held)
            return
        waiting = self._waiting.get(held.contact)
        while waiting and not waiting[0].missing:
            self._send(waiting.popleft())
        if not waiting:
            self._waiting.pop(held.contact, None)

    def _send(self, held: Held) -> None:
        message: Any = held.message
        if held.table:
            message = msgspec.structs.replace(message, parcels=held.table)
        self._post(held.contact, message, [b"" if isinstance(frame, Parcel) else frame for frame in held.frames])

    # ------------------------------------------------------------ what peers say

    def handle(self, contact: Contact, message: m.Message, frames: Frames) -> None:
        """Take in what a peer says about parcels.

        Raises
        ------
        ProtocolError
            It is nonsense.
        """
        if type(message) is m.Piece:
            self._piece(_key(contact), message, frames)
        elif type(message) is m.Fetch:
            self._fetch(_key(contact), message)
        elif type(message) is m.Taken:
            reader = self._reader(_key(contact), message.number)
            if reader is not None:
                self._finish(reader)
                reader.held.missing.discard(reader.number)
                if not reader.held.missing:
                    self._complete(reader.held)
        elif type(message) is m.Withdraw:
            reader = self._reader(_key(contact), message.number)
            if reader is not None:
                self._fail(reader.held, f"{contact.role} {contact.number} cannot take its data: {message.reason}")

    def _reader(self, key: Key, number: int) -> Reader | None:
        consumer = self._consumers.get(key)
        return None if consumer is None else consumer.readers.get(number)

    def _fetch(self, key: Key, fetch: m.Fetch) -> None:
        reader = self._reader(key, fetch.number)
        if reader is None:
            return  # it was withdrawn meanwhile
        nbytes = fetch.stop - fetch.start
        if not (0 <= fetch.start <= fetch.stop <= reader.parcel.nbytes and nbytes <= MAX_PIECE_NBYTES):
            raise ProtocolError(f"bytes {fetch.start} to {fetch.stop} of {reader.parcel!r} are no piece")
        if len(reader.consumer.requests) >= MAX_REQUESTS:
            raise ProtocolError(f"more than {MAX_REQUESTS} pieces were asked for at once")
        self.flow.confirm(reader, fetch.received)
        if nbytes:
            self.flow.request(reader, fetch.start, fetch.stop)

    def _serve(self, reader: Reader, start: int, stop: int) -> None:
        """Send a piece, or ask for it first."""
        parcel, piece = reader.parcel, (start, stop)
        try:
            frame = parcel.read(start, stop) or self.pieces.get(parcel, piece)
        except OSError as error:
            self._fail(reader.held, f"its data cannot be read: {error}")
            return
        if frame is not None:
            self._pass_on(reader, start, frame)
            return
        readers = parcel.asked.get(piece)
        if readers is None:
            parcel.asked[piece] = [reader]
            self._fetched[parcel.owner, parcel.number] = parcel
            self._ask(parcel, start, stop)
        elif reader not in readers:
            readers.append(reader)

    def _ask(self, parcel: Parcel, start: int, stop: int) -> None:
        carrier = self._carrier(parcel.owner)
        if carrier is None and not self._is_here(parcel.owner):
            self._lost(lambda reader: reader.parcel is parcel, _whose(parcel.owner))
        elif carrier is not None and carrier.link is not None:
            self._server.send(carrier.link, [codec.encode(m.Fetch(parcel.number, start, stop))])

    def _piece(self, owner: Key, piece: m.Piece, frames: Frames) -> None:
        parcel = self._fetched.get((owner, piece.number))
        if parcel is None:
            return
        if len(frames) != 2:
            self._lost(lambda reader: reader.parcel is parcel, f"{owner[0]} {owner[1]} has lost its data")
            return
        readers = parcel.asked.pop((piece.start, piece.start + len(frames[1])), None)
        if readers is None:
            return  # nobody wants it any more
        self._forget_if_idle(parcel)
        if parcel.n_readers > len(readers):
            self.pieces.put(parcel, (piece.start, piece.start + len(frames[1])), frames[1])
        for reader in readers:
            self._pass_on(reader, piece.start, frames[1])

    def _pass_on(self, reader: Reader, start: int, frame: Frame) -> None:
        carrier = self._carrier(reader.consumer.key)
        if carrier is not None and carrier.link is not None:
            self._server.send(carrier.link, [codec.encode(m.Piece(reader.number, start)), frame])

    # ------------------------------------------------------------ who comes and goes

    def welcomed(self, contact: Contact) -> None:
        """Go on with a peer over its new connection: it says what it wants, and is asked for what it has."""
        key = _key(contact)
        if self._carrier(key) is not contact:
            return
        self.away.pop(key, None)
        consumer = self._consumers.get(key)
        if consumer is not None:
            self.flow.restart(consumer)
            for reader in list(consumer.readers.values()):
                if not reader.offered:
                    self._offer(reader)
        for (owner, _), parcel in list(self._fetched.items()):
            if owner == key:
                for start, stop in parcel.asked:
                    self._ask(parcel, start, stop)

    def cut(self, contact: Contact, now: float) -> None:
        """Note that a peer has lost its connection."""
        key = _key(contact)
        # For data of engines nobody is held up but who wants it: that waits as long as the engine may be unreachable.
        if key[0] == "client" and self._carrier(key) is contact:
            self.away[key] = now + PATIENCE_S

    def next_deadline(self) -> float | None:
        """Return when somebody has been away for too long."""
        return min(self.away.values(), default=None)

    def expire(self, now: float) -> None:
        """End what waits for data of peers that do not come back: it holds up the work of others."""
        for key in [key for key, until in self.away.items() if until <= now]:
            del self.away[key]
            why = f"its data is with {key[0]} {key[1]}, whose connection broke {PATIENCE_S:g} s ago"
            self._end_what_needs(key, why)

    def gone(self, role: str, number: int) -> None:
        """Forget a peer: what was for it, and end what needs data that it had."""
        key = role, number
        self.away.pop(key, None)
        consumer = self._consumers.pop(key, None)
        if consumer is not None:
            for reader in list(consumer.readers.values()):
                self._finish(reader)
        for contact in [contact for contact in self._waiting if _key(contact) == key]:
            del self._waiting[contact]
        self._end_what_needs(key, _whose(key))

    def flush(self) -> None:
        """Tell owners which of their parcels nobody needs any more."""
        while self._released:
            owner, number = self._released.pop()
            carrier = self._carrier(owner)
            if carrier is not None:
                self._post(carrier, m.Release(number))

    def _finish(self, reader: Reader) -> None:
        """Strike a reader off: it has all, or will get no more."""
        self.flow.leave(reader)
        parcel = reader.parcel
        for piece, readers in list(parcel.asked.items()):
            if reader in readers:
                readers.remove(reader)
                if not readers:
                    del parcel.asked[piece]
        self._forget_if_idle(parcel)
        if not parcel.n_readers:
            self.pieces.drop(parcel)

    def _forget_if_idle(self, parcel: Parcel) -> None:
        if not parcel.asked:
            self._fetched.pop((parcel.owner, parcel.number), None)

    def _end_what_needs(self, key: Key, reason: str) -> None:
        # What has all passed is as good as there: who says goodbye waits for that.
        self._lost(lambda reader: reader.parcel.owner == key and not reader.is_all_passed(), reason)

    def _lost(self, concerns: Callable[[Reader], bool], reason: str) -> None:
        readers: Iterable[Reader] = [r for c in self._consumers.values() for r in c.readers.values()]
        for held in {reader.held: None for reader in readers if concerns(reader)}:
            self._fail(held, reason)

    def _fail(self, held: Held, reason: str) -> None:
        """End the tasks of a message whose parcels will not come."""
        consumer = self._consumers.get(_key(held.contact))
        carrier = self._carrier(_key(held.contact))
        for label in held.table:
            reader = None if consumer is None else consumer.readers.get(label.number)
            if reader is not None:
                self._finish(reader)
            if carrier is not None:
                self._post(carrier, m.Withdraw(label.number, reason))
        message = held.message
        if isinstance(message, m.Run):
            waiting = self._waiting[held.contact]
            waiting.remove(held)
            self.said.append(ev.EngineSaid(held.contact.number, *_failure(message, reason)))
            self._complete(held)
        elif isinstance(message, m.Delivery):
            for item in message.items:
                ended = m.Ended(item.first, item.start, item.stop, m.EndReason.VANISHED, reason)
                self._post(held.contact, ended)

    def _carrier(self, key: Key) -> Contact | None:
        """Return the session over which a peer's parcels go: of an engine the one that answers while user code runs."""
        return (self._contacts.control if key[0] == "engine" else self._contacts.clients).get(key[1])

    def _is_here(self, key: Key) -> bool:
        return key[1] in (self._contacts.work if key[0] == "engine" else self._contacts.clients)


def _key(contact: Contact) -> Key:
    return "engine" if contact.role == "engine" else "client", contact.number


def _whose(owner: Key) -> str:
    return f"its data was with {owner[0]} {owner[1]}, which is gone"


def _failure(run: m.Run, reason: str) -> tuple[m.Results, ev.Frames]:
    """Return what an engine would say of tasks that all fail for one reason."""
    now, count = time.time(), run.stop - run.start
    error = ConnectionError(f"the task did not run: {reason}")
    entry = m.Entry(m.Status.FAILED, now, now, dump_error(error, f"ConnectionError: {error}\n"))
    failed = list(range(run.start, run.stop))
    results = m.Results(run.client, run.first, run.start, run.stop, False, failed, 0.0)
    return results, (codec.encode_entries([entry] * count),)
