"""What must be true of the brain between two events, derived again from the ground up. For tests."""

# ruff: noqa: S101, PT018, RUF007 - asserting is what this file is for

import math
from typing import TYPE_CHECKING

from hpc.controller.balance import Pool
from hpc.controller.bundles import Bundle, Part
from hpc.controller.engines import WINDOW, Engine, Farewell, Shelf
from hpc.controller.places import places_of
from hpc.controller.teampool import Draft, TeamPool, is_free
from hpc.controller.timers import Alarm

if TYPE_CHECKING:
    from hpc.controller.brain import Brain


def check(brain: "Brain") -> None:
    """Raise AssertionError where an index does not say what a recount says."""
    assert not brain.out, "actions were left behind"
    bundles: dict[int, Bundle] = {}
    pools = [brain.queues.pools.common, *brain.queues.pools.restricted.values()]
    for engine in brain.registry.engines.values():
        _check_engine(brain, engine, bundles)
    for pool in pools:
        _check_pool(brain, pool, bundles)
    _check_teams(brain, bundles)
    pools += brain.queues.teams.pools.values()
    for client in brain.clients.values():
        assert not client.gone
        for first, bundle in client.bundles.items():
            assert bundle.first == first and bundle.client is client
            bundles[id(bundle)] = bundle
    for bundle in bundles.values():
        _check_bundle(brain, bundle)
    for pool in pools:
        assert pool.n_bundles == sum(bundle.pool is pool for bundle in bundles.values()), pool
    _check_registry(brain)


def _check_bundle(brain: "Brain", bundle: Bundle) -> None:
    assert bundle.client.bundles[bundle.first] is bundle
    covered = sorted((part.start, part.stop) for part in bundle.parts)
    assert all(start < stop for start, stop in covered), bundle
    assert all(a[1] <= b[0] for a, b in zip(covered, covered[1:], strict=False)), bundle
    if bundle.awaits is None or not bundle.awaits.is_balanced:
        assert 0 < bundle.left == sum(stop - start for start, stop in covered), bundle
    else:
        assert not covered and bundle.pool is None, bundle
    if bundle.hold is not None:
        assert bundle.pool is None and bundle.awaits is None and bundle.hold.bundle is bundle
        assert not any(part.sent or part.engine for part in bundle.parts), bundle
        assert not any(wanted.is_impossible for wanted in bundle.hold.wanted)
        assert not all(wanted.is_met for wanted in bundle.hold.wanted)
        return
    for part in bundle.parts:
        assert part.bundle is bundle
        if part.sent:
            assert part.engine is not None and part in part.engine.sent
            assert (part.seat is None) == (bundle.pool is None)
        elif bundle.pool is None:
            assert part.engine is not None and part in part.engine.direct
        else:
            assert part.engine is None
            line, lot = bundle.pool.lines.get(bundle.client.number), brain.parking.lots.get(bundle.client.number, ())
            places = [parts for pool, parts in lot if pool is bundle.pool] + ([list(line.waiting())] if line else [])
            assert sum(part in place for place in places) == 1, part


def _check_engine(brain: "Brain", engine: Engine, bundles: dict[int, Bundle]) -> None:
    assert not engine.lost
    assert len(engine.sent) <= WINDOW + 2 * len(engine.recalls) + WINDOW, "far too much was sent ahead"
    for part in (*engine.sent, *engine.direct):
        if part.start < part.stop:
            assert part in part.bundle.parts, part
            bundles[id(part.bundle)] = part.bundle
    for part in engine.sent:
        assert part.start < part.stop and part.engine is engine and part.sent, part
        for digest in part.bundle.needs:
            assert digest in engine.holds
    for part in engine.direct:
        assert not part.sent and part.engine is engine and part.bundle.pool is None
    assert engine.n_tasks == sum(part.stop - part.start for part in engine.sent)
    backlog_s = sum(part.each_s * (part.stop - part.start) for part in engine.sent)
    assert abs(engine.backlog_s - backlog_s) < 1e-6 * (1 + backlog_s), (engine.backlog_s, backlog_s)
    if engine.open and engine.direct:
        head = next((part for part in engine.direct if part.start < part.stop), None)
        held_up = head is None or head.awaits
        assert held_up or len(engine.sent) >= WINDOW, "direct work waits though its engine could take it"
    assert engine.shelf is engine.wanted_shelf()
    assert engine.stopping or not engine.farewell
    assert engine.farewell is not Farewell.ASKED or engine.recalls, "nobody will tell it that this is all"
    expected = {id(brain.queues.pools.common)} if engine.visible else set()
    for (eligible, needs_s, demand), pool in brain.queues.pools.restricted.items():
        seat = pool.seats.get(engine.id)
        if demand is not None and (engine.id in pool.refused or not demand.fits(engine.info)):
            assert seat is None
            continue
        timed = bool(needs_s) and engine.ends_at < math.inf
        # Whether it has the time depends on when this was last asked; but it is asked again.
        if engine.visible and (eligible is None or engine.id in eligible) and (seat or not timed):
            expected.add(id(pool))
            assert seat is not None and brain.timers.is_set(Alarm.TIME, seat) == timed
    assert {id(seat.pool) for seat in engine.seats} == expected, engine
    for seat in engine.seats:
        assert seat.engine is engine and seat.pool.seats[engine.id] is seat
        assert seat.recalls == sum(recall.seat is seat for recall in engine.recalls)


