"""A bar for transfers that take long, while their caller waits.

What is shown is what is known: the bytes that this process has moved, whether it copies them into shared memory or its
peers fetch them, and those of the tasks that engines have answered. What an engine writes to shared memory for this
process is seen when it answers.
"""

import threading
import time
from types import TracebackType
from typing import Any, Final

from hpc.client.asyncresult import AsyncResult
from hpc.client.outcome import Reply
from hpc.transport.meter import meter

SHOW_AFTER_S: Final = 1.0
TICK_S: Final = 0.2
# What is smaller waits for something else: an engine that is busy.
MIN_NBYTES: Final = 8 * 1024 * 1024


class Transfer:
    """One transfer from its beginning to its end, as a context; `follow` waits for its result.

    Parameters
    ----------
    name
        What the bar says.
    nbytes
        How large the data is, as far as that is known at the beginning.
    is_shown
        Whether to show a bar at all.
    """

    def __init__(self, name: str, nbytes: int = 0, *, is_shown: bool = True) -> None:
        self._name, self._nbytes, self._is_shown = name, nbytes, is_shown
        self.started = time.monotonic()
        self._due = self.started + SHOW_AFTER_S
        self._expected, self._moved = meter.expected, meter.moved
        self._result: AsyncResult | None = None
        self._bar: Any = None
        self._drawing = threading.Lock()

    def __repr__(self) -> str:
        return f"<Transfer {self._name}, {meter.moved - self._moved} bytes moved>"

    def __enter__(self) -> "Transfer":
        if self._is_shown:
            meter.watchers.append(self._look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_shown:
            meter.watchers.remove(self._look)
        with self._drawing:
            if self._bar is not None:
                self._bar.close()

    def follow(self, result: AsyncResult) -> None:
        """Wait for a result, if its progress is to be shown."""
        self._result = result
        if not self._is_shown or result.wait(max(0.0, self._due - time.monotonic())):
            return
        while not result.wait(TICK_S):
            self._draw()
        self._draw()

    def measure(self) -> tuple[int, int, str]:
        """Return how many bytes there are, how many of them are done, and their route if it is known."""
        expected, moved = meter.expected - self._expected, meter.moved - self._moved
        total, done, route = (0, 0, "") if self._result is None else _answered(self._result)
        total = max(total, expected, self._nbytes)
        return total, min(total, max(done, moved)), route or (meter.route if expected else "")

    def _look(self) -> None:
        """Draw if it is time to; a thread that moves bytes calls this, often."""
        if time.monotonic() >= self._due:
            self._draw()

    def _draw(self) -> None:
        if not self._drawing.acquire(blocking=False):
            return  # another thread is at it
        try:
            self._due = time.monotonic() + TICK_S
            total, done, route = self.measure()
            if self._bar is None and total >= MIN_NBYTES:
                self._bar = _new_bar(self._name, total, self.started)
            if self._bar is not None:
                self._bar.total = max(total, self._bar.total)
                rate = f"{done / 1e9 / (time.monotonic() - self.started):.2f} GB/s"
                self._bar.set_postfix_str(f"{rate}, {route}" if route else rate, False)
                self._bar.update(done - self._bar.n)
        finally:
            self._drawing.release()


def _answered(result: AsyncResult) -> tuple[int, int, str]:
    """Return how many bytes there are by what engines have answered, how many those are, and their route."""
    slots = list(result._slots())
    replies = {id(o): o for _, o, _ in slots if isinstance(o, Reply)}.values()
    ended = sum(outcome is not None for _, outcome, _ in slots)
    outward = sum(mark.nbytes for mark in result._marks())
    inward = sum(len(buffer) for reply in replies for buffer in reply.frames[1:])
    done = outward * ended // max(1, len(slots)) + inward
    return outward + inward * len(slots) // max(1, ended), done, result._route(next(iter(replies), None))


def _new_bar(name: str, total: int, started: float) -> Any:
    from tqdm.auto import tqdm

    bar = tqdm(
        desc=name,
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
