"""What an engine does when, as the end of its allocation comes near (docs/protocol.md, 5.7). It has no clock."""

import math
import signal
import time
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from hpc.engine.walltime import Allocation
from hpc.wire.messages import EndReason, Goodbye

# Schedulers that take nodes back send SIGTERM, and SIGKILL later: PBS after 10 s by default, Slurm after 30 s; but an
# mpirun in between may do so after one second. So tasks get little of that time, to leave some for the hooks.
TERM_GRACE_S: Final = 5.0
TERM_TASKS_S: Final = 0.3
# Nearer to the end than this a signal is about the end; farther away the scheduler wants its nodes for somebody else.
# Job scripts ask for SIGUSR1 minutes before the end, and Slurm may send it a minute early.
NEAR_S: Final = {signal.SIGUSR1: 900.0, signal.SIGTERM: 120.0}
# The last of the notice is for saying goodbye, whatever the hooks do: this share, but at most so many seconds.
GOODBYE_SHARE: Final = 0.25
GOODBYE_S: Final = 3.0


class Step(IntEnum):
    """What is due: give notice; end what still runs; go, whatever still runs."""

    NONE = 0
    NOTICE = 1
    LAST_CALL = 2
    OVER = 3


class Departure:
    """The way out. The control thread asks what is due; times are seconds since the epoch.

    Tasks that run may go on for the first half of the notice, the rest is for what was registered by `hpc.on_walltime`.
    """

    def __init__(self, allocation: Allocation) -> None:
        self.end = allocation.end
        self.why = EndReason.WALLTIME
        self.step = Step.NONE
        self.of_scheduler = allocation.of_scheduler
        self._notice_s = allocation.notice_s
        self._notice_at = self.end - self._notice_s
        self._last_call_at = self.end - self._notice_s / 2

    def __repr__(self) -> str:
        end = time.strftime("%H:%M:%S", time.localtime(self.end)) if self.end < math.inf else "never"
        return f"<Departure {self.step.name}, {self.why.name} at {end}>"

    def __str__(self) -> str:
        if self.why is EndReason.PREEMPTED:
            return "left because its job was preempted, or told to end"
        return f"left at the end of its allocation, {time.strftime('%H:%M:%S', time.localtime(self.end))}"

    @property
    def given(self) -> bool:
        """Whether notice was given: from then on there is no way back."""
        return self.step is not Step.NONE

    def signalled(self, signum: signal.Signals, now: float) -> None:
        """Take note of a signal that announces the end: the notice is due now."""
        if self.given:
            return
        near = self.end - now < NEAR_S[signum]
        if not near and (signum == signal.SIGTERM or self.end < math.inf):
            self.why = EndReason.PREEMPTED
        self._notice_at = now
        if signum == signal.SIGTERM:
            self.end, self._notice_s = now + TERM_GRACE_S, TERM_GRACE_S
            self._last_call_at = now + TERM_TASKS_S
        elif not near:
            self.end = now + self._notice_s
            self._last_call_at = now + self._notice_s / 2
        # Else tasks may go on for as long as the controller was told that they may.

    def goodbye(self, reason: str, troubles: Sequence[str] = ()) -> Goodbye:
        """Return what the engine says when it leaves, for a reason that counts if no notice was given."""
        return Goodbye("; ".join((str(self), *troubles)), self.why) if self.given else Goodbye(reason)

    def times(self) -> tuple[float, float, float]:
        """Return when notice, last call and the goodbye are due at the latest."""
        goodbye_s = min(GOODBYE_S, GOODBYE_SHARE * self._notice_s)
        return self._notice_at, self._last_call_at, self.end - goodbye_s

    def wait_s(self, now: float) -> float:
        """Return in how many seconds the next step is due, infinity if there is none."""
        return math.inf if self.step is Step.OVER else self.times()[self.step] - now

    def next(self, now: float) -> Step:
        """Go on by one step, if it is due, and return it; else NONE."""
        if self.wait_s(now) > 0:
            return Step.NONE
        self.step = Step(self.step + 1)
        return self.step
