"""When the allocation that this process runs in ends, as far as its environment says."""

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

# Seconds before the end at which an engine prepares to leave, unless `NOTICE` says otherwise or the job is short.
NOTICE_S: Final = 60.0
NOTICE_SHARE: Final = 0.1
# Both in seconds; the first since the epoch. Our own name comes first: a script knows better than the scheduler.
ENDS: Final = ("HPC_WALLTIME_END", "SLURM_JOB_END_TIME")
NOTICE: Final = "HPC_NOTICE_S"
# Who has one of these was started by a scheduler.
JOBS: Final = ("SLURM_JOB_ID", "PBS_JOBID")


@dataclass(frozen=True, slots=True)
class Allocation:
    """What is known of the end: ``end`` in seconds since the epoch, infinite if there is none to be seen.

    ``of_scheduler`` says whether a scheduler started this process, so that SIGTERM means that it takes the nodes back.
    ``trouble`` is what could not be understood.
    """

    end: float = math.inf
    notice_s: float = NOTICE_S
    of_scheduler: bool = False
    trouble: str = ""


ENDLESS: Final = Allocation()


def find_allocation(environ: Mapping[str, str], now: float) -> Allocation:
    """Return what a process knows of its allocation that starts at ``now`` (seconds since the epoch)."""
    trouble: list[str] = []
    ends = [_seconds(environ, name, trouble) for name in ENDS]
    end = next((end for end in ends if end), math.inf)
    notice_s = _seconds(environ, NOTICE, trouble) or min(NOTICE_S, NOTICE_SHARE * max(0.0, end - now))
    of_scheduler = end < math.inf or any(environ.get(name) for name in JOBS)
    return Allocation(end, notice_s, of_scheduler, "; ".join(trouble))


def time_left() -> float:
    """Return the seconds until the allocation that this process runs in ends, infinity if nothing says that it will.

    Inside a task it is what the engine knows, which includes that it was told to leave. Elsewhere, in a job script's
    own program say, it is what ``HPC_WALLTIME_END`` or ``SLURM_JOB_END_TIME`` says.
    """
    from hpc.engine import current

    departure = current.departure
    now = time.time()
    end = find_allocation(os.environ, now).end if departure is None else departure.end
    return max(0.0, end - now)


def _seconds(environ: Mapping[str, str], name: str, trouble: list[str]) -> float:
    text = environ.get(name, "")
    try:
        seconds = float(text or 0)
    except ValueError:
        seconds = -1.0
    if 0 <= seconds < math.inf:
        return seconds
    trouble.append(f"{name}={text!r} is no number of seconds and is not regarded")
    return 0.0
