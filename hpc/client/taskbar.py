"""A bar that shows how many tasks have ended, while a person waits for them."""

import time
from concurrent.futures import ALL_COMPLETED
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpc.client.asyncresult import AsyncResult


def watch_tasks(
    result: "AsyncResult", interval: float, timeout: float | None = None, return_when: str = ALL_COMPLETED
) -> None:
    """Wait for a result, and show meanwhile how many of its tasks have ended.

    Parameters
    ----------
    interval : float
        Seconds between two looks.
    return_when : str
        A constant of `concurrent.futures`: ``FIRST_EXCEPTION`` ends the wait when a task has failed.
    """
    from tqdm.auto import tqdm

    deadline = None if timeout is None else time.monotonic() + timeout
    with tqdm(desc=result._name or "tasks", total=len(result), unit="task", disable=None) as bar:
        while True:
            left_s = interval if deadline is None else max(0.0, min(interval, deadline - time.monotonic()))
            if return_when == ALL_COMPLETED:
                over = result.wait(left_s)
            else:
                _, pending = result.wait(left_s, return_when)
                over = not pending or (result.progress and _is_over(result, return_when))
            bar.update(result.progress - bar.n)
            if over or (deadline is not None and time.monotonic() >= deadline):
                return


def _is_over(result: "AsyncResult", return_when: str) -> bool:
    """Say whether enough tasks have ended, or ended in the way that is waited for."""
    ended = [part for part in result.split() if part.done()]
    return bool(ended) if return_when == "FIRST_COMPLETED" else any(part.exception() is not None for part in ended)
