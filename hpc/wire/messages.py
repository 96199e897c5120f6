"""Every message of the protocol, grouped by direction (docs/protocol.md, sections 3 to 6).

A message is a `msgspec.Struct` that travels as a MessagePack array: its tag, then its fields in order. New fields are
added at the end with a default, so that a peer that does not know them yet still understands the rest. Large data
never stands in a message: it follows as separate frames, which the controller passes on without looking at them.

Tasks are named by numbers. A client numbers its tasks from 1 on; a *bundle* is a run of them that travels as one unit,
``first`` to ``first + count - 1``. Offsets within a bundle (``start``, ``stop``) count from 0 and are half-open.
"""

from enum import IntEnum
from typing import Any

import msgspec


class Message(msgspec.Struct, array_like=True):
    """What travels in the first frame."""


class Kind(IntEnum):
    """How the body of a bundle is laid out.

    CALLS: frame 0 is a MessagePack array with one ``[function index, buffer count, pickle]`` per task, the pickle being
    that of ``(args, kwargs)``; the buffers of all tasks follow in order, one frame each.
    SPAN: frame 0 is the pickle of a list of columns (equally long sequences), its buffers follow; task ``i`` is
    ``function(*(column[i] for column in columns))``. Whoever gets a part of a span gets the whole body.
    EACH: the body of CALLS with one call, made once by each target: task ``i`` runs on ``targets[i]``.
    """

    CALLS = 0
    SPAN = 1
    EACH = 2


# Built-in operations that all targets of a bundle do together: each waits for the others, so it is all of them or none.
TOGETHER = frozenset((b"!bcast", b"!scatterv", b"!gatherv", b"!reduce"))


class Status(IntEnum):
    """How a task ended on its engine."""

    DONE = 0
    FAILED = 1


class EndReason(IntEnum):
    """Why an engine, or a task that never ended on one, is no more."""

    GOODBYE = 0
    SIGNAL = 1
    EXIT = 2
    VANISHED = 3
    SHUTDOWN = 4
    GROUP = 5
    ABORTED = 6
    REFUSED = 7
    NO_ENGINES = 8


# ---------------------------------------------------------------- connection: unsequenced, both ways (section 3)


class Identify(Message, tag=1):
    """Controller to a new connection: who is there. Sent again whenever the connection is new to the controller."""

    protocol: int
    software: str
    cluster: str


class EngineInfo(Message):
    """What an engine says of itself.

    ``group`` is the same for all ranks of one launch; ``started`` is the start time of the process in clock ticks since
    boot, which tells it from a later process with the same pid.
    """

    uuid: str
    group: str
    rank: int
    size: int
    host: str
    pid: int
    started: int
    boot_id: str
    mpi: str = ""
    cwd: str = ""
    python: str = ""
    launcher: str = ""


class Hello(Message, tag=2):
    """Peer to controller: who I am and how far I have received. ``channel`` is ``work``, ``control`` or ``''``."""

    protocol: int
    software: str
    role: str
    session: str
    channel: str
    received: int
    host: str
    pid: int
    user: str
    engine: EngineInfo | None = None


class Welcome(Message, tag=3):
    """Controller to peer: how far I have received. ``id`` is the engine's id or the client's number."""

    received: int
    resumed: bool
    id: int


class Refused(Message, tag=4):
    """Controller to peer, before it closes the connection: what is wrong and what to do."""

    reason: str


class Ack(Message, tag=5):
    """Carries an acknowledgement when nothing else is under way."""


# ---------------------------------------------------------------- client to controller (section 4)


class Define(Message, tag=16):
    """A function, named by the digest of its frames: [pickle by reference or empty, pickle by value or empty].

    Also controller to engine, before the first `Run` that needs it.
    """

    digest: bytes
    name: str


class Options(Message):
    """How the tasks of a bundle may be placed and repeated."""

    retries: int = 0
    label: str = ""


class Submit(Message, tag=17):
    """Tasks ``first`` to ``first + count - 1``; the body follows as `frames` frames.

    ``targets`` is None for load-balanced work, one engine id for CALLS on that engine, or ``count`` ids for EACH.
    Load-balanced work may be placed on ``eligible`` engines only, if that is not None. ``route`` is the way that large
    results shall take, '' for the best one. The arguments are what engine ``source`` makes of the body by ``!export``.
    """

    first: int
    count: int
    kind: Kind
    functions: list[bytes]
    targets: list[int] | None
    submitted: float
    options: Options | None = None
    eligible: list[int] | None = None
    route: str = ""
    source: int = -1


