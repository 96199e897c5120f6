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
    TIME = "time"
    PATIENCE = "patience"
    ASK = "ask"
    ROOM = "room"


class Timers:
    """A heap of deadlines, one per (alarm, subject); setting it again replaces it."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Alarm, Any]] = []
        self._live: dict[tuple[Alarm, int], int] = {}
        self._count = 0

    def __repr__(self) -> str:
        return f"<Timers {len(self._live)} set, next at {self.next()}>"

    def set(self, when: float, alarm: Alarm, subject: object) -> None:
        """Ask for an alarm at a time; an earlier one for the same subject is forgotten."""
        self._count += 1
        self._live[alarm, id(subject)] = self._count
        heapq.heappush(self._heap, (when, self._count, alarm, subject))

    def cancel(self, alarm: Alarm, subject: object) -> None:
        """Forget an alarm, if there is one."""
        self._live.pop((alarm, id(subject)), None)

    def is_set(self, alarm: Alarm, subject: object) -> bool:
        """Say whether an alarm for this subject is to come."""
        return (alarm, id(subject)) in self._live

    def next(self) -> float | None:
        """Return the time of the next alarm, None if there is none."""
        heap = self._heap
        while heap:
            when, count, alarm, subject = heap[0]
            # The heap keeps the subject alive, so that no other object can have its id meanwhile.
            if self._live.get((alarm, id(subject))) == count:
                return when
            heapq.heappop(heap)
        return None

    def due(self, now: float) -> Iterator[tuple[Alarm, Any]]:
        """Take out the alarms whose time has come."""
        while (when := self.next()) is not None and when <= now:
            _, _, alarm, subject = heapq.heappop(self._heap)
            del self._live[alarm, id(subject)]
            yield alarm, subject
