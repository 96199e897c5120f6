"""The pools there are: one for work that any engine may take, one for each set of eligible engines in use.

Tasks that say how long they take have pools of their own, for the engines that will be there that long.
"""

import math
from typing import Final, TypeAlias

from hpc.controller.balance import Pool, Seat
from hpc.controller.demands import Demand
from hpc.controller.engines import Engine, Registry, Shelf
from hpc.controller.timers import Alarm, Timers

# Pools of restricted work that are kept while nothing of theirs is under way, because the next bundle of the same
# view will need them.
SPARE_POOLS: Final = 8
# Expected times are rounded up to so many digits: those that differ little share a pool.
DIGITS: Final = 2
SHORTEST_S: Final = 0.001

_Key: TypeAlias = tuple[frozenset[int] | None, float, Demand | None]


class Pools:
    """All pools, and the seats of engines in them."""

    def __init__(self, registry: Registry, timers: Timers) -> None:
        self.registry = registry
        self.timers = timers
        self.common = Pool(None)
        self.restricted: dict[_Key, Pool] = {}

    def __repr__(self) -> str:
        return f"<Pools {self.common!r}, {len(self.restricted)} restricted>"

    def find(
        self,
        eligible: list[int] | None,
        expected_s: float = 0.0,
        now: float = 0.0,
        demand: Demand | None = None,
    ) -> Pool:
        """Return the pool of the engines that may take the work, and will be there for the seconds that it takes."""
        if eligible is None and not expected_s and demand is None:
            return self.common
        key = None if eligible is None else frozenset(eligible), _rounded_up(expected_s), demand
        pool = self.restricted.get(key)
        if pool is None:
            if len(self.restricted) >= SPARE_POOLS:
                self._drop_spare()
            pool = self.restricted[key] = Pool(*key)
            engines = self.registry.engines
            for number in engines if key[0] is None else key[0]:
                engine = engines.get(number)
                if engine is not None and engine.visible:
                    self.seat(engine, pool, now)
        return pool

    def _drop_spare(self) -> None:
        for key, pool in list(self.restricted.items()):
            if not pool.n_bundles:
                del self.restricted[key]
                self.timers.cancel(Alarm.ASK, pool)
                self.timers.cancel(Alarm.ROOM, pool)
                for seat in pool.seats.values():
                    seat.engine.seats.remove(seat)
                    self.timers.cancel(Alarm.TIME, seat)

    def seat(self, engine: Engine, pool: Pool, now: float) -> None:
        """Give an engine its place in a pool, if it has what the work there asks for."""
        if pool.demand is not None and (engine.id in pool.refused or not pool.demand.fits(engine.info)):
            return
        seat = Seat(engine, pool)
        if pool.needs_s and engine.ends_at < math.inf:
            last_call = engine.ends_at - pool.needs_s
            if last_call <= now:
                return
            self.timers.set(last_call, Alarm.TIME, seat)
        pool.seats[engine.id] = seat
        engine.seats.append(seat)
        pool.n_open += engine.open
        if engine.shelf is Shelf.IDLE:
            pool.idle[engine.id] = seat
        elif engine.shelf is Shelf.LEAN:
            pool.lean[engine.id] = seat

    def enlist(self, engine: Engine, now: float) -> None:
        """Give an engine that has become visible its seats."""
        self.seat(engine, self.common, now)
        for (eligible, *_), pool in self.restricted.items():
            if eligible is None or engine.id in eligible:
                self.seat(engine, pool, now)

    def unseat(self, seat: Seat) -> None:
        """Take an engine out of one pool; what it holds of that stays with it."""
        engine, pool = seat.engine, seat.pool
        del pool.seats[engine.id]
        pool.idle.pop(engine.id, None)
        pool.lean.pop(engine.id, None)
        pool.n_open -= engine.open
        engine.seats.remove(seat)

    def discharge(self, engine: Engine) -> None:
        """Take the seats of an engine that is lost, and holds nothing any more."""
        for seat in engine.seats:
            del seat.pool.seats[engine.id]
            self.timers.cancel(Alarm.TIME, seat)
        engine.seats.clear()

    def reopen(self, engine: Engine, was_open: bool) -> None:
        """Take note that an engine may be sent work from now on, or may not any more."""
        change = engine.open - was_open
        for seat in engine.seats:
            seat.pool.n_open += change
            seat.refile()
        engine.refile()


def _rounded_up(seconds: float) -> float:
    """Return the next round number at or above some seconds; 0 stays."""
    if not seconds:
        return 0.0
    seconds = max(seconds, SHORTEST_S)
    step = 10.0 ** (math.floor(math.log10(seconds)) + 1 - DIGITS)
    # What is a round number but for the last bit stays where it is.
    return math.ceil(seconds / step * (1 - 1e-12)) * step
