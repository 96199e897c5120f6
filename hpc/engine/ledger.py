"""Which tasks have begun, which results wait to be sent, what was given back: what both threads of an engine touch.

Exactly-once rests on this file. Every offset of a bundle that arrives is *decided* once, under one lock: it is begun
here (and then leaves in exactly one `Segment`), or given back. A Revoke that overtakes its Run, the two coming over
different connections, decides offsets before they arrive; they are skipped when they do.
"""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from hpc.wire.messages import Entry, Revoke, Revoked, Run, Status

Key: TypeAlias = tuple[int, int]
Range: TypeAlias = tuple[int, int]

# How many bundles are remembered for a Revoke that crosses their results: many times what fits into a round trip.
REMEMBERED_BUNDLES: Final = 4096


class Segment:
    """Results of consecutive tasks that leave as one message."""

    __slots__ = ("buffers", "client", "entries", "failed", "first", "packed", "seconds", "start", "stop")

    def __init__(self, key: Key, start: int, stop: int, packed: bool) -> None:
        self.client, self.first = key
        self.start, self.stop, self.packed = start, stop, packed
        self.entries: list[Entry] = []
        self.buffers: list[Any] = []
        self.failed: list[int] = []
        self.seconds = 0.0

    def __repr__(self) -> str:
        return f"<Segment {self.client}/{self.first} [{self.start}, {self.stop}){' packed' if self.packed else ''}>"


class Slice:
    """Items of a span under way: ``part`` is consumed through ``items``, ``values`` grows.

    The items that nobody has taken yet can be cut off while the other thread consumes: a list iterator looks at the
    list's length before each step, and says exactly how far it is.
    """

    __slots__ = ("base", "items", "part", "sent", "started", "stuck", "values")

    def __init__(self, base: int, part: list[Any], started: float) -> None:
        self.base = base
        self.part = part
        self.items = iter(part)
        self.values: list[Any] = []
        self.sent = 0  # how many values have left already
        self.started = started
        self.stuck = False  # its values could not be packed

    def __repr__(self) -> str:
        return f"<Slice [{self.base}, {self.base + len(self.part)}), {len(self.values)} done>"

    def taken(self) -> int:
        """Return how many items have been begun."""
        state = self.items.__reduce__()  # (iter, (list,), index), without the index once exhausted
        return int(state[2]) if len(state) == 3 else len(self.values)

    def exhausted(self) -> bool:
        """Whether the items were consumed to the end, not left because of an exception."""
        return len(self.items.__reduce__()) != 3

    def cut(self, n: int) -> int:
        """Keep the first ``n`` items, or as many as have begun; return how many that are."""
        del self.part[max(n, self.taken()) :]
        # The other thread may have gone on between the two steps; what it has taken now is final, the list has ended.
        return max(len(self.part), self.taken())


