"""The results of a map."""

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from hpc.client.asyncresult import PENDING, AsyncResult
from hpc.client.bundle import Mark
from hpc.client.outcome import Outcome, Reply, unwrap
from hpc.errors import CompositeError

if TYPE_CHECKING:
    from hpc.client.link import Link

# A range of tasks that ended together: start, stop, outcome, index of the first in it.
_Range = tuple[int, int, Outcome, int]


class MapResult(AsyncResult):
    """One task for each item of a map; results come, and are kept, in ranges.

    `get` returns the list of values once all tasks have ended. Iteration yields values as they come: in the order of
    the items, or, with ``ordered=False``, in the order in which they arrive. The first item that failed raises, unless
    ``return_exceptions`` puts the exceptions where the values would be.

    Parameters
    ----------
    ordered : bool
        Whether values are in the order of the items.
    return_exceptions : bool
        Whether exceptions are values.
    by_engine : bool
        Whether failures are raised as a `CompositeError`, as for all work that was given to certain engines.
    """

    def __init__(
        self,
        link: "Link",
        name: str,
        *,
        ordered: bool = True,
        return_exceptions: bool = False,
        by_engine: bool = False,
    ) -> None:
        super().__init__(link, name)
        self._ordered = ordered
        self._return_exceptions = return_exceptions
        self._by_engine = by_engine
        self._ranges: dict[int, _Range] = {}
        self._ended = 0
        self._count = 0
        self._complete = False
        self._failed = False
        self._firsts: list[tuple[int, int]] = []
        self._sending: list[Mark] = []

    def _describe(self) -> str:
        return f"{self._ended} of {self._count}{'' if self._complete else ' or more'} items"

    # ------------------------------------------------------------ made by the map

    def register(self, first: int, count: int, when: float, mark: Mark | None) -> None:
        """Note a part of it that was submitted."""
        self._firsts.append((first, count))
        self._submitted = self._submitted or when
        if mark is not None:
            self._sending.append(mark)

    def expect(self, count: int) -> None:
        """Count items that are about to be submitted; without it a part could be taken for the whole."""
        self._count += count

    def complete(self) -> None:
        """Note that all items have been submitted."""
        with self._link.lock:
            self._complete = True
            self._finish_if_done()
        self._link.inbox.run_calls()

    # ------------------------------------------------------------ called by the receiver

    def take(self, start: int, stop: int, outcome: Outcome, index: int) -> int:
        """Take outcomes in; for the receiver only."""
        if start in self._ranges:
            return 0
        count = stop - start
        part = start, stop, outcome, index
        if not isinstance(outcome, Reply) or not outcome.packed:
            self._failed = self._failed or any(outcome.failed(index + i) for i in range(count))
        self._ranges[start] = part  # no call between this line and the next: a signal comes before both or after
        self._ended += count
        self._came(start, stop, outcome, index)
        self._finish_if_done()
        if self._watchers and self._state is PENDING:  # threads that iterate
            for watcher in list(self._watchers):
                if hasattr(watcher, "wake"):
                    watcher.wake()
        return count

    def _finish_if_done(self) -> None:
        if self._complete and self._ended == self._count and self._state is PENDING:
            words = {part[2].status(part[3]) for part in self._arrived}
            self._finish(self._failed, words == {"cancelled"})

    @property
    def _arrived(self) -> Iterable[_Range]:
        """The ranges in the order in which they came."""
        return self._ranges.values()

    # ------------------------------------------------------------ values

    def _conclude(self) -> Any:
        if self._loaded:
            return self._result
        if self._exception is None:
            parts = sorted(self._arrived, key=lambda part: part[0]) if self._ordered else list(self._arrived)
            if not self._failed or self._return_exceptions:
                values: list[Any] = []
                for part in parts:
                    values += self._values(part)
                self._result = values
                self._loaded = True
                return values
            self._exception = self._error(parts)
        raise self._exception

    def _values(self, part: _Range) -> list[Any]:
        start, stop, outcome, index = part
        count = stop - start
        if isinstance(outcome, Reply) and outcome.packed:
            return outcome.values()[index : index + count]
        if self._return_exceptions:
            return [self._value_or_error(outcome, index + i) for i in range(count)]
        return [unwrap(outcome, index + i) for i in range(count)]

    def _value_or_error(self, outcome: Outcome, index: int) -> Any:
        return outcome.error(index) or outcome.value(index)

    def _error(self, parts: list[_Range]) -> BaseException:
        """Return what to raise: the error of the first item that failed, or of each engine."""
        by_engine: dict[int, BaseException] = {}
        first: tuple[int, BaseException] | None = None
        n_failed = 0
        for start, stop, outcome, index in parts:
            for i in range(stop - start):
                if not outcome.failed(index + i):
                    continue
                n_failed += 1
                if first is None or outcome.engine not in by_engine:
                    error = outcome.error(index + i)
                    assert error is not None  # noqa: S101 - it failed
                    error.add_note(f"item {start + i} of {self._name or 'the map'}")
                    by_engine.setdefault(outcome.engine, error)
                    first = first or (start + i, error)
        assert first is not None  # noqa: S101 - some failed
        if self._by_engine:
            return CompositeError(by_engine, self._name)
        if n_failed > 1:
            first[1].add_note(f"{n_failed} of {self._count} items failed; return_exceptions=True returns all of them")
        return first[1]

    def __iter__(self) -> Iterator[Any]:
        """Yield values as they come."""
        return self.iterate()

    def iterate(self, timeout: float | None = None) -> Iterator[Any]:
        """Return an iterator of the values as they come; it raises `TimeoutError` ``timeout`` seconds from now."""
        return self._iterate(None if timeout is None else time.monotonic() + timeout, timeout)

    def _iterate(self, deadline: float | None, timeout: float | None) -> Iterator[Any]:
        position = taken = 0
        while True:
            part = self._next_part(position, taken, deadline)
            if part is None:
                if not self.done():
                    raise TimeoutError(f"no result within {timeout:g} s: {self!r}")
                return
            position, taken = part[1], taken + 1
            yield from self._yield(part)

    def _next_part(self, position: int, taken: int, deadline: float | None) -> _Range | None:
        """Wait for the range at an item, or for the next that arrives; None after the last, or at the deadline."""

        def find() -> _Range | None:
            if self._ordered:
                return self._ranges.get(position)
            return next(islice(self._arrived, taken, None), None)

        left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        self._link.wait(lambda: find() or self._is_over(), left_s, self._waiters)
        part = find()
        if part is None and not self.done() and self._stall is not None:
            raise self._stall
        return part

    def _yield(self, part: _Range) -> Iterator[Any]:
        start, stop, outcome, index = part
        if self._return_exceptions or (isinstance(outcome, Reply) and outcome.packed):
            yield from self._values(part)
            return
        for i in range(stop - start):
            yield unwrap(outcome, index + i)

    # ------------------------------------------------------------ about the tasks

    @property
    def progress(self) -> int:
        """How many of the items have ended."""
        return self._ended

    def __len__(self) -> int:
        return self._count

    def get_dict(self, timeout: float | None = None) -> dict[int, Any]:
        """Return the lists of values by engine id, in the order of the items."""
        self.get(timeout)
        values: dict[int, list[Any]] = {}
        for part in sorted(self._arrived, key=lambda part: part[0]):
            values.setdefault(part[2].engine, []).extend(self._values(part))
        return values

    def _numbers(self) -> list[int]:
        return [first + i for first, count in self._firsts for i in range(count)]

    def _marks(self) -> list[Mark]:
        return self._sending

    def _slots(self) -> Iterator[tuple[int, Outcome | None, int]]:
        by_item: dict[int, tuple[Outcome, int]] = {}
        for start, stop, outcome, index in self._arrived:
            for i in range(stop - start):
                by_item[start + i] = outcome, index + i
        for item in range(self._count):
            slot = by_item.get(item)
            yield (-1, *slot) if slot is not None else (-1, None, 0)

    def _one_or_all(self, values: list[Any]) -> Any:
        return values
