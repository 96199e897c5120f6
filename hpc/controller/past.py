"""What is remembered of tasks that have ended, for those that depend on them."""

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

# Where tasks have run is needed only while the client does not know it yet: as long as results are under way to it.
MAX_PLACES: Final = 4096


class Past:
    """Which tasks of a client failed, and where the latest ones have run. All ranges are half-open, of task numbers."""

    __slots__ = ("_firsts", "failures", "places")

    def __init__(self) -> None:
        self.failures: list[tuple[int, int]] = []
        self._firsts: list[int] = []
        self.places: deque[tuple[int, int, int]] = deque(maxlen=MAX_PLACES)

    def __repr__(self) -> str:
        return f"<Past: {sum(stop - start for start, stop in self.failures)} tasks failed>"

    def fail(self, start: int, stop: int) -> None:
        """Remember that tasks failed, or ended without a result."""
        failures = self.failures
        if failures and failures[-1][1] == start:
            failures[-1] = failures[-1][0], stop
        else:
            failures.append((start, stop))

    def firsts(self, bundles: Mapping[int, Any]) -> list[int]:
        """Return the numbers of the first tasks of bundles in ascending order, perhaps with some that are gone.

        What is new among the bundles, which stand in the order in which they came, is added; so it costs little to ask
        again and again.
        """
        firsts = self._firsts
        new: list[int] = []
        last = firsts[-1] if firsts else 0
        for first in reversed(bundles):
            if first <= last:
                break
            new.append(first)
        firsts += reversed(new)
        if len(firsts) > 2 * len(bundles) + 64:
            firsts[:] = bundles
        return firsts

    def n_failed(self, start: int, stop: int) -> int:
        """Count those of the tasks that failed."""
        return sum(max(0, min(stop, high) - max(start, low)) for low, high in self.failures)

    def where(self, start: int, stop: int) -> dict[int, int]:
        """Return where tasks have run, as far as that is remembered: engine by number."""
        found = {}
        for low, high, engine in self.places:
            for number in range(max(start, low), min(stop, high)):
                found[number] = engine
        return found
