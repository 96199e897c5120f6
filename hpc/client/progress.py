"""A bar for transfers that take long, while their caller waits.

What is shown is what is known: the bytes of the tasks that the engines have answered. A transfer to one engine goes
from 0 to 100 per cent in one step; the rate and the route are right all the same.
"""

import time
from typing import Any, Final

from hpc.client.asyncresult import AsyncResult
from hpc.client.outcome import Reply

SHOW_AFTER_S: Final = 1.0
TICK_S: Final = 0.2
# What is smaller waits for something else: an engine that is busy.
MIN_NBYTES: Final = 8 * 1024 * 1024


def follow(result: AsyncResult, started: float) -> None:
    """Wait for a result; show a bar if it is large data that takes more than a second.

    Parameters
    ----------
    started
        When the transfer began, by `time.monotonic`.
    """
    if result.wait(max(0.0, started + SHOW_AFTER_S - time.monotonic())):
        return
    bar = None
    try:
        while True:
            ended = result.wait(TICK_S)
            total, done, route = measure(result)
            if bar is None and total >= MIN_NBYTES:
                bar = _bar(result, total, started)
            if bar is not None:
                bar.total = max(total, bar.total)
                bar.set_postfix_str(f"{done / 1e9 / max(1e-9, time.monotonic() - started):.2f} GB/s, {route}", False)
                bar.update(done - bar.n)
            if ended:
                return
    finally:
        if bar is not None:
            bar.close()


def measure(result: AsyncResult) -> tuple[int, int, str]:
    """Return how many bytes there are, how many of them have arrived, and their route.

    Of what comes from the engines only that is known which is here already.
    """
    slots = list(result._slots())
    replies = {id(o): o for _, o, _ in slots if isinstance(o, Reply)}.values()
    ended = sum(outcome is not None for _, outcome, _ in slots)
    outward = sum(mark.nbytes for mark in result._marks())
    inward = sum(len(buffer) for reply in replies for buffer in reply.frames[1:])
    done = outward * ended // max(1, len(slots)) + inward
    return outward + inward * len(slots) // max(1, ended), done, result._route(next(iter(replies), None))


def _bar(result: AsyncResult, total: int, started: float) -> Any:
    from tqdm.auto import tqdm

    bar = tqdm(
        desc=result._name,
        total=total,
        unit="B",
        unit_scale=True,
        leave=False,
        disable=None,  # where the output is no terminal
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}, {postfix}]",
    )
    # It began before it was shown.
    bar.start_t = time.time() - (time.monotonic() - started)
    return bar