class Abort(Message, tag=18):
    """End tasks [first + start, first + stop) that no engine has begun; those that run go on."""

    first: int
    start: int
    stop: int


class Interrupt(Message, tag=19):
    """Raise KeyboardInterrupt in what the target engines run now. Also controller to engine, ``targets`` then empty."""

    targets: list[int]


class Query(Message, tag=20):
    """Ask the controller; ``what`` is ``status``, ``queue_status`` or ``ping``. Answered by `Answer`."""

    request: int
    what: str
    arguments: dict[str, Any] = {}


class Shutdown(Message, tag=21):
    """End engines (None: all of them) and, if asked, the controller. Answered by `Answer` once it has begun."""

    request: int
    targets: list[int] | None
    controller: bool


# ---------------------------------------------------------------- controller to engine (section 5)


class Run(Message, tag=32):
    """Run tasks [start, stop) of a bundle; the body of the whole bundle follows."""

    client: int
    first: int
    start: int
    stop: int
    kind: Kind
    functions: list[bytes]
    route: str = ""


class Revoke(Message, tag=33):
    """Give back what has not begun of tasks [start, stop) of a bundle. Answered by `Revoked`, always."""

    client: int
    first: int
    start: int
    stop: int


class Stop(Message, tag=34):
    """Leave: finish nothing, say goodbye, end the process."""

    reason: str


# ---------------------------------------------------------------- engine to controller (section 5)


class Entry(Message):
    """How one task went.

    ``payload`` is the pickle of the value, or of the error (`hpc.wire.objects`); its buffers
    follow as frames. ``stdout`` and ``stderr`` are what was not sent before as one of ``n_outputs`` `Output` messages.
    Times are seconds since the epoch, UTC.
    """

    status: Status
    started: float
    completed: float
    payload: bytes
    n_buffers: int = 0
    stdout: str = ""
    stderr: str = ""
    n_outputs: int = 0


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


class Goodbye(Message, tag=52):
    """The sender leaves of its own accord. Also of a client, and of the controller to its peers."""

    reason: str


# ---------------------------------------------------------------- controller to client (section 4)


class Delivered(Message):
    """The header of a `Results`, passed on: its ``n_frames`` frames follow."""

    first: int
    start: int
    stop: int
    engine: int
    packed: bool
    n_frames: int


class Delivery(Message, tag=64):
    """Results; the frames of all items follow, in order."""

    items: list[Delivered]


class EngineRow(Message):
    """One engine as clients see it. ``state`` is ``idle``, ``busy`` or ``unreachable``."""

    id: int
    rank: int
    size: int
    group: str
    host: str
    pid: int
    state: str
    mpi: str = ""


class End(Message):
    """How an engine ended. ``signal`` and ``exit_code`` are -1 where they are not known; ``detail`` is for people."""

    id: int
    rank: int
    host: str
    pid: int
    reason: EndReason
    signal: int = -1
    exit_code: int = -1
    detail: str = ""


class Engines(Message, tag=65):
    """Engines that came and that went. With ``snapshot``, ``joined`` is all there are."""

    joined: list[EngineRow]
    left: list[End]
    snapshot: bool = False


class Ended(Message, tag=66):
    """Tasks [start, stop) of a bundle ended without a result of their own. ``end`` is set where an engine was lost."""

    first: int
    start: int
    stop: int
    reason: EndReason
    detail: str
    end: End | None = None


class Answer(Message, tag=67):
    """The answer to a `Query` or a `Shutdown`; ``error`` says what was wrong with it."""

    request: int
    value: Any
    error: str = ""


# ---------------------------------------------------------------- launcher (section 6)


class Exited(Message, tag=80):
    """Launcher to controller: a process it started has ended (``signal`` 0: by itself, with ``exit_code``)."""

    host: str
    pid: int
    exit_code: int
    signal: int
    detail: str = ""


class Group(Message, tag=81):
    """Launcher to controller: ``n`` engines of this group were started, or, with ``error``, could not be."""

    group: str
    n: int
    error: str = ""


class Start(Message, tag=82):
    """Controller to launcher: start ``n`` more engines; with ``replaces``, new processes for that group's ids."""

    n: int
    replaces: str = ""
