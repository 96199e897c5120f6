"""Jobs of a cluster that no supervisor here looks after: submitted, and found again from any later session.

Each has a directory ``jobs/KEY`` in the user's private directory, with its script, its exit file, and ``job.json``.
"""

import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hpc.cluster import shapes
from hpc.cluster.options import ClusterOptions
from hpc.cluster.record import JOB_VARIABLE, free_name
from hpc.errors import HpcError
from hpc.security.folders import base_dir, private
from jobscripts import Job, JobSpec, JobStatus, Runner, Scheduler, State, get_scheduler

FILE: Final = "job.json"
# A cluster in jobs is usable this much later at most than its last job has started, unless options say otherwise.
LOOK_S: Final = 0.2
# After a controller was told to end its job ends by itself; what has not by then is cancelled.
LEAVE_S: Final = 10.0
CANCELLED_S: Final = 60.0


@dataclass(frozen=True)
class Submitted:
    """A job, the shape of what it runs, and the name of the cluster that it is of."""

    job: Job
    shape: str
    cluster: str
    directory: Path

    def __str__(self) -> str:
        return f"{self.job.scheduler} job {self.job.id}: {self.shape} of cluster {self.cluster!r}"

    def may_bring_a_controller(self) -> bool:
        """Say whether a controller is in it, and it has not ended by its own account."""
        return self.shape != "engines" and not self.job.exit_file.exists()

    def save(self) -> None:
        """Write it down where `entries` finds it."""
        fields = {"job": self.job.as_dict(), "shape": self.shape, "cluster": self.cluster}
        draft = self.directory / f".{FILE}.{os.getpid()}"
        draft.write_text(json.dumps(fields, indent=2) + "\n")
        draft.replace(self.directory / FILE)

    def forget(self) -> None:
        """Remove what was written down; outputs that stand elsewhere stay."""
        shutil.rmtree(self.directory, ignore_errors=True)


