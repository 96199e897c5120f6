"""Tasks that several ranks of one group run together: choosing them, and having them free at the same time.

A *team* is those ranks while they serve such tasks; the first of them is its root, which holds the part and answers for
all. A team needs engines that have nothing else to do. If there are not enough, a *draft* keeps the engines of one host
from taking more load-balanced work, until enough of them have come to an end; whoever is done first is taken, the
others go on. Engines that leave a team get a turn of other work before they can be drafted again. So neither kind of
work can keep the other from its engines (docs/decisions/0015-tasks-of-several-ranks.md).
"""

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Final, TypeAlias

from hpc.controller.bundles import Bundle, Part
from hpc.controller.demands import Demand, demand_of
from hpc.controller.engines import Engine, Shelf
from hpc.controller.places import Place, choose, places_of
from hpc.controller.sending import order
from hpc.controller.teampool import Draft, Team, TeamPool, capacity, is_free
from hpc.controller.timers import Alarm
from hpc.errors import ProtocolError
from hpc.wire import messages as m

if TYPE_CHECKING:
    from hpc.controller.queues import Queues

# For so long a team waits to be together on one host, while its group could serve across several.
SPREAD_S: Final = 1.0
# Pools without work that are kept for the next map, and teams that are remembered because they have a communicator.
SPARE_POOLS: Final = 8
WARM_TEAMS: Final = 64

_Key: TypeAlias = tuple[int, frozenset[int] | None, float, Demand | None]


