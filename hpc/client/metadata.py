"""What is known of a task besides its value: where and when it ran, how it ended, what it printed."""

import pickle
from datetime import UTC, datetime
from typing import Any

from hpc.client.outcome import Outcome
from hpc.client.pieces import Pieces
from hpc.client.roster import Roster
from hpc.wire.display import Outputs

KEYS = frozenset(("task_id", "rank", "host", "status", "route", "submitted", "started", "completed", "received"))


class Metadata(dict[str, Any]):
    """A dict whose items are attributes too.

    Keys: ``task_id``, ``engine_id``, ``rank``, ``host``, ``status`` (waiting, done, failed, cancelled, lost),
    ``route``, ``stdout``, ``stderr``, and as aware datetimes or None ``submitted``, ``started``, ``completed``,
    ``received``.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no {name!r}; there are {', '.join(self)}") from None


def output(pieces: Pieces | None, task: int, outcome: Outcome | None, index: int, stream: str) -> str:
    """Return what a task printed to a stream so far; all of it once it has ended."""
    text = pieces.text(task, stream) if pieces is not None else ""
    entry = outcome.entry(index) if outcome is not None else None
    # Where one entry speaks for many tasks its text stands once, with the first of them.
    if entry is None or (outcome is not None and outcome.packed and index):
        return text
    return text + (entry.stdout if stream == "stdout" else entry.stderr)


def outputs_of(outcome: Outcome, index: int) -> Outputs:
    """Return what a task displayed besides its value."""
    entry = outcome.entry(index)
    # Where one entry speaks for many tasks, what they displayed stands once, with the first of them.
    if entry is None or not entry.displayed or (outcome.packed and index):
        return Outputs()
    return Outputs(pickle.loads(entry.displayed))


def describe(
    roster: Roster, engine: int, outcome: Outcome | None, index: int, *, task_id: str, submitted: float
) -> Metadata:
    """Return the metadata of one task; ``engine`` is where it was to run, if that was settled."""
    entry = outcome.entry(index) if outcome is not None else None
    if outcome is not None and outcome.engine >= 0:
        engine = outcome.engine
    rank, host = roster.place(engine)
    return Metadata(
        task_id=task_id,
        engine_id=engine if engine >= 0 else None,
        rank=rank if engine >= 0 else None,
        host=host if engine >= 0 else None,
        status=outcome.status(index) if outcome is not None else "waiting",
        route=(entry.route if entry is not None else "") or (outcome.route if outcome is not None else "inline"),
        submitted=_time(submitted),
        started=_time(entry.started if entry is not None else 0),
        completed=_time(entry.completed if entry is not None else 0),
        received=_time(outcome.received if outcome is not None else 0),
    )


def _time(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
