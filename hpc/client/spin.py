"""Looking for an answer again and again for a moment before blocking: where a core is free, that saves a wake-up."""

import os
import time
from collections.abc import Callable
from typing import Any, Final

# No longer than a few round trips on one host.
LONGEST_S: Final = 0.0003
# What is taken for the median of both ways before anything is known.
FIRST_S: Final = 0.0001
# One wait in so many goes the way that was slower lately, in case that has changed.
TRY_OTHER_EVERY: Final = 32
# By this factor an estimate moves with each observation, up or down: so it settles at the median, and a wait that was a
# hundred times longer, because a task was slow, counts as one that was longer.
STEP: Final = 1.125


class Spin:
    """Waits by spinning or by blocking, whichever was quicker lately.

    Which one is depends on what else runs: with an idle core, being woken up on it takes longer than all that the
    controller does; on a busy machine spinning keeps the core from those who make the answer. Both are measured.
    """

    def __init__(self) -> None:
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        self.able = len(cores) > 1
        self._spun_s = self._blocked_s = FIRST_S
        self._n = 0

    def __repr__(self) -> str:
        return f"<Spin {1e6 * self._spun_s:.0f} us if spun, {1e6 * self._blocked_s:.0f} us if blocked>"

    def wait(self, poll: Callable[[int | None], list[Any]], timeout_ms: int | None) -> list[Any]:
        """Return what ``poll`` gives, which takes its own time limit in milliseconds."""
        clock = time.perf_counter
        start = clock()
        self._n += 1
        spin = self._spun_s <= self._blocked_s
        if self._n % TRY_OTHER_EVERY == 0:
            spin = not spin
        elif spin and self._spun_s > LONGEST_S:
            spin = False
        if not spin:
            events = poll(timeout_ms)
            self._blocked_s = nearer(self._blocked_s, clock() - start)
            return events
        give_up = start + LONGEST_S
        while not (events := poll(0)):
            if clock() > give_up:
                events = poll(timeout_ms)
                break
            os.sched_yield()
        self._spun_s = nearer(self._spun_s, clock() - start)
        return events


def nearer(median_s: float, observed_s: float) -> float:
    """Return an estimate of a median after one more observation."""
    return median_s * STEP if observed_s > median_s else median_s / STEP
