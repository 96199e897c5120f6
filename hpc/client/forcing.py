"""Ending tasks that run, whatever they do."""

from typing import TYPE_CHECKING, Final

from hpc.client.restart import restart
from hpc.errors import HpcError, ranges
from hpc.wire import messages as m

if TYPE_CHECKING:
    from hpc.client.asyncresult import AsyncResult

# Code that goes on after one interrupt (an `except` that is too broad) may end by the next.
REPEAT_S: Final = 1.0
# Ranks that are known to wait in MPI for what will not come hear no interrupt.
STALLED_S: Final = 0.2
# What has ended by force is reported within this.
REPORT_S: Final = 10.0
RESTART_S: Final = 60.0


def end_by_force(result: "AsyncResult", grace_s: float) -> None:
    """Interrupt the tasks of a result until they end; after ``grace_s`` give their engines new processes."""
    link = result._link
    open_ = result._open()
    with link.lock:
        for bundle, start, stop in open_:
            bundle.forced |= {*range(start, stop)} & {number - bundle.first for number in result._numbers()}
    result.abort()
    left_s = STALLED_S if result._stall is not None else grace_s
    while True:
        for bundle, start, stop in open_:
            link.order(m.Interrupt([], first=bundle.first, start=start, stop=stop))
        if link.wait(result.done, min(left_s, REPEAT_S)):
            return
        left_s -= REPEAT_S
        if left_s <= 0:
            break
    holders = _holders(result)
    if holders:
        try:
            restart(link, holders, RESTART_S)
        except HpcError as error:
            raise HpcError(
                f"engines {ranges(holders)} hear no interrupt, and nothing else can be done: {error}"
            ) from None
    if not link.wait(result.done, REPORT_S):
        raise TimeoutError(f"{result!r} has not ended {REPORT_S:g} s after its engines were given new processes")


def _holders(result: "AsyncResult") -> list[int]:
    """Return the engines that run its tasks."""
    found: set[int] = set()
    for bundle, start, stop in result._open():
        arguments = {"first": bundle.first, "start": start, "stop": stop}
        found.update(result._link.request(lambda number, a=arguments: m.Query(number, "holders", a)))  # type: ignore[misc]
    return sorted(found)
