"""Stealing: what busy engines have not begun goes to those that idle."""

from typing import TYPE_CHECKING

from hpc.controller.balance import STUCK_S, WORTH_STEALING_S, Pool
from hpc.controller.timers import Alarm

if TYPE_CHECKING:
    from hpc.controller.queues import Queues


def steal(queues: "Queues", pool: Pool, now: float, whatever_it_takes: bool = False) -> bool:
    """Take half of what the richest engine of a pool has not begun back, for one that idles.

    Work that is expected to be over sooner than it could be moved stays, but only so long: an alarm asks again.
    """
    seat = pool.richest()
    if seat is None:
        return False
    engine = seat.engine
    if not whatever_it_takes and engine.backlog_s < WORTH_STEALING_S:
        if not queues.timers.is_set(Alarm.STUCK, pool):
            queues.timers.set(now + STUCK_S, Alarm.STUCK, pool)
        return False
    sent = engine.sent
    head = sent[0]
    part = next(part for part in reversed(sent) if part.seat is seat)
    not_begun = seat.n - (head.seat is seat)
    low = part.start + (part is head)
    start = max(low, part.stop - (not_begun + 1) // 2)
    queues.recall(engine, part.bundle, start, part.stop, seat)
    return True


def stuck(queues: "Queues", pool: Pool, now: float) -> None:
    """Steal from engines that were expected to be done by now, while others idle."""
    if pool.waiting or not pool.idle or not pool.mask:
        return
    for _ in range(min(len(pool.idle), 16)):
        if not steal(queues, pool, now, whatever_it_takes=True):
            break
    if pool.mask:
        queues.timers.set(now + STUCK_S, Alarm.STUCK, pool)
