"""Job scripts for Slurm, PBS and machines without a scheduler: write, submit, follow and end jobs.

>>> from jobscripts import JobSpec, get_scheduler
>>> spec = JobSpec(command=("python", "analysis.py"), nodes=4, ranks_per_node=32, walltime="2:00:00")
>>> print(get_scheduler("slurm").script(spec))           # doctest: +SKIP

Standard library only; knows nothing of what the jobs do.
"""

import os
from collections.abc import Mapping

from jobscripts.errors import JobScriptError, QueryError, SchedulerError, SpecError
from jobscripts.launch import Launch, launch_line
from jobscripts.mpiexec import Mpiexec
from jobscripts.pbs import Pbs
from jobscripts.runner import Job, Runner
from jobscripts.scheduler import DryRun, Output, Scheduler
from jobscripts.sites import Profile
from jobscripts.slurm import Slurm
from jobscripts.spec import JobSpec
from jobscripts.states import JobStatus, State
from jobscripts.torque import Torque

__all__ = [
    "DryRun",
    "Job",
    "JobScriptError",
    "JobSpec",
    "JobStatus",
    "Launch",
    "Output",
    "Profile",
    "QueryError",
    "Runner",
    "Scheduler",
    "SchedulerError",
    "SpecError",
    "State",
    "detect",
    "get_scheduler",
    "launch_line",
]

_SCHEDULERS: dict[str, type[Scheduler]] = {"slurm": Slurm, "pbs": Pbs, "torque": Torque, "mpiexec": Mpiexec}


def get_scheduler(name: str) -> Scheduler:
    """Return the dialect called ``slurm``, ``pbs`` (PBS Pro, OpenPBS), ``torque`` or ``mpiexec`` (no scheduler).

    Raises
    ------
    SpecError
        There is none of this name.
    """
    if name not in _SCHEDULERS:
        raise SpecError("scheduler", f"there is none called {name!r}; there are: {', '.join(_SCHEDULERS)}")
    return _SCHEDULERS[name]()


def detect(environ: Mapping[str, str] | None = None) -> Scheduler:
    """Return the scheduler whose programs are on PATH; `Mpiexec` if there is none.

    PBS and Torque have the same programs; only PBS has ``pbs_tmrsh`` and its configuration in ``/etc/pbs.conf``.
    """
    environ = os.environ if environ is None else environ
    if not Slurm().missing(environ):
        return Slurm()
    if not Pbs().missing(environ):
        is_pbs = "PBS_EXEC" in environ or "PBS_CONF_FILE" in environ or os.path.exists("/etc/pbs.conf")
        return Pbs() if is_pbs else Torque()
    return Mpiexec()
