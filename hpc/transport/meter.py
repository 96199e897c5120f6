"""How many bytes of large data this process has moved: what moves them piece by piece counts them here."""

from collections.abc import Callable


class Meter:
    """Counters that only grow; who looks at them takes differences.

    Attributes
    ----------
    expected, moved : int
        Bytes that were announced, and those that are where they should be. Threads that count at the same time may lose
        a piece: it is for people to look at.
    route : str
        The way that was chosen last.
    watchers : list of callable
        Called after each piece, by whoever moved it.
    """

    __slots__ = ("expected", "moved", "route", "watchers")

    def __init__(self) -> None:
        self.expected = self.moved = 0
        self.route = ""
        self.watchers: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<Meter {self.moved} of {self.expected} bytes>"

    def expect(self, nbytes: int, route: str = "") -> None:
        """Count bytes that will be moved, by a route if that is known."""
        self.expected += nbytes
        self.route = route or self.route

    def count(self, nbytes: int) -> None:
        """Count bytes that have been moved."""
        self.moved += nbytes
        for watcher in self.watchers:
            watcher()


# There is one for the process, as there is one memory and one network that the bytes share.
meter = Meter()
