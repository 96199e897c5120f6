"""Submits, follows and ends jobs: the only module here that starts processes, by a function that tests replace."""

import os
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from jobscripts.environment import scrubbed
from jobscripts.errors import QueryError, SchedulerError
from jobscripts.exits import by_its_own_account
from jobscripts.pace import Pace
from jobscripts.scheduler import DryRun, Output, Scheduler
from jobscripts.spec import JobSpec
from jobscripts.states import JobStatus, State

__all__ = ["Job", "Run", "Runner", "run_command"]

COMMAND_TIMEOUT_S: Final = 60.0


class Run(Protocol):
    """Runs a command and returns what it left; never raises for what the command does."""

    def __call__(
        self, command: Sequence[str], *, cwd: str | None = None, env: Mapping[str, str] | None = None
    ) -> Output:
        """Run it to its end."""


def run_command(command: Sequence[str], *, cwd: str | None = None, env: Mapping[str, str] | None = None) -> Output:
    """Run a command to its end, or for `COMMAND_TIMEOUT_S`; code -1 says that it did not run or not to its end."""
    try:
        done = subprocess.run(
            list(command),
            cwd=cwd,
            env=None if env is None else dict(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        return Output(
            -1, "", f"{command[0]} is not on PATH; is this a login node, and is the scheduler's module loaded?"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Output(-1, "", f"{command[0]}: {error}")
    return Output(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Job:
    """A submitted job. `as_dict` and `from_dict` carry it over to another session.

    Attributes
    ----------
    id : str
        As the scheduler writes it.
    script, stdout, exit_file : Path
        What was submitted; where its output goes; where the script says how it ended (arrays: with ``.INDEX``).
    indices : tuple of int
        Of an array.
    """

    id: str
    name: str
    scheduler: str
    script: Path
    stdout: str
    exit_file: Path
    submitted_s: float
    indices: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.scheduler} job {self.id}" + (f" ({self.name})" if self.name else "")

    def as_dict(self) -> dict[str, Any]:
        """Return it in types that JSON has."""
        return asdict(self) | {
            "script": str(self.script),
            "exit_file": str(self.exit_file),
            "indices": list(self.indices),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Job":
        """Return the job that `as_dict` described."""
        paths = {"script": Path(fields["script"]), "exit_file": Path(fields["exit_file"])}
        return cls(**{**fields, **paths, "indices": tuple(fields["indices"])})


class Runner:
    """Submits jobs to one scheduler and follows them, with at most one query for all of them at a time.

    Parameters
    ----------
    scheduler : Scheduler
    run : Run
        Starts processes; tests give another.
    clock, sleep : callable
        Seconds since the epoch, and waiting.
    environ : mapping, optional
        For the commands; ``os.environ`` without what belongs to a surrounding job.
    pace : Pace, optional
        How often to ask.

    Attributes
    ----------
    trouble : str
        Why the last query said nothing; '' if it did. Statuses are stale while there is trouble.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        run: Run = run_command,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        environ: Mapping[str, str] | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.scheduler = scheduler
        self.trouble = ""
        self._run = run
        self._clock = clock
        self._sleep = sleep
        self._environ = scrubbed(os.environ if environ is None else environ)
        self._pace = pace or Pace()
        self._known: dict[str, JobStatus] = {}
        self._evidence_pace: dict[str, Pace] = {}
        self._cancelled: set[str] = set()

    def __repr__(self) -> str:
        text = f"<Runner {self.scheduler.name}, {len(self._known)} jobs, {self._pace}"
        return f"{text}, trouble: {self.trouble}>" if self.trouble else f"{text}>"

    def submit(self, spec: JobSpec, directory: str | Path) -> Job:
        """Write the script into a directory, which all nodes must see, and submit it from ``spec.workdir`` or there.

        Output and exit file stand beside the script unless the spec says otherwise.

        Raises
        ------
        SpecError
            The scheduler cannot express the spec.
        SchedulerError
            It did not take the job. It is never submitted twice by itself.
        """
        spec, path = self._write(spec, Path(directory))
        output = self._command(self.scheduler.submit_command(str(path), spec), cwd=str(path.parent))
        job_id = self.scheduler.parse_submit(output)
        self._known[job_id] = JobStatus(job_id, State.NEW, "just submitted")
        self._pace.hasten()
        return Job(
            job_id,
            spec.name,
            self.scheduler.name,
            path,
            spec.stdout,
            Path(spec.exit_file),
            self._clock(),
            spec.array_indices,
        )

    def dry_run(self, spec: JobSpec, directory: str | Path) -> DryRun:
        """Ask the scheduler whether it would take this job, and when it would start; nothing runs or stays behind."""
        spec, path = self._write(spec, Path(directory))
        try:
            output = self._command(self.scheduler.dry_run_command(str(path), spec), cwd=str(path.parent))
            answer = self.scheduler.parse_dry_run(output)
            if answer.job_id:
                self.scheduler.parse_cancel(self._command(self.scheduler.cancel_command([answer.job_id])))
            return answer
        finally:
            path.unlink()

    def poll(self, jobs: Iterable[Job], *, now: bool = False) -> dict[str, JobStatus]:
        """Return what is known of each job, asking the scheduler if the pace allows it.

        Parameters
        ----------
        now : bool
            Ask whatever the pace is. Not for loops.
        """
        jobs = list(jobs)
        open_ = [job for job in jobs if not self._status(job).state.final]
        if open_ and (now or self._pace.due(self._clock())):
            self._ask(open_)
        return {job.id: self._status(job) for job in jobs}

    def wait(
        self,
        jobs: Iterable[Job],
        until: Callable[[JobStatus], bool] = lambda status: status.state.final,
        *,
        timeout_s: float | None = None,
        on_change: Callable[[JobStatus], None] | None = None,
    ) -> dict[str, JobStatus]:
        """Follow jobs until ``until`` holds for each, or it has ended.

        Parameters
        ----------
        on_change : callable, optional
            Called with each status that differs from the one before.

        Raises
        ------
        TimeoutError
            It took longer than ``timeout_s``; the message says where the jobs stand.
        """
        jobs = list(jobs)
        deadline = None if timeout_s is None else self._clock() + timeout_s
        seen: dict[str, JobStatus] = {}
        while True:
            statuses = self.poll(jobs)
            for job_id, status in statuses.items():
                if on_change and status != seen.get(job_id):
                    on_change(status)
            seen = statuses
            waiting = [status for status in statuses.values() if not (status.state.final or until(status))]
            if not waiting:
                return statuses
            pause_s = self._pace.remaining_s(self._clock())
            if deadline is not None and self._clock() + pause_s > deadline:
                pause_s = deadline - self._clock()
                if pause_s <= 0:
                    trouble = f"; {self.trouble}" if self.trouble else ""
                    raise TimeoutError(
                        f"after {timeout_s:g} s these have not come so far: {', '.join(map(str, waiting))}{trouble}"
                    )
            self._sleep(pause_s)

    def cancel(self, jobs: Iterable[Job], signal: str = "") -> None:
        """End jobs, or send the shell of their scripts a signal (``"USR1"``); those that have ended are left alone.

        Returns when the scheduler has taken note; `wait` until they have ended. One that leaves the queue after that
        without another word was cancelled.
        """
        ids = [job.id for job in jobs if not self._status(job).state.final]
        if ids:
            self.scheduler.parse_cancel(self._command(self.scheduler.cancel_command(ids, signal)))
            self._cancelled.update([] if signal else ids)
            self._pace.hasten()

    @property
    def next_poll_s(self) -> float:
        """Seconds until `poll` will ask the scheduler again."""
        return self._pace.remaining_s(self._clock())

    def _write(self, spec: JobSpec, directory: Path) -> tuple[JobSpec, Path]:
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", spec.name).strip(".-") or "job"
        path = directory.absolute() / f"{stem}-{secrets.token_hex(4)}{self.scheduler.suffix}"
        beside = path.with_suffix("")
        spec = spec.replace(
            stdout=spec.stdout or self.scheduler.default_stdout(f"{beside}.out", spec),
            exit_file=spec.exit_file or f"{beside}.exit",
            workdir=spec.workdir or str(directory.absolute()),
        )
        text = self.scheduler.script(spec)
        directory.mkdir(parents=True, exist_ok=True)
        path.write_text(text, newline="\n")
        path.chmod(0o700)
        return spec, path

    def _command(self, command: list[str], cwd: str | None = None) -> Output:
        return self._run(command, cwd=cwd, env=self._environ)

    def _status(self, job: Job) -> JobStatus:
        return self._known.get(job.id) or JobStatus(job.id, State.UNKNOWN, "not asked yet")

    def _ask(self, jobs: list[Job]) -> None:
        before = dict(self._known)
        try:
            answers = self._query([job.id for job in jobs])
        except QueryError as error:
            self.trouble = str(error)
            self._pace.failed(self._clock())
            for job in jobs:
                self._known[job.id] = replace(self._status(job), stale=True)
            return
        self.trouble = ""
        for job in jobs:
            answer = by_its_own_account(answers[job.id], job.exit_file, job.indices)
            if answer.state is State.UNKNOWN and not answer.raw and job.id in self._cancelled:
                # It never came to write its exit file.
                answer = replace(answer, state=State.CANCELED, reason="cancelled", raw="gone")
            self._known[job.id] = answer
        lost = [job for job in jobs if self._known[job.id].state is State.UNKNOWN]
        if lost:
            self._look_for_evidence(lost)
        self._pace.asked(self._clock(), changed=any(before.get(job.id) != self._known[job.id] for job in jobs))

    def _query(self, ids: list[str]) -> dict[str, JobStatus]:
        output = self._command(self.scheduler.status_command(ids))
        humbler = self.scheduler.without(output)
        if humbler is not None:
            self.scheduler = humbler
            output = self._command(self.scheduler.status_command(ids))
        return self.scheduler.parse_status(output, ids)

    def _look_for_evidence(self, lost: list[Job]) -> None:
        """Ask the archive for jobs that have vanished from the queue; it may know them only minutes later."""
        now = self._clock()
        ids = [job.id for job in lost if self._evidence_pace.setdefault(job.id, Pace()).due(now)]
        command = self.scheduler.evidence_command(ids) if ids else []
        if not command:
            return
        output = self._command(command)
        humbler = self.scheduler.without(output)
        if humbler is not None:
            self.scheduler = humbler
            return
        try:
            self._known.update(self.scheduler.parse_evidence(output, ids))
        except SchedulerError as error:
            self.trouble = str(error)
        for job_id in ids:
            self._evidence_pace[job_id].asked(now, changed=False)
