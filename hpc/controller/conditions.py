"""Tasks with a condition (`hpc.depend`, `hpc.require`) that only an engine can tell whether it is met there.

Tasks of one condition wait in one pool. An engine that declines one leaves that pool for a while, so that it is not
asked for each of them; when all engines have declined a task there is nobody left who could take it.
"""

from typing import TYPE_CHECKING, Final

from hpc.controller import patience
from hpc.controller.engines import Engine
from hpc.controller.timers import Alarm
from hpc.wire import messages as m

if TYPE_CHECKING:
    from hpc.controller.balance import Pool
    from hpc.controller.queues import Queues

# What an engine says of a condition is believed for so long: it may change with every name that is bound there.
BELIEVED_S: Final = 1.0


class Refusal:
    """What an engine said of the condition of a pool, and when."""

    __slots__ = ("when", "why")

    def __init__(self, when: float, why: str) -> None:
        self.when, self.why = when, why

    def __repr__(self) -> str:
        return f"<Refusal at {self.when:g}: {self.why}>"


def declined(queues: "Queues", engine: Engine, message: m.Declined, now: float) -> None:
    """Queue again what an engine may not run, for the others."""
    start, stop, seat = message.start, message.stop, None
    for part in tuple(engine.sent):
        low, high = max(start, part.start), min(stop, part.stop)
        if low < high and part.seat is not None and part.bundle.is_named(message.client, message.first):
            seat = part.seat
            queues.give_back(engine, m.Revoked(message.client, message.first, low, high))
    if seat is None:
        return
    pool = seat.pool
    if pool.seats.get(engine.id) is seat:
        queues.pools.unseat(seat)
    pool.refused[engine.id] = Refusal(now, message.why)
    if not queues.timers.is_set(Alarm.ASK, pool):
        queues.timers.set(now + BELIEVED_S, Alarm.ASK, pool)
    seat.refile()
    forsake(queues, pool, now)
    queues.pump(pool, now)
    queues.refill(engine, now)


def forsake(queues: "Queues", pool: "Pool", now: float) -> None:
    """See what becomes of the work of a pool that may have lost its last engine."""
    if not pool.forsaken:
        return
    newest = max((part.bundle.since for line in pool.lines.values() for part in line.waiting()), default=now)
    # What was said before the latest of the tasks was there was not said of it.
    if not _ask(queues, pool, newest, now):
        patience.strand(queues, pool, now)


def ask_again(queues: "Queues", pool: "Pool", now: float) -> None:
    """Give engines that declined another chance."""
    _ask(queues, pool, now, now)
    queues.pump(pool, now)


def _ask(queues: "Queues", pool: "Pool", before: float, now: float) -> bool:
    """Take engines that declined before some time back into the pool; say whether there are any."""
    old = [number for number, refusal in pool.refused.items() if refusal.when < before]
    for number in old:
        del pool.refused[number]
        engine = queues.registry.engines.get(number)
        if engine is not None and engine.visible:
            queues.pools.seat(engine, pool, now)
    return bool(old) and bool(pool.seats)