class Teams:
    """All of them. Whoever changes something that could help sets ``restless``: the brain then calls `pump`."""

    def __init__(self, queues: "Queues") -> None:
        self._queues = queues
        self.pools: dict[_Key, TeamPool] = {}
        # The oldest first, which has the first choice: if they shared what is free, they could wait for each other.
        self.drafts: list[Draft] = []
        self.restless = False
        self._is_stale = False
        self._places: list[Place] = []

    def __repr__(self) -> str:
        return f"<Teams {list(self.pools.values())}>"

    def stir(self) -> None:
        """Have `pump` called at the end of the event."""
        self.restless = True

    # ------------------------------------------------------------ work that comes

    def add(self, bundle: Bundle, eligible: list[int] | None) -> None:
        """Queue new work of several ranks."""
        ids = None if eligible is None else frozenset(eligible)
        key = bundle.ranks, ids, bundle.declared_s, demand_of(bundle.options)
        pool = self.pools.get(key)
        if pool is None:
            for old, spare in list(self.pools.items()):
                if len(self.pools) >= SPARE_POOLS and not spare.n_bundles:
                    del self.pools[old]
            pool = self.pools[key] = TeamPool(*key, stir=self.stir)
            self.changed()
        bundle.pool = pool
        pool.n_bundles += 1
        bundle.nbytes = sum(map(len, bundle.body))
        for part in sorted(bundle.parts, key=lambda part: part.start) or [Part(bundle, 0, bundle.count)]:
            pool.push(part)  # what was held has parts already
        self.restless = True

    def _obstacle(self, pool: TeamPool) -> str:
        """Say why there can be no team for a pool, "" if there can; without any engines it waits for some."""
        registry, largest, total = self._queues.registry, 0, 0
        for group in registry.groups.values():
            size = 0 if group.doomed else capacity(group, pool)
            largest, total = max(largest, size), total + size // pool.n_ranks
        pool.n_open = max(1, total)
        if largest >= pool.n_ranks or not (registry.engines or pool.eligible is not None):
            return ""
        among = " that may run it" if pool.is_choosy or pool.needs_s else ""
        return (
            f"a task of {pool.n_ranks} ranks needs as many engines of one MPI group{among}, and the largest has"
            f" {largest}: start one with 'ipcluster start --mpi -n {pool.n_ranks}'"
            f" or 'mpirun -n {pool.n_ranks} ipengine'"
        )

    def _give_up(self, pool: TeamPool) -> None:
        """End all that waits in a pool."""
        for line in list(pool.lines.values()):
            for part in [part for part in line.waiting() if part.start < part.stop]:
                part.bundle.parts.remove(part)
                pool.withdraw(part.stop - part.start)
                self._queues.end(part.bundle, part.start, part.stop, m.EndReason.NO_ENGINES, pool.obstacle)

    # ------------------------------------------------------------ engines

    def changed(self) -> None:
        """Take note that engines have come, gone or been told to go, or that there is work for others than before."""
        self._is_stale = self.restless = True

    def _look_around(self, now: float) -> None:
        self._is_stale = False
        self._places = list(places_of(self._queues.registry.groups.values())) if self.pools else []
        for pool in self.pools.values():
            pool.places = None
            pool.obstacle = self._obstacle(pool)
            if pool.draft is not None and sum(pool.admits(e, now) for e in pool.draft.engines) < pool.n_ranks:
                self._thaw(pool, now)

    def progress(self, engine: Engine, now: float) -> None:
        """Take note that an engine of a team or draft may have ended what it did."""
        team = engine.team
        if isinstance(team, Team):
            if engine is team.root:
                self.restless = True
                if not team.seat.n:
                    self._release(team, now)
        elif team is not None and is_free(engine, team):
            team.free[engine.id] = engine
            self.restless |= len(team.free) >= team.pool.n_ranks

    def _release(self, team: Team, now: float) -> None:
        living = [engine for engine in team.members if not engine.lost]
        for engine in living:
            engine.team = None
        pool = team.seat.pool
        if isinstance(pool, TeamPool) and len(living) == len(team.members):
            key = tuple(engine.id for engine in living)
            pool.warm.pop(key, None)
            pool.warm[key] = living
            if len(pool.warm) > WARM_TEAMS:
                del pool.warm[next(iter(pool.warm))]
        for engine in living:
            self._let_go(engine, now)

    def _let_go(self, engine: Engine, now: float) -> None:
        """Give an engine a turn of other work, before the drafts of its place have it again."""
        engine.refile()
        self._queues.refill(engine, now)
        for draft in self.drafts:
            if engine.team is None and engine in draft.engines:
                self._enlist(draft, engine, now)

    def lost(self, engine: Engine, now: float) -> None:
        """Take note that an engine is gone, and what it held with it."""
        team, engine.team = engine.team, None
        for pool in self.pools.values():
            for key in [key for key in pool.warm if engine.id in key]:
                del pool.warm[key]
        if isinstance(team, Draft):
            team.free.pop(engine.id, None)
            team.engines.remove(engine)
        elif team is not None and not team.seat.n:
            self._release(team, now)
        self.changed()

    def misses(self, engine: Engine) -> bool:
        """Say whether others wait in MPI for an engine that is gone."""
        team = engine.team
        return isinstance(team, Team) and team.seat.n > 0 and len(team.members) > 1

    def followed(self, engine: Engine, message: m.Need) -> Part | None:
        """Return the part that an engine serves at, but does not hold itself."""
        if not isinstance(engine.team, Team):
            return None
        return next(
            (part for part in engine.team.root.sent if part.bundle.is_named(message.client, message.first)), None
        )

    # ------------------------------------------------------------ who serves

    def pump(self, now: float) -> None:
        """Have teams begin while there are engines for them, and draft some where there are not."""
        self.restless = False
        if self._is_stale:
            self._look_around(now)
        for key, pool in list(self.pools.items()):
            if pool.obstacle:
                self._give_up(pool)
            while pool.waiting:
                if pool.draft is not None and now >= pool.patient_until and pool.draft.is_one_host:
                    self._thaw(pool, now)
                members = self._find(pool, now)
                if members is None:
                    break
                self._launch(pool, members, now)
                self.pools[key] = self.pools.pop(key)  # the others come before its next one
            if not pool.waiting:
                self._thaw(pool, now)
            elif pool.draft is None:
                self._draft(pool, now)

    def _find(self, pool: TeamPool, now: float) -> list[Engine] | None:
        """Return engines that can begin at once, by rank."""
        n, draft = pool.n_ranks, pool.draft
        if draft is not None:
            draft.free = {number: engine for number, engine in draft.free.items() if is_free(engine, draft)}
            free = {number for number, engine in draft.free.items() if pool.admits(engine, now)}
            if len(free) >= n:
                return choose(draft.engines, free, n, draft.is_one_host)
        for members in reversed(pool.warm.values()):
            if all(e.shelf is Shelf.IDLE and pool.admits(e, now) for e in members):
                return members
        places = self._candidates(pool, now)
        idle: dict[int, set[int]] = defaultdict(set)
        for number, seat in self._queues.pools.common.idle.items():
            if pool.admits(seat.engine, now):
                for at in pool.whereabouts.get(number, ()):
                    idle[at].add(number)
                    if len(idle[at]) >= n and places[at].is_one_host:
                        free = {e.id for e in places[at].engines if e.shelf is Shelf.IDLE and pool.admits(e, now)}
                        return choose(places[at].engines, free, n, True)
        if not places or (places[0].is_one_host and now < pool.patient_until):
            return None
        at = next((at for at, numbers in idle.items() if len(numbers) >= n), -1)
        return None if at < 0 else choose(places[at].engines, idle[at], n, False)

    def _candidates(self, pool: TeamPool, now: float) -> list[Place]:
        """Return the places that are large enough, those of one host first."""
        if pool.places is None or pool.needs_s:  # who is there for long enough depends on when one asks
            enough = [p for p in self._places if sum(pool.admits(e, now) for e in p.engines) >= pool.n_ranks]
            pool.places = sorted(enough, key=lambda place: not place.is_one_host)
            pool.whereabouts = defaultdict(list)
            for at, place in enumerate(pool.places):
                for engine in place.engines:
                    pool.whereabouts[engine.id].append(at)
        return pool.places

    def _draft(self, pool: TeamPool, now: float) -> None:
        """Choose the place where the next team is to be, the one where most is free, and keep other work away."""
        places = self._candidates(pool, now)
        if not places:
            return
        hosts = [place for place in places if place.is_one_host]
        if not 0 < len(hosts) < len(places):
            pool.patient_until = math.inf
        elif pool.patient_until == math.inf:
            pool.patient_until = now + SPREAD_S
            self._queues.timers.set(pool.patient_until, Alarm.TEAM, pool)
        places = hosts if hosts and now < pool.patient_until else places[len(hosts) :] or hosts
        place = max(places, key=lambda place: sum(engine.shelf for engine in place.engines if engine.team is None))
        draft = pool.draft = Draft(pool, Place(list(place.engines), place.is_one_host))
        self.drafts.append(draft)
        for engine in place.engines:
            if engine.team is None:
                self._enlist(draft, engine, now)

    def _enlist(self, draft: Draft, engine: Engine, now: float) -> None:
        if draft.pool.admits(engine, now):
            engine.team = draft
            engine.refile()
            self.progress(engine, now)

    def _thaw(self, pool: TeamPool, now: float) -> None:
        """Let those go who were drafted."""
        draft, pool.draft = pool.draft, None
        if draft is not None:
            self.drafts.remove(draft)
            drafted = [engine for engine in draft.engines if engine.team is draft]
            for engine in drafted:
                engine.team = None
            for engine in drafted:
                self._let_go(engine, now)

    def _launch(self, pool: TeamPool, members: list[Engine], now: float) -> None:
        queues, team = self._queues, Team(pool, members)
        for engine in members:
            if isinstance(engine.team, Draft):
                engine.team.free.pop(engine.id, None)
            engine.team = team
            engine.refile()
        part = pool.take()
        part.seat = team.seat
        team.seat.n = part.stop - part.start
        queues.send(team.root, part)
        for engine in members[1:]:
            order(queues, engine, part)
        team.seat.refile()
        pool.patient_until = math.inf
        queues.timers.cancel(Alarm.TEAM, pool)
        self._thaw(pool, now)


def check(submit: m.Submit) -> None:
    """Refuse what no team can run."""
    options = submit.options or m.Options()
    ranks = options.ranks
    if ranks < 0 or submit.targets is not None or submit.kind is m.Kind.EACH or options.condition:
        raise ProtocolError(f"a task of {ranks} ranks must be load-balanced work without a condition")
