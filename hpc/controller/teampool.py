"""Engines that run tasks together, or are about to, and the work that waits for them (`hpc.controller.teams`)."""

import math
from collections.abc import Callable
from typing import Any, Final

from hpc.controller.balance import Pool, Seat
from hpc.controller.bundles import Bundle, Part
from hpc.controller.demands import Demand
from hpc.controller.engines import Engine, Group
from hpc.controller.places import Place


class TeamPool(Pool):
    """Work for teams of ``n_ranks``, and who may serve in them; ``stir`` is called when work goes or comes back."""

    def __init__(
        self,
        n_ranks: int,
        eligible: frozenset[int] | None,
        needs_s: float,
        demand: Demand | None,
        *,
        stir: Callable[[], None],
    ) -> None:
        super().__init__(eligible, needs_s, demand)
        self.n_ranks = n_ranks
        self._stir = stir
        self.draft: Draft | None = None
        # Why there can be no team for it, as far as is known.
        self.obstacle = ""
        # Where there are enough engines, and for each of these the indices of those places; None until asked for.
        self.places: list[Place] | None = None
        self.whereabouts: dict[int, list[int]] = {}
        # By the ids of the members: teams that served lately, the latest last.
        self.warm: dict[tuple[int, ...], list[Engine]] = {}
        # Until when the next team is to be on one host.
        self.patient_until = math.inf

    def __repr__(self) -> str:
        return f"<TeamPool of {self.n_ranks} ranks: {self.waiting} waiting{', drafts' if self.draft else ''}>"

    @property
    def forsaken(self) -> bool:
        """Return False: it is `Teams.changed` that looks after pools."""
        return False

    def push_front(self, part: Part) -> None:
        """Queue a part that came back before what its client has waiting."""
        super().push_front(part)
        self._stir()

    def withdraw(self, n: int) -> None:
        """Count out ``n`` waiting tasks whose parts have been shortened or emptied in place."""
        super().withdraw(n)
        self._stir()

    def piece_size(self, bundle: Bundle, *more: Any) -> int:
        """Return how many tasks of a bundle make a piece now: nobody else can take one over that a team was given."""
        if bundle.pace is None or bundle.pace.seconds < 0:
            return 1
        return super().piece_size(bundle, *more)

    def admits(self, engine: Engine, now: float) -> bool:
        """Say whether an engine may serve, now or later."""
        if engine.lost or engine.stopping or engine.dying:
            return False
        if self.needs_s and engine.ends_at - now <= self.needs_s:
            return False
        if self.demand is not None and not self.demand.fits(engine.info):
            return False
        return self.eligible is None or engine.id in self.eligible


class Draft:
    """Engines that take no other work until enough of them are free."""

    __slots__ = ("engines", "free", "is_one_host", "pool")

    serves: Final = False
    ranks: Final[list[int]] = []

    def __init__(self, pool: TeamPool, place: Place) -> None:
        self.pool = pool
        self.engines = place.engines
        self.is_one_host = place.is_one_host
        self.free: dict[int, Engine] = {}

    def __repr__(self) -> str:
        return f"<Draft for {self.pool!r}: {len(self.free)} free of {len(self.engines)}>"


class Team:
    """Engines that run a part together; ``seat`` counts what is left of it, at the root."""

    __slots__ = ("members", "ranks", "seat")

    serves: Final = True

    def __init__(self, pool: TeamPool, members: list[Engine]) -> None:
        self.members = members
        self.ranks = [engine.info.rank for engine in members]
        self.seat = Seat(members[0], pool)

    def __repr__(self) -> str:
        return f"<Team of engines {[engine.id for engine in self.members]}, {self.seat.n} tasks left>"

    @property
    def root(self) -> Engine:
        """The member that says what is begun, and answers."""
        return self.members[0]


def is_free(engine: Engine, draft: Draft) -> bool:
    """Say whether an engine that was drafted has come to an end of all that it had to do."""
    return engine.team is draft and engine.open and not (engine.sent or engine.direct)


def capacity(group: Group, pool: TeamPool) -> int:
    """Return how many ranks of a group may serve; of one that is not complete, as many as it will have."""
    if group.visible:
        return sum(pool.admits(engine, -math.inf) for engine in group.members.values())
    ids = range(group.base, group.base + group.size)
    return group.size if pool.eligible is None else sum(number in pool.eligible for number in ids)
