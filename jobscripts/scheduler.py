"""What a scheduler is to us: a way to write scripts and commands, and to read what they answer. Text in, text out."""

import abc
import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

from jobscripts.errors import SchedulerError
from jobscripts.spec import JobSpec
from jobscripts.states import JobStatus

__all__ = ["DryRun", "Output", "Scheduler"]


class Output(NamedTuple):
    """What a command left: its exit code (-1: it did not run, or not to its end) and its text."""

    code: int
    stdout: str = ""
    stderr: str = ""

    def __str__(self) -> str:
        said = " ".join(part.strip() for part in (self.stderr, self.stdout) if part.strip())
        return f"exit code {self.code}: {said}" if said else f"exit code {self.code}, and it said nothing"


class DryRun(NamedTuple):
    """Whether a scheduler would take a job, what it says, and when it would start it (seconds since the epoch)."""

    accepted: bool
    message: str
    start_s: float | None = None
    job_id: str = ""


@dataclasses.dataclass(frozen=True)
class Scheduler(abc.ABC):
    """A dialect. Nothing here touches a file or starts a process: `Runner` does.

    Commands come with what reads their output: ``submit_command`` and ``parse_submit``, ``status_command`` and
    ``parse_status``, ``evidence_command`` and ``parse_evidence``, ``dry_run_command`` and ``parse_dry_run``.
    """

    name: ClassVar[str]
    # Programs that must be on PATH.
    programs: ClassVar[tuple[str, ...]]
    # What ready scripts are called.
    suffix: ClassVar[str]

    @abc.abstractmethod
    def script(self, spec: JobSpec) -> str:
        """Return the job script.

        Raises
        ------
        SpecError
            This scheduler has no way to say something that the spec asks for.
        """

    def default_stdout(self, path: str, spec: JobSpec) -> str:
        """Return where output goes if nobody says: one file, or one for each element of an array."""
        return f"{path}.{{index}}" if spec.array else path

    @abc.abstractmethod
    def submit_command(self, path: str, spec: JobSpec) -> list[str]:
        """Return the command that submits the script at this path."""

    @abc.abstractmethod
    def parse_submit(self, output: Output) -> str:
        """Return the id of the submitted job; raise `SchedulerError` with the scheduler's words if there is none."""

    @abc.abstractmethod
    def status_command(self, ids: Sequence[str]) -> list[str]:
        """Return the one command that asks for all these jobs."""

    @abc.abstractmethod
    def parse_status(self, output: Output, ids: Sequence[str]) -> dict[str, JobStatus]:
        """Return the status of each of these jobs; one that the scheduler does not know is UNKNOWN.

        Raises
        ------
        QueryError
            The answer says nothing of any job.
        """

    def without(self, output: Output) -> "Scheduler | None":
        """Return a scheduler that does not ask for what this site, it says, does not offer; None if all is well."""
        return None

    def evidence_command(self, ids: Sequence[str]) -> list[str]:
        """Return the command that asks an archive for jobs that have left the queue; [] if there is none."""
        return []

    def parse_evidence(self, output: Output, ids: Sequence[str]) -> dict[str, JobStatus]:
        """Return what the archive knows; jobs that are not (yet) in it are left out."""
        return {}

    @abc.abstractmethod
    def cancel_command(self, ids: Sequence[str], signal: str = "") -> list[str]:
        """Return the command that ends jobs, or that sends the script's shell a signal (``"USR1"``)."""

    def parse_cancel(self, output: Output) -> None:
        """Raise `SchedulerError` if jobs may still be there; that they have ended already is no error."""
        if output.code:
            raise self.parse_error(output)

    @abc.abstractmethod
    def dry_run_command(self, path: str, spec: JobSpec) -> list[str]:
        """Return the command that asks whether a script would be accepted, and runs nothing."""

    @abc.abstractmethod
    def parse_dry_run(self, output: Output) -> DryRun:
        """Return the answer; a ``job_id`` in it must be cancelled."""

    @abc.abstractmethod
    def parse_error(self, output: Output) -> SchedulerError:
        """Return what a failed command means, and what to do about it."""

    def missing(self, environ: Mapping[str, str] | None = None) -> list[str]:
        """Return which of its programs are not on PATH."""
        path = (os.environ if environ is None else environ).get("PATH", os.defpath)
        return [program for program in self.programs if _which(program, path) is None]


def _which(program: str, path: str) -> str | None:
    import shutil

    return shutil.which(program, path=path)
