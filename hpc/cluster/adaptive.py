"""How many engines a cluster should have, by how much there is to do. Pure: no clock, no sockets."""

from typing import Any


class Adaptation:
    """Keeps the number of engines between ``minimum`` and ``maximum``.

    Parameters
    ----------
    minimum, maximum : int
        Fewer or more engines there shall not be.
    group : int
        How many engines come and go together.
    interval_s : float
        How often to look.
    idle_s : float
        How long the work must have needed fewer engines before some are released: starting them again may take hours.

    Raises
    ------
    ValueError
        These cannot be meant.
    """

    def __init__(
        self, minimum: int, maximum: int, *, group: int = 1, interval_s: float = 5.0, idle_s: float = 60.0
    ) -> None:
        if not 0 <= minimum <= maximum or maximum < 1:
            raise ValueError(f"minimum is {minimum} and maximum {maximum}: give 0 <= minimum <= maximum, 1 <= maximum")
        if interval_s <= 0 or idle_s < 0:
            raise ValueError(f"interval_s is {interval_s} and idle_s {idle_s}: give times that are not negative")
        self.minimum, self.maximum, self.group = minimum, maximum, max(1, group)
        self.interval_s, self.idle_s = interval_s, idle_s
        self.look_at = 0.0
        # Since when fewer engines would have done, and the most that were needed in that time.
        self._less_since: float | None = None
        self._most = 0

    def __repr__(self) -> str:
        return f"<Adaptation from {self.minimum} to {self.maximum} engines, {self.group} at a time>"

    def looked(self, now: float) -> None:
        """Take note that the load is being looked at now."""
        self.look_at = now + self.interval_s

    def wanted(self, status: dict[str, Any], present: int, now: float) -> int:
        """Return how many engines there should be.

        Parameters
        ----------
        status
            The answer to ``queue_status``.
        present
            How many there are or are being started.
        now
            Seconds on a clock that only goes forward.
        """
        counts = status["engines"].values()
        busy = sum(1 for each in counts if each["queue"] or each["tasks"])
        # What is sent ahead to an engine waits, too: more engines would take it over.
        ahead = sum(max(0, each["queue"] + each["tasks"] - 1) for each in counts)
        needed = int(busy + status["unassigned"] + ahead)
        target = min(max(-(-needed // self.group) * self.group, self._floor()), self._ceiling())
        if target >= present:
            self._less_since = None
            return target
        if self._less_since is None:
            self._less_since, self._most = now, target
        self._most = max(self._most, target)
        if now - self._less_since < self.idle_s:
            return present
        self._less_since = None
        return self._most

    def _floor(self) -> int:
        return -(-self.minimum // self.group) * self.group

    def _ceiling(self) -> int:
        return max(self.maximum // self.group * self.group, self._floor())
