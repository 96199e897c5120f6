"""Between controller and engine (docs/protocol.md, section 5), both ways; `Define` and `Interrupt` are in `client`."""

from hpc.wire.messages.base import EndReason, Kind, Message, Status
from hpc.wire.messages.parcels import Label

# ---------------------------------------------------------------- to the engine


class Terms(Message):
    """What is special about some tasks.

    None may run longer than ``limit_s`` (0: no limit). With ``condition``, the digest of a function, the tasks are
    Declined if that returns False. ``n_outputs`` pieces of output of task ``start`` were sent by tries that failed.
    """

    limit_s: float = 0.0
    condition: bytes = b""
    n_outputs: int = 0


class Run(Message, tag=32):
    """Run tasks [start, stop) of a bundle; the body of the whole bundle follows.

    ``team`` lists the ranks of the group that run each task together, if not just this one does: the first is the root,
    which says what is begun, and answers for all. With ``everyone`` it answers with the values of all.
    """

    client: int
    first: int
    start: int
    stop: int
    kind: Kind
    functions: list[bytes]
    route: str = ""
    parcels: list[Label] = []
    terms: Terms | None = None
    team: list[int] = []
    everyone: bool = False


class Revoke(Message, tag=33):
    """Give back what has not begun of tasks [start, stop) of a bundle. Answered by `Revoked`, always."""

    client: int
    first: int
    start: int
    stop: int


class Stop(Message, tag=34):
    """Leave: finish nothing, say goodbye, end the process."""

    reason: str


# ---------------------------------------------------------------- to the controller


class Entry(Message):
    """How one task went.

    ``payload`` is the pickle of the value, or of the error (`hpc.wire.objects`); its buffers
    follow as frames. ``stdout`` and ``stderr`` are what was not sent before as one of ``n_outputs`` `Output` messages.
    Times are seconds since the epoch, UTC. ``route`` is the way that arguments took from other engines, '' if there
    were none. ``displayed`` is the pickle of a list of what the task displayed, '' if that is nothing.
    """

    status: Status
    started: float
    completed: float
    payload: bytes
    n_buffers: int = 0
    stdout: str = ""
    stderr: str = ""
    n_outputs: int = 0
    route: str = ""
    displayed: bytes = b""


class Results(Message, tag=48):
    """Tasks [start, stop) of a bundle have ended. Frame 0 is a MessagePack array of `Entry`, their buffers follow.

    ``packed``: there is one `Entry` for all of them, status DONE, whose payload is the pickle of the list of values.
    ``failed`` lists the offsets that failed; ``seconds`` is the time the engine spent in user code.
    """

    client: int
    first: int
    start: int
    stop: int
    packed: bool
    failed: list[int]
    seconds: float
    parcels: list[Label] = []


class Output(Message, tag=49):
    """Text that the running task printed; ``number`` counts the pieces of one task from 0.

    Also controller to client, where ``client`` is replaced by the id of the engine.
    """

    client: int
    first: int
    offset: int
    number: int
    stream: str
    text: str


class Revoked(Message, tag=50):
    """Tasks [start, stop) of the bundle will not be run here (none of them if start == stop)."""

    client: int
    first: int
    start: int
    stop: int


class Need(Message, tag=51):
    """The engine does not hold these functions: send them, and the bundle part [start, stop) again."""

    digests: list[bytes]
    client: int
    first: int
    start: int
    stop: int


class Declined(Message, tag=54):
    """The condition of tasks [start, stop) of a bundle is not met here; ``why`` says more, if there is more to say."""

    client: int
    first: int
    start: int
    stop: int
    why: str = ""


class Notice(Message, tag=53):
    """The engine knows its end beforehand: it is to get nothing more to do.

    The allocation is about to end (WALLTIME or PREEMPTED), or user code has called MPI_Abort (MPI_ABORT).
    """

    why: EndReason
