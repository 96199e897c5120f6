"""Between client and controller (docs/protocol.md, section 4), both ways."""

from typing import Any

from hpc.wire.messages.base import EndReason, Kind, Message
from hpc.wire.messages.parcels import Label

# ---------------------------------------------------------------- to the controller


class Define(Message, tag=16):
    """A function, named by the digest of its frames: [pickle by reference or empty, pickle by value or empty].

    Also controller to engine, before the first `Run` that needs it.
    """

    digest: bytes
    name: str


class After(Message):
    """Other tasks of the same client that tasks wait for, as ranges [start, stop) of their numbers.

    It is met when all of them (or any) have ended as they should, with ``success`` or with ``failure``. ``good`` and
    ``bad`` count those that the client knows to have ended so, or otherwise; the good ones on ``engines``.
    """

    tasks: list[tuple[int, int]]
    all: bool = True
    success: bool = True
    failure: bool = False
    good: int = 0
    bad: int = 0
    engines: list[int] = []


# What a client may ask for; a share is a number of turns, and who waits must not do so for ever.
SMALLEST_SHARE, LARGEST_SHARE = 0.01, 100.0


class Options(Message):
    """How the tasks of a bundle may be placed and repeated.

    With ``expected_s``, the seconds that a task takes, it is sent only to engines that will be there for as long.
    Tasks of higher ``priority`` come first among those of their client. They may wait for ``timeout_s`` until they can
    be given to an engine (-1: as is usual), and run for ``run_timeout_s`` (0: for ever). ``condition`` is the digest of
    a function that must not return False where they run. Engines must have ``labels``, and as much of ``resources``.
    Tasks wait for what ``after`` says, and run where that of ``follow`` did.
    With ``ranks``, each task is run by a team of so many ranks of one group; with ``everyone`` its value is the list of
    what all of them returned.
    ``share`` is the client's part of the engines' time, where others wait too, compared with 1 of each of those.
    """

    retries: int = 0
    label: str = ""
    expected_s: float = 0.0
    priority: float = 0.0
    timeout_s: float = -1.0
    run_timeout_s: float = 0.0
    condition: bytes = b""
    resources: dict[str, float] = {}
    labels: list[str] = []
    after: After | None = None
    follow: After | None = None
    ranks: int = 0
    everyone: bool = False
    share: float = 1.0


class Source(Message):
    """An engine that has objects which are arguments; ``call`` is the pickle of ``(args, kwargs)`` of `!export`."""

    engine: int
    call: bytes


class Submit(Message, tag=17):
    """Tasks ``first`` to ``first + count - 1``; the body follows as `frames` frames.

    ``targets`` is None for load-balanced work, one engine id for CALLS on that engine, or ``count`` ids for EACH.
    Load-balanced work may be placed on ``eligible`` engines only, if that is not None. ``route`` is the way that large
    results shall take, '' for the best one. ``sources`` are asked for objects first: what each has follows the calls in
    the body that engines get, as a call of function -1.
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
    sources: list[Source] = []
    parcels: list[Label] = []


class Abort(Message, tag=18):
    """End tasks [first + start, first + stop) that no engine has begun; those that run go on."""

    first: int
    start: int
    stop: int


class Interrupt(Message, tag=19):
    """Raise KeyboardInterrupt in what the target engines run now. Also controller to engine, ``targets`` then empty.

    With ``first`` only in tasks [start, stop) of that bundle, wherever they run; ``client`` is 0 for the sender's own.
    """

    targets: list[int]
    client: int = 0
    first: int = 0
    start: int = 0
    stop: int = 0


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


class Order(Message, tag=22):
    """Ask the launcher, through the controller: ``scale``, ``adapt`` or ``groups``. Answered by `Answer`."""

    request: int
    what: str
    arguments: dict[str, Any] = {}


class Keys(Message, tag=28):
    """Manage the keys that the controller lets in: ``list``, ``admit``, ``renew`` or ``revoke``. Answered by `Answer`.

    ``key`` is a public key to be admitted, or the name of one to be revoked. Secret halves do not travel.
    """

    request: int
    what: str
    key: str = ""
    role: str = ""
    label: str = ""


# ---------------------------------------------------------------- to the client


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
    parcels: list[Label] = []


class EngineRow(Message):
    """One engine as clients see it. ``state`` is ``idle``, ``busy``, ``unreachable`` or, before its end, ``leaving``.

    ``deadline`` is when its allocation ends, in seconds since the epoch, 0 if nothing says that it will.
    """

    id: int
    rank: int
    size: int
    group: str
    host: str
    pid: int
    state: str
    mpi: str = ""
    deadline: float = 0.0


class End(Message):
    """How an engine ended. ``signal`` and ``exit_code`` are -1 where they are not known; ``detail`` is for people.

    ``stderr`` has the last lines that it, or its launcher, wrote there.
    """

    id: int
    rank: int
    host: str
    pid: int
    reason: EndReason
    signal: int = -1
    exit_code: int = -1
    detail: str = ""
    stderr: str = ""


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
