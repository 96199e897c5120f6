"""Deadlines of the brain, without a clock: whoever asks brings the time."""

import heapq
from collections.abc import Iterator
from enum import Enum
from typing import Any


class Alarm(Enum):
    """What a deadline is about."""

    CUT = "cut"
    GRACE = "grace"
    STATUS = "status"
    STUCK = "stuck"
    TEAM = "team"
    TIME = "time"
    LOOK = "look"
    STALL = "stall"
    PATIENCE = "patience"
    ASK = "ask"
    ROOM = "room"


_Entry = tuple[float, int, Alarm, Any]


class Timers:
    """Deadlines in their order, one per (alarm, subject); setting it again replaces it.

    Whoever asks late is given first what forbids something (`Alarm.TIME`), so that no other alarm leads to just that.
    """

    def __init__(self) -> None:
        self._last_calls: list[_Entry] = []
        self._others: list[_Entry] = []
        self._live: dict[tuple[Alarm, int], int] = {}
        self._count = 0

    def __repr__(self) -> str:
        return f"<Timers {len(self._live)} set, next at {self.next()}>"

    def set(self, when: float, alarm: Alarm, subject: object) -> None:
        """Ask for an alarm at a time; an earlier one for the same subject is forgotten."""
        self._count += 1
        self._live[alarm, id(subject)] = self._count
        heap = self._last_calls if alarm is Alarm.TIME else self._others
        heapq.heappush(heap, (when, self._count, alarm, subject))

    def cancel(self, alarm: Alarm, subject: object) -> None:
        """Forget an alarm, if there is one."""
        self._live.pop((alarm, id(subject)), None)

    def is_set(self, alarm: Alarm, subject: object) -> bool:
        """Say whether an alarm for this subject is to come."""
        return (alarm, id(subject)) in self._live

    def next(self) -> float | None:
        """Return the time of the next alarm, None if there is none."""
        first, second = self._first(self._last_calls), self._first(self._others)
        if first is None or second is None:
            return first if second is None else second
        return min(first, second)

    def due(self, now: float) -> Iterator[tuple[Alarm, Any]]:
        """Take out the alarms whose time has come."""
        while True:
            for heap in (self._last_calls, self._others):
                when = self._first(heap)
                if when is not None and when <= now:
                    break
            else:
                return
            _, _, alarm, subject = heapq.heappop(heap)
            del self._live[alarm, id(subject)]
            yield alarm, subject

    def _first(self, heap: list[_Entry]) -> float | None:
        """Return when the first of a heap is to come; drop what has been forgotten."""
        while heap:
            when, count, alarm, subject = heap[0]
            # The heap keeps the subject alive, so that no other object can have its id meanwhile.
            if self._live.get((alarm, id(subject))) == count:
                return when
            heapq.heappop(heap)
        return None
