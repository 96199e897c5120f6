"""Collectives that cannot complete: noticed by looking at groups that work, and reported to the clients that wait.

An operation of MPI has no end when a rank that it needs is not there: it raised, returned, or does another operation.
No rank of the group, and no client, hears of it. So the brain looks at groups whose ranks work for long. It reports
what can never change by itself: every rank that works sits in MPI and stays where it is, and the others have nothing
to do.
"""

from typing import Final

from hpc.controller.engines import Engine, Group, Registry
from hpc.controller.events import Action, Tell
from hpc.controller.looks import Looks, rows
from hpc.controller.timers import Alarm, Timers
from hpc.wire import messages as m

# Work is looked at when it has lasted so long, and then this often; less and less often while nothing is wrong.
LOOK_S: Final = 1.0
LONGEST_LOOK_S: Final = 15.0
LESS_OFTEN: Final = 1.5
# How long ranks must have stayed where they are: when another one failed or returned, when it was never asked to take
# part, and when all ranks are in MPI, but in different operations (of which a large one may take its time).
ENDED_S: Final = 1.5
ABSENT_S: Final = 5.0
MISMATCH_S: Final = 10.0


class Watch:
    """What is known of a group that is looked at. ``picture`` has not changed since ``since``; ``told`` are bundles."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.picture: object = None
        self.since = 0.0
        self.wait_s = float("inf")
        self.told: set[tuple[int, int]] = set()

    def __repr__(self) -> str:
        return f"<Watch of {self.group!r}{', stalled' if self.told else ''}>"


class Stalls:
    """Watches groups while they have direct work. Appends what is to be done to ``out``."""

    def __init__(self, registry: Registry, looks: Looks, timers: Timers, out: list[Action]) -> None:
        self._registry = registry
        self._looks = looks
        self._timers = timers
        self._out = out
        self.look_s = LOOK_S

    def __repr__(self) -> str:
        return f"<Stalls of {self._registry!r}>"

    def watch(self, targets: list[int], now: float) -> None:
        """Watch the groups of engines that have got direct work."""
        engines = self._registry.engines
        for number in targets:
            engine = engines.get(number)
            if engine is None or engine.group.size == 1:
                continue
            watch = engine.group.watch
            if watch is None:
                watch = engine.group.watch = Watch(engine.group)
            elif watch.told:
                # Perhaps this is what they wait for: whoever waits for them is to wait on, until the next look.
                self._clear(watch)
                watch.picture = None
                continue
            elif watch.wait_s <= self.look_s:
                continue
            watch.wait_s = self.look_s
            self._timers.set(now + self.look_s, Alarm.STALL, watch)

    def alarm(self, watch: Watch, now: float) -> None:
        """Look at a group, if it still works."""
        members = watch.group.living()
        working = [engine for engine in members if engine.sent]
        if not working:
            self._clear(watch)
            watch.group.watch = None
            return

        def decide(sights: dict[int, m.Sight], now: float) -> None:
            self._decide(watch, members, sights, now)

        self._looks.ask(members, decide, now)

    def _decide(self, watch: Watch, members: list[Engine], sights: dict[int, m.Sight], now: float) -> None:
        working = [engine for engine in members if engine.sent and not engine.lost]
        # An engine that has work to come, or does not answer, may yet take part.
        idle = [e for e in members if not (e.sent or e.direct or e.lost) and e.id in sights]
        inside = [sights[e.id] for e in working if e.id in sights and sights[e.id].mpi]
        picture = sorted((s.engine, s.client, s.first, s.offset, s.call, s.frames) for s in inside)
        certain = len(inside) == len(working) and len(working) + len(idle) == len(watch.group.living())
        if not certain or picture != watch.picture:
            self._clear(watch)
            watch.picture, watch.since = (picture if certain else None), now
        elif not watch.told and now >= watch.since + self._patience_s(inside, [sights[e.id] for e in idle]):
            self._report(watch, working, rows(members, sights))
        watch.wait_s = self.look_s if certain else min(watch.wait_s * LESS_OFTEN, LONGEST_LOOK_S)
        self._timers.set(now + watch.wait_s, Alarm.STALL, watch)

    def _patience_s(self, inside: list[m.Sight], idle: list[m.Sight]) -> float:
        """Return for how long these ranks may stay in MPI, while those have nothing to do, before it is a stall."""
        began = min(sight.since for sight in inside)
        of_all = any(sight.world for sight in inside)  # on a communicator that needs every rank of the group
        same = {(sight.client, sight.first) for sight in inside}
        ended = [sight for sight in idle if (sight.client, sight.first) in same]
        if any(sight.failure and sight.failed_at >= began for sight in (idle if of_all else ended)):
            return ENDED_S if of_all else ABSENT_S
        if idle and of_all:
            return ENDED_S if ended else ABSENT_S
        if not idle and all(sight.world for sight in inside) and len({sight.call for sight in inside}) > 1:
            return MISMATCH_S
        return float("inf")

    def _report(self, watch: Watch, working: list[Engine], picture: list[dict[str, object]]) -> None:
        for engine in working:
            bundle = engine.sent[0].bundle
            name = bundle.client.number, bundle.first
            if name not in watch.told:
                watch.told.add(name)
                self._out.append(Tell(bundle.client.number, m.Stalled(bundle.first, picture)))

    def _clear(self, watch: Watch) -> None:
        """Tell the clients that it goes on."""
        for client, first in watch.told:
            self._out.append(Tell(client, m.Stalled(first, [])))
        watch.told.clear()
