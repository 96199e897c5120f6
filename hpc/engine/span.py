"""Running a span: one function over columns of items, in slices of about the time that results are held."""

import time
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from hpc.engine.functions import Held
from hpc.engine.ledger import Segment, Slice
from hpc.engine.results import pack_value
from hpc.engine.workplace import Workplace
from hpc.errors import ProtocolError
from hpc.wire import objects
from hpc.wire.messages import Entry, Run, Status
from hpc.wire.objects import Reference
from hpc.wire.session import Frame

# A span starts with this many items when nothing is known of the function, and grows by this factor at most.
FIRST_SLICE: Final = 16
GROWTH: Final = 8
# Fewer values than this between two failures are not worth a message of their own.
MIN_PACKED: Final = 8
# A span's columns are kept for the next part of the same span if they are small.
MAX_KEPT_NBYTES: Final = 1024 * 1024

# Stands in every pickle of a reference: cheaper to look for than to look at each item.
_MARK: Final = Reference.__name__.encode()

_Times: TypeAlias = tuple[float, float]


class SpanRunner:
    """Runs spans; user code runs under the same rule as in `hpc.engine.work.Runner`."""

    def __init__(self, place: Workplace) -> None:
        self._place = place
        self._kept: tuple[bytes, list[Any]] = (b"", [])
        self._route = ""

    def __repr__(self) -> str:
        return f"<SpanRunner {self._place.ledger!r}>"

    def run(self, run: Run, function: Held, body: Sequence[Frame]) -> None:
        """Run what is left of a span's part."""
        place = self._place
        ledger, interrupts = place.ledger, place.interrupts
        self._route = run.route
        try:
            interrupts.in_task = True
            function.prepare()
            columns = self._columns(run, body)
            interrupts.in_task = False
        except BaseException as error:
            interrupts.in_task = False
            place.fail_rest(error, function)
            return
        items, others = columns[0], columns[1:]
        n = max(1, int(ledger.hold_s / function.item_s)) if function.item_s else FIRST_SLICE
        while True:
            if ledger.limit_s:
                n = 1  # the time of each counts
            started = time.time()
            part = ledger.claim_slice(n, items, run.start, started)
            if part is None:
                return
            if (n > 1 or ledger.held) and not ledger.armed:
                place.wake()
            ended, n_done = self._run_slice(part, function, [other[part.base - run.start :] for other in others])
            if interrupts.interrupted:
                # The person who interrupts a map means the map, not one item of it.
                interrupts.interrupted = False
                place.fail_rest(KeyboardInterrupt("interrupted before it began"))
                return
            if n_done:
                function.item_s = (ended - started) / n_done
                n = max(1, min(n * GROWTH, int(ledger.hold_s / max(function.item_s, 1e-9))))
            if not 0 <= ended - ledger.held_since < ledger.hold_s:
                place.flush()

    def _columns(self, run: Run, body: Sequence[Frame]) -> list[list[Any]]:
        """Return the items [start, stop) of each column, as lists of our own."""
        head = bytes(body[0])
        if head == self._kept[0]:
            columns = self._kept[1]
        else:
            columns = objects.loads(body)
            keep = len(body) == 1 and len(head) <= MAX_KEPT_NBYTES and (run.start > 0 or run.stop < len(columns[0]))
            self._kept = (head, columns) if keep else (b"", [])
        if not columns or any(len(column) < run.stop for column in columns):
            raise ProtocolError(f"the columns of a span end before task {run.stop}")
        mine = [list(column[run.start : run.stop]) for column in columns]
        if len(body) == 1 and _MARK not in head:
            return mine
        resolve = self._place.namespace.resolve
        return [[resolve(item) if type(item) is Reference else item for item in column] for column in mine]

    def _run_slice(self, part: Slice, function: Held, others: list[list[Any]]) -> tuple[float, int]:
        """Run a slice, or as much of it as is left to it, and hold its results; return when it ended, and how many."""
        place, error = self._place, None
        interrupts, values = place.interrupts, part.values
        try:
            interrupts.in_task = True
            # list.extend() keeps what it has got when the iterator raises: the item that failed is the one after.
            values.extend(map(function.call, part.items, *others))
            interrupts.in_task = False
        except BaseException as raised:
            interrupts.in_task = False
            error = raised
        ended = time.time()
        if error is None and not part.exhausted():
            error = StopIteration(f"{function.name} raised StopIteration")
        failed = part.base + len(values) if error is not None and part.taken() > len(values) else -1
        started, n_done = part.started, len(values)
        start, rest = place.ledger.end_slice()
        # An interrupt between two items belongs to none of them.
        last = place.failure(error, function, started, ended) if error is not None and failed >= 0 else None
        self._hold(start, rest, function, times=(started, ended), failed=failed, last=last)
        return ended, n_done

    def _hold(
        self, start: int, values: list[Any], function: Held, *, times: _Times, failed: int, last: Entry | None
    ) -> None:
        place, entries, segment = self._place, list[tuple[Entry, list[Any]]](), None
        if len(values) >= MIN_PACKED:
            segment = self._pack(start, values, times)
        if segment is None:
            entries = [self._entry(value, function, times) for value in values]
        if last is not None:
            entries.append((last, []))
        if (place.capture or place.ledger.streamed) and (segment or entries):
            first = segment.entries[0] if segment else entries[0][0]
            place.add_output(first, entries[-1][0] if entries else first)
        if segment is not None:
            place.ledger.hold(segment, times[0])
            start = segment.stop
        for offset, (entry, buffers) in enumerate(entries, start):
            place.ledger.hold_entry(offset, entry, buffers)
        if last is not None and start + len(entries) != failed + 1:
            raise AssertionError(f"results up to {start + len(entries)} do not end with the failure of {failed}")

    def _pack(self, start: int, values: list[Any], times: _Times) -> Segment | None:
        """Return the values as one entry; None if they cannot be pickled together."""
        place, n = self._place, len(values)
        try:
            place.interrupts.in_task = True
            payload, buffers = pack_value(values)
            place.interrupts.in_task = False
        except BaseException:
            place.interrupts.in_task = False
            return None  # one by one, to see which
        segment = place.ledger.segment(start, start + n)
        if buffers:
            values.clear()
            segment.buffers = place.ship(buffers, self._route)
        segment.entries.append(Entry(Status.DONE, *times, payload, len(buffers)))
        segment.seconds = times[1] - times[0]
        return segment

    def _entry(self, value: Any, function: Held, times: _Times) -> tuple[Entry, list[Any]]:
        interrupts = self._place.interrupts
        try:
            interrupts.in_task = True
            payload, buffers = pack_value(value)
            interrupts.in_task = False
        except BaseException as error:
            interrupts.in_task = False
            return self._place.failure(error, function, *times), []
        return Entry(Status.DONE, *times, payload, len(buffers)), self._place.ship(buffers, self._route)