def _check_pool(brain: "Brain", pool: Pool, bundles: dict[int, Bundle]) -> None:
    waiting: list[Part] = []
    assert len(pool.turns) == len(pool.lines) == len({id(line) for line in pool.turns})
    for line in pool.turns:
        assert pool.lines[line.client.number] is line
        assert line.parts or pool.waiting, "an empty line"
        priorities = [priority for priority, _ in line.lower]
        assert priorities == sorted(set(priorities)) and all(p < line.priority for p in priorities)
        waiting += [part for part in line.waiting() if part.start < part.stop]
    for part in waiting:
        assert part.bundle.pool is pool and part in part.bundle.parts
        bundles[id(part.bundle)] = part.bundle
    assert pool.waiting == sum(part.stop - part.start for part in waiting), pool
    assert pool.n_open == sum(seat.engine.open for seat in pool.seats.values()), pool
    mask = 0
    seats = dict(pool.seats)
    for engine in brain.registry.engines.values():
        for part in engine.sent:
            if part.seat is not None and part.seat.pool is pool:
                # Who has no seat any more may still hold what it was sent before.
                assert pool.seats.get(engine.id, part.seat) is part.seat
                seats[engine.id] = part.seat
    for number, seat in seats.items():
        engine = seat.engine
        assert brain.registry.engines[number] is engine
        assert (number in pool.idle) == (engine.shelf is Shelf.IDLE and number in pool.seats)
        assert (number in pool.lean) == (engine.shelf is Shelf.LEAN and number in pool.seats)
        held = [part for part in engine.sent if part.seat is seat]
        assert seat.n == sum(part.stop - part.start for part in held), seat
        begun = bool(engine.sent) and engine.sent[0].seat is seat
        stealable = seat.n > begun and not seat.recalls and engine.control_up
        assert seat.bucket == (seat.n.bit_length() if stealable else 0), seat
        for bucket, filed in enumerate(pool.buckets):
            assert (number in filed) == (bucket == seat.bucket and bucket > 0)
        if seat.bucket:
            mask |= 1 << seat.bucket
    assert pool.mask == mask
    assert set(pool.idle) | set(pool.lean) <= set(pool.seats)
    assert not (pool.waiting and (pool.idle or pool.lean)), "work waits though an engine could take it"


def _check_teams(brain: "Brain", bundles: dict[int, Bundle]) -> None:
    teams = brain.queues.teams
    assert not teams.restless
    for engine in brain.registry.engines.values():
        team = engine.team
        if isinstance(team, Draft):
            assert team is team.pool.draft and team.pool in teams.pools.values() and engine in team.engines
        elif team is not None:
            assert team.seat.n > 0 and engine in team.members
            assert team.root.team is team
            assert team.seat.n == sum(part.stop - part.start for part in team.root.sent if part.seat is team.seat)
    assert set(teams.drafts) == {pool.draft for pool in teams.pools.values() if pool.draft is not None}
    for age, draft in enumerate(teams.drafts):
        for engine in draft.engines:
            kept_by_younger = engine.team in teams.drafts[age + 1 :] and draft.pool.admits(engine, math.inf)
            assert not kept_by_younger, "drafts could wait for each other"
    for key, pool in teams.pools.items():
        assert key == (pool.n_ranks, pool.eligible, pool.needs_s, pool.demand)
        waiting = [part for line in pool.turns for part in line.waiting() if part.start < part.stop]
        assert pool.waiting == sum(part.stop - part.start for part in waiting), pool
        for part in waiting:
            assert part.bundle.pool is pool and part in part.bundle.parts
            bundles[id(part.bundle)] = part.bundle
        assert pool.waiting or pool.draft is None, "engines are kept from work for nothing"
        if pool.waiting and not pool.needs_s:
            for place in places_of(brain.registry.groups.values()):
                free = [e for e in place.engines if pool.admits(e, 0.0) and _could_serve(e, pool)]
                assert len(free) < pool.n_ranks or not place.is_one_host, "a team waits though there are engines for it"


def _could_serve(engine: Engine, pool: TeamPool) -> bool:
    if engine.team is None:
        return engine.shelf is Shelf.IDLE
    return isinstance(engine.team, Draft) and engine.team.pool is pool and is_free(engine, engine.team)


def _check_registry(brain: "Brain") -> None:
    registry = brain.registry
    ids: set[int] = set()
    for name, group in registry.groups.items():
        assert group.name == name
        block = set(range(group.base, group.base + group.size))
        assert not ids & block and group.base + group.size <= registry.next_id
        ids |= block
        assert group.n_ready == sum(e.ready and not e.lost for e in group.members.values())
        for rank, engine in group.members.items():
            assert engine.group is group and engine.id == group.base + rank and engine.info.rank == rank
            assert engine.lost == (registry.engines.get(engine.id) is not engine)
        if group.n_ready == group.size and not group.doomed:
            assert group.visible
    for number, engine in registry.engines.items():
        assert engine.id == number and registry.by_uuid[engine.info.uuid] is engine
        assert engine.group.members[engine.info.rank] is engine
        assert number not in registry.ends
