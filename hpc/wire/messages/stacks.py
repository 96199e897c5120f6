"""Where engines are, and what cannot go on (docs/protocol.md, section 5.8)."""

from typing import Any

from hpc.wire.messages.base import Message


class Look(Message, tag=40):
    """Controller to engine: say where the main thread is. Answered by `Sight`, also while user code runs.

    With ``others`` (engine id and pid, each) the question is about processes on the same host that do not answer.
    """

    number: int
    others: list[tuple[int, int]] = []


class Sight(Message, tag=56):
    """Where the main thread of an engine is.

    ``frames`` are file, line, function and text of the line, the outermost first, without the engine's own. ``call`` is
    the name of what the innermost one has called that is no Python function, ``mpi`` says whether that is MPI
    (``world``: on a communicator of the whole group). ``client``, ``first`` and ``offset`` name the task that runs, or
    of an idle engine the bundle that it worked on last; ``since`` is when that began, in seconds since the epoch.
    ``failure`` is what the last task that failed raised, and where, ``failed_at`` when.
    """

    number: int
    engine: int
    state: str
    frames: list[tuple[str, int, str, str]] = []
    call: str = ""
    mpi: bool = False
    world: bool = False
    client: int = 0
    first: int = 0
    offset: int = -1
    since: float = 0.0
    failure: str = ""
    failed_at: float = 0.0


class Stalled(Message, tag=72):
    """Controller to client: this bundle waits for what will not come. ``rows`` as in the answer to ``stacks``.

    Without rows: it has gone on after all.
    """

    first: int
    rows: list[dict[str, Any]]
