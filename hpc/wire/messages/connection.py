"""What opens a connection and keeps it (docs/protocol.md, section 3); the same for every role."""

from hpc.wire.messages.base import EndReason, Message


class Identify(Message, tag=1):
    """Controller to a new connection: who is there. Sent again whenever the connection is new to the controller."""

    protocol: int
    software: str
    cluster: str


class EngineInfo(Message):
    """What an engine says of itself.

    ``group`` is the same for all ranks of one launch; ``started`` is the start time of the process in clock ticks since
    boot, which tells it from a later process with the same pid. ``deadline`` is when its allocation ends, in seconds
    since the epoch, 0 if nothing says that it will; ``notice_s`` before that it prepares to leave. ``labels`` and
    ``resources`` are what tasks may ask for.
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
    deadline: float = 0.0
    notice_s: float = 0.0
    labels: list[str] = []
    resources: dict[str, float] = {}


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


class Goodbye(Message, tag=52):
    """The sender leaves of its own accord. Also of a client, and of the controller to its peers.

    ``why`` is WALLTIME or PREEMPTED for an engine whose allocation ends; the text of the reason stands for itself then.
    """

    reason: str
    why: EndReason = EndReason.GOODBYE
