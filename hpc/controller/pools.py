"""The pools there are: one for work that any engine may take, one for each set of eligible engines in use."""

from typing import Final

from hpc.controller.balance import Pool, Seat
from hpc.controller.engines import Engine, Registry, Shelf

# Pools of restricted work that are kept while nothing of theirs is under way, because the next bundle of the same
# view will need them.
SPARE_POOLS: Final = 8


class Pools:
    """All pools, and the seats of engines in them."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.common = Pool(None)
        self.restricted: dict[frozenset[int], Pool] = {}

    def __repr__(self) -> str:
        return f"<Pools {self.common!r}, {len(self.restricted)} restricted>"

    def find(self, eligible: list[int] | None) -> Pool:
        """Return the pool of the engines that may take the work."""
        if eligible is None:
            return self.common
        key = frozenset(eligible)
        pool = self.restricted.get(key)
        if pool is None:
            if len(self.restricted) >= SPARE_POOLS:
                self._drop_spare()
            pool = self.restricted[key] = Pool(key)
            for number in key:
                engine = self.registry.engines.get(number)
                if engine is not None and engine.visible:
                    self._seat(engine, pool)
        return pool

    def _drop_spare(self) -> None:
        for key, pool in list(self.restricted.items()):
            if not pool.n_bundles:
                del self.restricted[key]
                for seat in pool.seats.values():
                    seat.engine.seats.remove(seat)

    def _seat(self, engine: Engine, pool: Pool) -> None:
        seat = Seat(engine, pool)
        pool.seats[engine.id] = seat
        engine.seats.append(seat)
        pool.n_open += engine.open
        if engine.shelf is Shelf.IDLE:
            pool.idle[engine.id] = seat
        elif engine.shelf is Shelf.LEAN:
            pool.lean[engine.id] = seat

    def enlist(self, engine: Engine) -> None:
        """Give an engine that has become visible its seats."""
        self._seat(engine, self.common)
        for eligible, pool in self.restricted.items():
            if engine.id in eligible:
                self._seat(engine, pool)

    def discharge(self, engine: Engine) -> None:
        """Take the seats of an engine that is lost, and holds nothing any more."""
        for seat in engine.seats:
            del seat.pool.seats[engine.id]
        engine.seats.clear()

    def reopen(self, engine: Engine, was_open: bool) -> None:
        """Take note that an engine may be sent work from now on, or may not any more."""
        change = engine.open - was_open
        for seat in engine.seats:
            seat.pool.n_open += change
            seat.refile()
        engine.refile()
