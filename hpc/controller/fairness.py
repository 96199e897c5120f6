"""Fair shares: what comes anew is not to wait behind all that was sent to the engines before it was there.

In a pool clients take turns. But pieces of tasks of unknown length can turn out to take minutes; when others are
waiting, what has not begun of them is asked back, and takes its turn with the rest.
"""

from itertools import chain, islice
from typing import TYPE_CHECKING, Final

from hpc.controller.bundles import Bundle
from hpc.controller.timers import Alarm

if TYPE_CHECKING:
    from hpc.controller.balance import Pool, Seat
    from hpc.controller.queues import Queues

# An engine that is expected to be through sooner is left alone: asking takes time, too.
BACKLOG_S: Final = 0.05
# How many engines are asked at a time.
MAX_ASKED: Final = 16
# Engines that are at the same piece for so long while others wait were expected to be quicker than they are.
LOOK_S: Final = 0.05


def make_room(queues: "Queues", pool: "Pool", bundle: Bundle, now: float) -> None:
    """Ask engines for what they have not begun of others' work, or of less urgent work, for a bundle that waits."""
    wanted = min(bundle.count, MAX_ASKED)
    # Each engine that is asked leaves the buckets of those that can be asked.
    while wanted and (seat := pool.richest()) is not None:
        last = seat.engine.sent[-1].bundle
        if last.client is bundle.client and last.priority >= bundle.priority:
            return
        if not queues.timers.is_set(Alarm.ROOM, pool):
            pool.heads = {seat.engine.id: seat.engine.sent[0] for seat in _rich(pool)}
            queues.timers.set(now + LOOK_S, Alarm.ROOM, pool)
        if seat.engine.backlog_s < BACKLOG_S or not _ask_back(queues, seat, bundle):
            return
        wanted -= 1


def look(queues: "Queues", pool: "Pool", now: float) -> None:
    """Ask engines that have got stuck, against expectation, in the work of one client while another waits."""
    waiting = [line.parts[0].bundle for line in islice(pool.lines.values(), MAX_ASKED) if line.parts]
    if not waiting:
        return
    before, pool.heads = pool.heads, {}
    for seat in _rich(pool):
        engine = seat.engine
        head = pool.heads[engine.id] = engine.sent[0]
        if before.get(engine.id) is head:
            any(_ask_back(queues, seat, bundle) for bundle in waiting)
    queues.timers.set(now + LOOK_S, Alarm.ROOM, pool)


def _rich(pool: "Pool") -> "list[Seat]":
    """Return seats that something can be asked back from, if not all of them."""
    return list(islice(chain.from_iterable(bucket.values() for bucket in reversed(pool.buckets[1:])), 4 * MAX_ASKED))


def _ask_back(queues: "Queues", seat: "Seat", bundle: Bundle) -> bool:
    engine = seat.engine
    head = engine.sent[0]
    for part in tuple(engine.sent):
        other = part.bundle
        if part.seat is seat and (other.client is not bundle.client or other.priority < bundle.priority):
            start = part.start + (part is head)
            if start < part.stop:
                queues.recall(engine, other, start, part.stop, seat)
    return seat.recalls > 0
