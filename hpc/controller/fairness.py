"""Fair shares: what comes anew is not to wait behind all that was sent to the engines before it was there.

In a pool clients take turns. But pieces of tasks of unknown length can turn out to take minutes; when others are waiting,
what has not begun of them is asked back, and takes its turn with the rest.
"""

from typing import TYPE_CHECKING, Final

from hpc.controller.bundles import Bundle

if TYPE_CHECKING:
    from hpc.controller.balance import Pool
    from hpc.controller.queues import Queues

# An engine that is expected to be through sooner is left alone: asking takes time, too.
BACKLOG_S: Final = 0.05
# How many engines are asked at a time.
MAX_ASKED: Final = 16


def make_room(queues: "Queues", pool: "Pool", bundle: Bundle) -> None:
    """Ask engines for what they have not begun of others' work, or of less urgent work, for a bundle that waits."""
    wanted = min(bundle.count, MAX_ASKED)
    # Each engine that is asked leaves the buckets of those that can be asked.
    while wanted and (seat := pool.richest()) is not None:
        engine = seat.engine
        last = engine.sent[-1].bundle
        if last.client is bundle.client and last.priority >= bundle.priority:
            return
        others = [
            part
            for part in engine.sent
            if part.seat is seat and (part.bundle.client is not bundle.client or part.bundle.priority < bundle.priority)
        ]
        if not others or engine.backlog_s < BACKLOG_S:
            return
        head = engine.sent[0]
        for part in others:
            start = part.start + (part is head)
            if start < part.stop:
                queues.recall(engine, part.bundle, start, part.stop, seat)
        if not seat.recalls:
            return
        wanted -= 1
