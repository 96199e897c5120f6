"""What a job does, in the same words for all schedulers."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["JobStatus", "State", "summed_up"]


class State(enum.Enum):
    """Where a job stands.

    A job that the scheduler does not know (any more) is UNKNOWN until there is evidence of how it ended.
    """

    NEW = "new"
    QUEUED = "queued"
    HELD = "held"
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    TIMEOUT = "timeout"
    PREEMPTED = "preempted"
    NODE_FAIL = "node_fail"
    UNKNOWN = "unknown"

    @property
    def final(self) -> bool:
        """Whether nothing comes after it."""
        return self in _FINAL

    def __str__(self) -> str:
        return self.value


_FINAL: Final = frozenset(
    {State.COMPLETED, State.FAILED, State.CANCELED, State.TIMEOUT, State.PREEMPTED, State.NODE_FAIL}
)
# What an array is, by the first of these that one of its elements is.
_ARRAY_ORDER: Final = (
    State.ACTIVE,
    State.QUEUED,
    State.HELD,
    State.NEW,
    State.UNKNOWN,
    State.NODE_FAIL,
    State.FAILED,
    State.TIMEOUT,
    State.PREEMPTED,
    State.CANCELED,
    State.COMPLETED,
)


@dataclass(frozen=True)
class JobStatus:
    """What is known of a job at one time.

    Attributes
    ----------
    id : str
        As the scheduler writes it.
    reason : str
        Why it waits, or why it ended, in the scheduler's own words where it has any.
    exit_code : int, optional
        As a shell would say it: 128 + N for signal N.
    nodes : tuple of str
        What it holds or held.
    start_s, end_s : float, optional
        Seconds since the epoch: when it began or is expected to; when it ended or its allocation ends.
    raw : str
        The scheduler's name of the state.
    elements : mapping
        Of an array: index -> status; of a heterogeneous job: number of the component -> status.
    stale : bool
        The scheduler could not be asked: this is what it said before.
    """

    id: str
    state: State
    reason: str = ""
    exit_code: int | None = None
    nodes: tuple[str, ...] = ()
    start_s: float | None = None
    end_s: float | None = None
    raw: str = ""
    elements: "Mapping[int, JobStatus]" = field(default_factory=dict)
    stale: bool = False

    def __str__(self) -> str:
        text = f"{self.id} {self.state}"
        if self.reason:
            text += f" ({self.reason})"
        if self.exit_code:
            text += f", exit code {self.exit_code}"
        return text


def summed_up(job_id: str, elements: Mapping[int, JobStatus]) -> JobStatus:
    """Return the status of an array, or of a heterogeneous job, from those of all its elements.

    It is active while one of them is, and has completed when all have. Schedulers do not say it this way: OpenPBS gives
    an array exit status 0 whatever became of its elements.
    """
    by_state = {status.state: status for status in reversed(list(elements.values()))}
    leading = by_state[next(state for state in _ARRAY_ORDER if state in by_state)]
    starts = [status.start_s for status in elements.values() if status.start_s is not None]
    ends = [status.end_s for status in elements.values() if status.end_s is not None]
    alike = [status for status in elements.values() if status.state is leading.state]
    exit_code = max((status.exit_code for status in alike if status.exit_code is not None), default=None)
    return JobStatus(
        job_id,
        leading.state,
        leading.reason,
        exit_code if leading.state.final and (exit_code or leading.state is State.COMPLETED) else None,
        tuple(dict.fromkeys(node for status in elements.values() for node in status.nodes)),
        min(starts, default=None),
        max(ends, default=None),
        leading.raw,
        dict(elements),
    )
