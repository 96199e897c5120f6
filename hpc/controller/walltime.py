"""Engines whose allocation ends: what they are still sent, and how they take their leave (docs/protocol.md, 5.7).

Tasks that say how long they take wait in pools of their own, in which an engine has a seat only as long as it has the
time for one of them. So the time is not asked for where work is handed out; an alarm does what time alone changes.
"""

import math
from collections.abc import Iterable
from typing import Final

from hpc.controller import conditions
from hpc.controller.balance import STUCK_S, Pool, Seat
from hpc.controller.engines import Engine, Farewell, Registry
from hpc.controller.events import Send
from hpc.controller.queues import Queues
from hpc.controller.timers import Alarm
from hpc.wire import messages as m

# Of these reasons a message may name one; every other is for the controller to find out.
REASONS: Final = (m.EndReason.WALLTIME, m.EndReason.PREEMPTED)
# What tasks may use of the notice; the rest is for saving what they made.
TASKS_SHARE: Final = 0.5


def time_left_s(info: m.EngineInfo, wall_s: float) -> float:
    """Return for how long tasks may run on an engine, when the time of day is ``wall_s`` seconds since the epoch."""
    if not info.deadline:
        return math.inf
    return info.deadline - (1 - TASKS_SHARE) * info.notice_s - wall_s


# ---------------------------------------------------------------- tasks that say how long they take


def run_short(queues: Queues, seat: Seat, now: float) -> None:
    """Take an engine out of a pool for whose tasks it has no time left, and ask for what it has not begun of them."""
    engine, pool = seat.engine, seat.pool
    if pool.seats.get(engine.id) is not seat:
        return
    if seat.recalls and engine.control_up:
        # An engine answers for what is asked of it now, not for what was asked before: wait for that answer.
        queues.timers.set(now + STUCK_S, Alarm.TIME, seat)
        return
    queues.pools.unseat(seat)
    _take_back(queues, engine, seat)
    conditions.forsake(queues, pool, now)


def short_of_time(registry: Registry, pools: Iterable[Pool], now: float) -> list[dict[str, float]]:
    """Describe the work that waits because no engine will be there for as long as it takes."""
    longest_s = max((engine.ends_at - now for engine in registry.visible() if not engine.stopping), default=0.0)
    return [
        {"tasks": pool.waiting, "expected_s": pool.needs_s, "longest_s": max(0.0, longest_s)}
        for pool in pools
        if pool.needs_s and pool.waiting and not pool.seats
    ]


# ---------------------------------------------------------------- engines that leave


def settle(queues: Queues, engine: Engine) -> None:
    """Go on with the leave of an engine: have it give back what it has not begun, then tell it that this is all.

    Call again when it has answered a recall. What only this engine can do it does, as far as it was sent.
    """
    if engine.recalls:
        return
    if engine.farewell is Farewell.NOTICED:
        engine.farewell = Farewell.ASKED
        _take_back(queues, engine, None)
        if engine.recalls:
            return
    if engine.farewell is Farewell.ASKED:
        engine.farewell = Farewell.TOLD
        # Behind all work that it was sent: what it finishes of that is reported before it leaves.
        queues.out.append(Send(engine.id, m.Stop("its allocation ends")))


def _take_back(queues: Queues, engine: Engine, seat: Seat | None) -> None:
    """Ask an engine for the load-balanced work of a seat, or of all, that it has not begun."""
    for part in tuple(engine.sent):
        if part.seat is not None and (seat is None or part.seat is seat):
            queues.recall(engine, part.bundle, part.start, part.stop, part.seat)