class Ledger:
    """The run that is under way, held results, decided offsets. All methods lock, except where they say otherwise."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.armed = False  # the control thread looks soon enough for results that are held
        self.listening = False  # it looks soon enough for what is printed
        self.runs = 0
        self.hold_s = 0.001
        self.held: list[Segment] = []
        self.held_since = 0.0
        self.slice: Slice | None = None
        self.running = -1  # the task that output belongs to
        self.running_since = 0.0
        self.streamed = 0  # how many pieces of its output have left
        self.limit_s = 0.0  # how long each task of the run may take; 0 for ever
        self.key: Key | None = None
        self.last: Key | None = None  # what ran before
        self._start = self._next = self._stop = 0
        self._later: list[Range] = []
        self._decided: dict[Key, list[Range]] = {}
        self._skips: dict[Key, list[Range]] = {}
        self._closed = False

    def __repr__(self) -> str:
        running = f"runs {self.key} at {self._next} of {self._stop}" if self.key else "idle"
        return f"<Ledger {running}, holds {self.held}>"

    # ------------------------------------------------------------ the main thread

    def begin(self, run: Run) -> bool:
        """Take a run up; False if there is nothing (left) to do in it."""
        key = run.client, run.first
        with self.lock:
            if self._closed:
                return False
            self.runs += 1
            ranges = [(run.start, run.stop)]
            if self._skips:
                ranges = self._without_skips(key, run.start, run.stop)
            self._decide(key, run.start, run.stop)
            if not ranges:
                return False
            self.key = key
            (self._next, self._stop), *self._later = ranges
            if run.terms is not None and self._next == run.start:
                self.streamed = run.terms.n_outputs
        return True

    def forgo(self, run: Run) -> None:
        """Take note of a run that cannot begin and is asked for again: it is not to be given back as well."""
        with self.lock:
            if self._skips:
                self._without_skips((run.client, run.first), run.start, run.stop)
            self._decide((run.client, run.first), run.start, run.stop)

    def decline(self, run: Run) -> list[Range]:
        """Take note of a run that is not for this engine; return what of it was not given back before."""
        with self.lock:
            self.runs += 1
            key = run.client, run.first
            ranges = self._without_skips(key, run.start, run.stop) if self._skips else [(run.start, run.stop)]
            self._decide(key, run.start, run.stop)
            return ranges

    def claim(self) -> int:
        """Begin a task; return its offset, -1 if the run is at its end."""
        with self.lock:
            return self._claim()

    def step(self, offset: int, entry: Entry, buffers: list[Any] | None) -> int:
        """Hold the result of one task and begin the next, as `claim`."""
        with self.lock:
            self._record(offset, entry, buffers)
            following = self._next
            if following < self._stop:
                self._next = following + 1
                self.running = following
                return following
            return self._claim()

    def claim_slice(self, n: int, items: list[Any], origin: int, now: float) -> Slice | None:
        """Begin up to ``n`` items of a span whose item at offset ``origin`` is ``items[0]``; None at the end."""
        with self.lock:
            if self._next >= self._stop and not self._turn():
                return None
            start, stop = self._next, min(self._next + n, self._stop)
            self.running, self.running_since = start, now
            self._next = stop
            self.slice = Slice(start, items[start - origin : stop - origin], now)
            return self.slice

    def end_slice(self) -> tuple[int, list[Any]]:
        """End the slice under way; return the offset and the values of what has not left yet.

        The item at which an exception ended it is the one after the last value. Items after that return to the run.
        """
        with self.lock:
            part, self.slice = self.slice, None
            if part is None:
                raise AssertionError("no slice is under way")
            begun, end = part.base + part.taken(), part.base + len(part.part)
            if begun < end:
                self._return(begun, end)
            return part.base + part.sent, part.values[part.sent :] if part.sent else part.values

    def segment(self, start: int, stop: int) -> Segment:
        """Return an empty packed segment of the run under way. Takes no lock; for the main thread."""
        return Segment(self._current(), start, stop, packed=True)

    def hold(self, segment: Segment, started: float) -> None:
        """Hold results that are complete as they are."""
        with self.lock:
            if not self.held:
                self.held_since = started
            self.held.append(segment)

    def hold_entry(self, offset: int, entry: Entry, buffers: list[Any] | None) -> None:
        """Hold the result of one item of a span."""
        with self.lock:
            self._record(offset, entry, buffers)

    def take(self) -> list[Segment]:
        """Remove what is held, to send it."""
        with self.lock:
            taken, self.held = self.held, []
            return taken

    def begun_last(self) -> int:
        """Return the offset of the task that runs. Takes no lock: signal handlers ask, too."""
        part = self.slice
        return self.running if part is None else part.base + part.taken() - 1

    def assist(self, key: Key, offset: int, number: int) -> None:
        """Note the task that output belongs to, which another engine accounts for; count its pieces from a number."""
        with self.lock:
            self.key, self.running, self.running_since, self.streamed = key, offset, time.time(), number

    def finish(self) -> None:
        """End the run; what it holds stays held."""
        with self.lock:
            self.last, self.key = self.key, None
            self.running = -1

    def forked(self) -> None:
        """Replace the lock in a forked child: the other thread, which may have held it, is not there."""
        self.lock = threading.Lock()

    def close(self) -> None:
        """Let nothing more begin, and nothing fail: the engine is about to leave."""
        with self.lock:
            self._closed = True
            self._stop = self._next
            self._later.clear()
            if self.slice is not None:
                self.slice.cut(0)

    # ------------------------------------------------------------ the control thread

    def revoke(self, revoke: Revoke) -> Revoked:
        """Give back the part of a range, up to its end, of which nothing has begun."""
        key = revoke.client, revoke.first
        with self.lock:
            start, stop = revoke.start, revoke.stop
            if key == self.key:
                start = self._cut(start, stop)
            else:
                for _, end in _clipped(self._decided.get(key, ()), start, stop):
                    start = max(start, end)
            unread = _without([(start, stop)], self._decided.get(key, ()))
            if unread:
                self._skips.setdefault(key, []).extend(unread)
            self._decide(key, start, stop)
        return Revoked(*key, start, stop)

    def goes_on_after(self, revoke: Revoke) -> bool:
        """Say whether tasks beyond the revoked ones would still run here."""
        with self.lock:
            if self.key != (revoke.client, revoke.first):
                return False
            return revoke.stop < max(stop for _, stop in [(0, self._stop), *self._later])

    def forget_revoked(self) -> None:
        """Drop what was given back before it arrived: the controller that sent it does not know of it any more."""
        with self.lock:
            self._skips.clear()

    def hold_begun(self, now: float, pack: Callable[[Any], tuple[bytes, list[Any]]]) -> None:
        """Hold what the slice under way has come to, because its next item turns out to be slow."""
        with self.lock:
            part = self.slice
            if part is None or part.stuck or len(part.values) <= part.sent:
                return
            start, stop = part.base + part.sent, part.base + len(part.values)
            try:
                payload, buffers = pack(part.values[part.sent : stop - part.base])
            except Exception:
                part.stuck = True  # the main thread will say what is wrong
                return
            segment = Segment(self._current(), start, stop, packed=True)
            entry = Entry(Status.DONE, part.started, now, payload, len(buffers), n_outputs=self.streamed)
            segment.entries.append(entry)
            segment.buffers, segment.seconds = buffers, now - part.started
            if not self.held:
                self.held_since = part.started
            self.held.append(segment)
            self.running, self.running_since, self.streamed = stop, now, 0
            part.sent, part.started = stop - part.base, now

    # ------------------------------------------------------------ with the lock held

    def _current(self) -> Key:
        if self.key is None:
            raise AssertionError("no run is under way")
        return self.key

    def _record(self, offset: int, entry: Entry, buffers: list[Any] | None) -> None:
        if entry.status and self._closed:
            return  # what made it fail is that the engine leaves: the controller decides what becomes of it
        held = self.held
        if not held or held[-1].stop != offset or held[-1].packed or (held[-1].client, held[-1].first) != self.key:
            if not held:
                self.held_since = entry.started
            held.append(Segment(self._current(), offset, offset, packed=False))
        segment = held[-1]
        segment.entries.append(entry)
        segment.stop = offset + 1
        segment.seconds += entry.completed - entry.started
        if entry.status:
            segment.failed.append(offset)
        if buffers:
            segment.buffers += buffers

    def _claim(self) -> int:
        if self._next >= self._stop and not self._turn():
            return -1
        self.running = self._next
        self._next += 1
        return self.running

    def _turn(self) -> bool:
        """Go on with the next range of the run, if a Revoke has left several."""
        while self._later:
            self._next, self._stop = self._later.pop(0)
            if self._next < self._stop:
                return True
        return False

    def _return(self, start: int, stop: int) -> None:
        """Put back what a slice had claimed and not begun."""
        if stop == self._next:
            self._next = start
        else:
            self._later.insert(0, (self._next, self._stop))
            self._next, self._stop = start, stop

    def _cut(self, start: int, stop: int) -> int:
        """Take [start, stop) out of the run under way, as far as nothing of it has begun; return where that starts."""
        waiting, tail = [(self._next, self._stop), *self._later], list[Range]()
        part, base, end = self.slice, 0, 0
        if part is not None:
            base, end = part.base, part.base + len(part.part)
            tail = [(base + part.taken(), end)]
        # What is decided and does not wait has begun, or was given back before.
        for _, busy in _without(_clipped(self._decided.get(self._current(), ()), start, stop), tail + waiting):
            start = max(start, busy)
        if part is not None and start < end and stop > base:
            kept = base + part.cut(start - base)
            start = min(max(start, kept), stop)
            waiting.insert(0, (kept, end))
        (self._next, self._stop), *self._later = _without(waiting, [(start, stop)]) or [(0, 0)]
        return start

    def _decide(self, key: Key, start: int, stop: int) -> None:
        ranges = self._decided.pop(key, None)
        if ranges is None:
            ranges = []
            if len(self._decided) >= REMEMBERED_BUNDLES:
                del self._decided[next(iter(self._decided))]
        self._decided[key] = ranges  # the youngest now
        if start >= stop:
            return
        if ranges and ranges[-1][1] == start:
            ranges[-1] = ranges[-1][0], stop
        else:
            ranges.append((start, stop))

    def _without_skips(self, key: Key, start: int, stop: int) -> list[Range]:
        skips = self._skips.get(key)
        if not skips:
            return [(start, stop)]
        remaining = _without(skips, [(start, stop)])
        if remaining:
            self._skips[key] = remaining
        else:
            del self._skips[key]
        return _without([(start, stop)], skips)


def _clipped(ranges: Iterable[Range], start: int, stop: int) -> Iterable[Range]:
    for a, b in ranges:
        if max(a, start) < min(b, stop):
            yield max(a, start), min(b, stop)


def _without(ranges: Iterable[Range], holes: Iterable[Range]) -> list[Range]:
    left = [(a, b) for a, b in ranges if a < b]
    for start, stop in holes:
        left = [piece for a, b in left for piece in ((a, min(b, start)), (max(a, stop), b)) if piece[0] < piece[1]]
    return left
