"""Tasks that cannot be given to any engine, or wait for other tasks: for how long, and what is said in the end.

Who says nothing gets an error at once where none can come any more that may take the task; where engines lack what is
asked for, others may just be starting, so that the error comes a little later.
"""

import math
from typing import TYPE_CHECKING, Any, Final

from hpc.controller import dependencies
from hpc.controller.bundles import Bundle, Part
from hpc.controller.timers import Alarm
from hpc.wire import messages as m

if TYPE_CHECKING:
    from hpc.controller.balance import Pool
    from hpc.controller.queues import Queues

# How long a task waits for an engine that has what it asks for, unless its client says how long.
STRANDED_S: Final = 10.0


def begin(queues: "Queues", bundle: Bundle, now: float) -> None:
    """Note until when a new bundle may wait."""
    options = bundle.options
    if options is None:
        return
    bundle.since = bundle.give_up_at = now
    if options.timeout_s >= 0:
        bundle.give_up_at = now + options.timeout_s
        if options.timeout_s < math.inf and (options.after is not None or options.follow is not None):
            queues.timers.set(bundle.give_up_at, Alarm.PATIENCE, bundle)
    elif options.resources or options.labels:
        bundle.give_up_at = now + STRANDED_S


def strand(queues: "Queues", pool: "Pool", now: float) -> None:
    """End what waits in a pool that has no engines, as far as its time is up; see to it that the rest is, in time."""
    for bundle in dict.fromkeys(part.bundle for part in _waiting(pool)):
        if bundle.give_up_at > now:
            if bundle.give_up_at < math.inf:
                queues.timers.set(bundle.give_up_at, Alarm.PATIENCE, bundle)
        else:
            _give_up(queues, bundle, pool)


def over(queues: "Queues", bundle: Bundle, now: float) -> None:
    """End a bundle whose time to wait is up, if it still waits."""
    pool = bundle.pool
    if bundle.hold is not None:
        dependencies.drop(queues, bundle, m.EndReason.TIMEOUT, f"{bundle.hold.reason()}, and {_said(bundle)}")
    elif pool is not None and not pool.seats and pool.is_choosy:
        if pool.eligible is None and next(queues.registry.visible(), None) is None:
            # There is nobody yet: that says nothing about the task.
            queues.timers.set(now + STRANDED_S, Alarm.PATIENCE, bundle)
        else:
            _give_up(queues, bundle, pool)


def _give_up(queues: "Queues", bundle: Bundle, pool: "Pool") -> None:
    detail = f"{pool.why_forsaken}; {queues.registry.describe_ids()}"
    reason = m.EndReason.DEPENDENCY if pool.refused else m.EndReason.NO_ENGINES
    if bundle.options is not None and bundle.options.timeout_s >= 0:
        reason, detail = m.EndReason.TIMEOUT, f"{detail}; {_said(bundle)}"
    n = 0
    for part in sorted((part for part in bundle.parts if not part.sent), key=lambda part: part.start):
        bundle.parts.remove(part)
        start, part.start = part.start, part.stop  # an empty part, which the queue skips
        n += part.stop - start
        queues.end(bundle, start, part.stop, reason, detail)
    if n:
        pool.withdraw(n)


def _said(bundle: Bundle) -> str:
    timeout_s = bundle.options.timeout_s if bundle.options is not None else 0.0
    return f"it may wait for {timeout_s:g} s (timeout)"


def _waiting(pool: "Pool") -> list[Part]:
    return [part for line in pool.lines.values() for part in line.waiting() if part.start < part.stop]


def stranded(queues: "Queues") -> list[dict[str, Any]]:
    """Describe the work that waits because no engine has what it asks for, and why."""
    return [
        {"tasks": pool.waiting, "why": pool.why_forsaken}
        for pool in queues.pools.restricted.values()
        if pool.is_choosy and pool.waiting and not pool.seats
    ]
