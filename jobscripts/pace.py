"""How often to ask: often while things change, seldom while not, and seldom when the scheduler is in trouble."""

from dataclasses import dataclass

__all__ = ["Pace"]


@dataclass
class Pace:
    """Times of queries. Schedulers serve all users of a site: 30 s is what their operators ask for.

    Attributes
    ----------
    least_s, most_s, most_in_trouble_s : float
        Bounds of the time between two queries; the last holds after failures.
    growth : float
        By how much that time grows with each query that brought nothing new.
    """

    least_s: float = 1.0
    most_s: float = 30.0
    most_in_trouble_s: float = 120.0
    growth: float = 1.5
    _interval_s: float = 0.0
    _next_s: float = 0.0

    def __str__(self) -> str:
        return f"asking every {max(self._interval_s, self.least_s):.3g} s"

    def due(self, now: float) -> bool:
        """Say whether it is time to ask."""
        # A clock that was set back must not end all questions.
        return now >= self._next_s or self._next_s - now > self.most_in_trouble_s

    def remaining_s(self, now: float) -> float:
        """Return the seconds until it is time."""
        return 0.0 if self.due(now) else self._next_s - now

    def asked(self, now: float, *, changed: bool) -> None:
        """Note a query, and whether it brought something new."""
        grown = min(max(self._interval_s * self.growth, self.least_s), self.most_s)
        self._interval_s = self.least_s if changed else grown
        self._next_s = now + self._interval_s

    def failed(self, now: float) -> None:
        """Note a query that was not answered."""
        self._interval_s = min(max(self._interval_s * 2, self.least_s), self.most_in_trouble_s)
        self._next_s = now + self._interval_s

    def hasten(self) -> None:
        """Expect changes: ask again as soon as `least_s` allows it."""
        if self._interval_s > self.least_s:
            self._next_s -= self._interval_s - self.least_s
            self._interval_s = self.least_s
