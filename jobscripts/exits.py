"""The exit file: what a job script itself says of its end."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jobscripts.states import JobStatus, State, summed_up

__all__ = ["Ending", "by_its_own_account", "read_ending"]


@dataclass(frozen=True)
class Ending:
    """How a job ended, by its own account.

    Attributes
    ----------
    code : int
        The exit code of the command.
    reason : str
        ``""``: by itself; ``terminated``: by a SIGTERM; ``walltime``: by one when its time was over.
    started_s, ended_s : float
        Seconds since the epoch, on the clock of ``host``.
    job_id : str
        As the job knew it.
    """

    code: int
    reason: str
    started_s: float
    ended_s: float
    host: str
    job_id: str

    def status(self, job_id: str) -> JobStatus:
        """Return it as a scheduler would have said it."""
        if self.reason == "walltime":
            state = State.TIMEOUT
        elif self.reason:
            state = State.CANCELED
        else:
            state = State.FAILED if self.code else State.COMPLETED
        return JobStatus(job_id, state, self.reason, self.code, (self.host,), self.started_s, self.ended_s, "exit file")


def read_ending(path: Path) -> Ending | None:
    """Return what an exit file says; None if there is none (yet), or it is none of ours."""
    try:
        fields = dict(line.partition("=")[::2] for line in path.read_text(errors="replace").splitlines())
        return Ending(
            int(fields["code"]),
            fields["reason"],
            float(fields["started"]),
            float(fields["ended"]),
            fields["host"],
            fields["job"],
        )
    except (OSError, KeyError, ValueError):
        return None


def by_its_own_account(status: JobStatus, exit_file: Path, indices: Sequence[int] = ()) -> JobStatus:
    """Return a status with what the exit file adds: all of it if the scheduler says nothing, else the exit code.

    While the scheduler says that a job waits or runs, it is right: the file is of an earlier run, or the job is being
    tidied up.
    """
    if not indices:
        return _completed(status, read_ending(exit_file))
    if not status.elements and status.state is not State.UNKNOWN:
        return status
    elements: dict[int, JobStatus] = {}
    for index in indices:
        element = status.elements.get(index) or JobStatus(f"{status.id} [{index}]", State.UNKNOWN, status.reason)
        elements[index] = _completed(element, read_ending(exit_file.with_name(f"{exit_file.name}.{index}")))
    return summed_up(status.id, elements)


def _completed(status: JobStatus, ending: Ending | None) -> JobStatus:
    if ending is None:
        return status
    if status.state is State.UNKNOWN:
        return ending.status(status.id)
    return replace(status, exit_code=ending.code) if status.state.final and status.exit_code is None else status