def entries(cluster: str = "") -> list[Submitted]:
    """Return all jobs of this user that have not been forgotten, or those of one cluster, the oldest first."""
    found = []
    for path in sorted(_folder().glob(f"*/{FILE}")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # half removed, or by another release
            fields = json.loads(path.read_text())
            found.append(Submitted(Job.from_dict(fields["job"]), fields["shape"], fields["cluster"], path.parent))
    chosen = [entry for entry in found if not cluster or entry.cluster == cluster]
    return sorted(chosen, key=lambda entry: entry.job.submitted_s)


def submit(scheduler: Scheduler, spec: JobSpec, *, shape: str, cluster: str) -> Submitted:
    """Submit a job that works, and whose output stands, in the current directory unless the spec says otherwise.

    Raises
    ------
    JobScriptError
        The spec cannot be expressed, or was not accepted.
    """
    here = Path.cwd()
    directory = private(_folder() / f"{cluster or shape}-{uuid.uuid4().hex[:8]}")
    name = spec.name or f"hpc-{cluster or shape}"
    output = spec.stdout or scheduler.default_stdout(str(here / f"{directory.name}.out"), spec)
    ours = spec.replace(
        name=name,
        workdir=spec.workdir or str(here),
        stdout=output,
        environment={**_where(), **spec.environment, JOB_VARIABLE: directory.name},
    )
    try:
        job = Runner(scheduler).submit(ours, directory)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    submitted = Submitted(job, shape, cluster, directory)
    submitted.save()
    return submitted


def _where() -> dict[str, str]:
    """Return what a job must know to look where we do: PBS hands on no variable by itself."""
    return {"HPC_DIR": str(base_dir().absolute())} if os.environ.get("HPC_DIR") else {}


def statuses(jobs: Sequence[Submitted]) -> dict[str, JobStatus]:
    """Return what is known now of each job, by its id: one query for each scheduler."""
    found: dict[str, JobStatus] = {}
    for name in sorted({entry.job.scheduler for entry in jobs}):
        runner = Runner(get_scheduler(name))
        found |= runner.poll([entry.job for entry in jobs if entry.job.scheduler == name], now=True)
    return found


def start(options: ClusterOptions, where: str) -> list[Submitted]:
    """Submit the job or jobs of a cluster whose controller runs ``where``: ``first-node``, or ``job`` of its own."""
    name, _ = free_name(options.name)
    if any(entry.may_bring_a_controller() for entry in entries(name)):
        raise FileExistsError(f"there are jobs of a cluster named {name!r}: end them with ipcluster stop --name {name}")
    plan = shapes.plan(options)
    if where == "first-node":
        plan = plan.resized(options.n)
        spec = plan.together(name=name, timeout_s=options.start_timeout_s)
        return [submit(plan.scheduler, spec, shape="together", cluster=name)]
    jobs = [submit(plan.scheduler, plan.controller(name=name), shape="controller", cluster=name)]
    try:
        spec = plan.engines(options.n, name=name, label=f"{options.launcher}-0")
        jobs.append(submit(plan.scheduler, spec, shape="engines", cluster=name))
    except BaseException:
        end(jobs)
        raise
    return jobs


def wait_usable(
    jobs: Sequence[Submitted],
    options: ClusterOptions,
    show: Callable[[str], None],
    given_up: Callable[[], bool] = lambda: False,
) -> str:
    """Wait until the engines of a cluster in jobs are registered, showing how the jobs stand; return its address.

    Raises
    ------
    HpcError
        A job has ended before, or the engines have not come in time after the last job had started.
    """
    from hpc.client import connect
    from hpc.errors import ConnectError

    runner = Runner(get_scheduler(jobs[0].job.scheduler))
    follow = _Follow(runner, jobs, show)
    rc = None
    try:
        while not given_up():
            started_s = follow.look()
            if rc is None and started_s:
                with contextlib.suppress(ConnectError):  # the controller is not there yet
                    rc = connect(jobs[0].cluster, timeout=LOOK_S)
            if rc is not None and len(rc) >= options.n:
                addresses: list[str] = rc.status()["controller"]["addresses"]
                return addresses[0].removeprefix("tcp://")
            if started_s and time.monotonic() - started_s > options.start_timeout_s:
                up = f"{len(rc)} of {options.n} engines" if rc is not None else "no controller"
                raise HpcError(
                    f"{up} {options.start_timeout_s:g} s after the jobs have started; see {jobs[-1].job.stdout}"
                )
            time.sleep(LOOK_S)
        raise HpcError("the start was given up")
    finally:
        if rc is not None:
            rc.close()


class _Follow:
    """Shows how jobs stand whenever that changes."""

    def __init__(self, runner: Runner, jobs: Sequence[Submitted], show: Callable[[str], None]) -> None:
        self._runner, self._jobs, self._show = runner, jobs, show
        self._said: dict[str, str] = {}
        self._started_s = 0.0

    def __repr__(self) -> str:
        return f"<_Follow of {len(self._jobs)} jobs>"

    def look(self) -> float:
        """Return when all jobs had started, on the monotonic clock; 0 if they have not."""
        found = self._runner.poll([entry.job for entry in self._jobs])
        for job_id, status in found.items():
            text = describe(status)
            if text != self._said.get(job_id):
                self._said[job_id] = text
                self._show(text)
            if status.state.final:
                stdout = next(entry.job.stdout for entry in self._jobs if entry.job.id == job_id)
                raise HpcError(f"{text}, before all engines were there; its output is in {stdout}")
        if not self._started_s and all(status.state is State.ACTIVE for status in found.values()):
            self._started_s = time.monotonic()
        return self._started_s


def describe(status: JobStatus) -> str:
    """Say in one line how a job stands, and when it is expected to start."""
    from hpc.cluster.jobs import clock

    text = f"job {status}"
    if status.state in (State.QUEUED, State.NEW, State.HELD) and status.start_s:
        text += f", expected to start {clock(status.start_s)}"
    if status.state is State.ACTIVE and status.nodes:
        text += f" on {', '.join(status.nodes)}"
    return text


def end(jobs: Sequence[Submitted], *, grace_s: float = 0.0) -> list[JobStatus]:
    """End jobs, wait until they have ended, forget them, and return how they ended.

    Those that run get ``grace_s`` to end by themselves.

    Raises
    ------
    HpcError
        They have not ended within a minute after they were cancelled.
    """
    ended: list[JobStatus] = []
    for name in sorted({entry.job.scheduler for entry in jobs}):
        runner = Runner(get_scheduler(name))
        mine = [entry for entry in jobs if entry.job.scheduler == name]
        found = runner.poll([entry.job for entry in mine], now=True)
        running = [entry.job for entry in mine if found[entry.job.id].state is State.ACTIVE]
        with contextlib.suppress(TimeoutError):
            runner.wait(running, timeout_s=grace_s)
        runner.cancel([entry.job for entry in mine])
        try:
            found = runner.wait([entry.job for entry in mine], _settled, timeout_s=CANCELLED_S)
        except TimeoutError as error:
            raise HpcError(f"cancelled, but {error}") from None
        for entry in mine:
            entry.forget()
        ended += found.values()
    return ended


def _settled(status: JobStatus) -> bool:
    """Say whether nothing is to be waited for: a job that was cancelled and that nobody knows is gone."""
    return status.state is State.UNKNOWN and not status.stale


def row(entry: Submitted, status: JobStatus) -> dict[str, Any]:
    """Return what lists show of a job."""
    return {
        "job": entry.job.id,
        "scheduler": entry.job.scheduler,
        "shape": entry.shape,
        "cluster": entry.cluster,
        "state": str(status.state),
        "reason": status.reason or None,
        "exit_code": status.exit_code,
        "start": status.start_s,
        "end": status.end_s,
        "nodes": list(status.nodes),
        "stdout": entry.job.stdout,
    }


def _folder() -> Path:
    return private(base_dir() / "jobs")
