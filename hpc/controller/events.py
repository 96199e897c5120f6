"""What goes into the brain, and what comes out of it.

Events and actions are frozen; the frames that they carry are references, never copies.
"""

import math
from typing import TypeAlias

import msgspec

from hpc.wire import messages as m

Frame: TypeAlias = bytes | bytearray | memoryview
Frames: TypeAlias = tuple[Frame, ...]


class _Noun(msgspec.Struct, frozen=True, gc=False):
    """Base of events and actions: without cycles, so the garbage collector need not look at them."""


# ---------------------------------------------------------------- events


class ClientCame(_Noun, frozen=True):
    """A new client (or monitor) has a session; ``client`` is its number."""

    client: int


class ClientGone(_Noun, frozen=True):
    """The session of a client is over for good; what it submitted still runs, what comes of it is dropped."""

    client: int


class ClientSaid(_Noun, frozen=True):
    """A message from a client, a monitor or, as client 0, the launcher."""

    client: int
    message: m.Message
    frames: Frames = ()


class ClientSlow(_Noun, frozen=True):
    """A client does not take what is sent to it, or (``is_slow`` false) does so again."""

    client: int
    is_slow: bool


class EngineCame(_Noun, frozen=True):
    """One channel of an engine says Hello, for the first time or again. Answered by `Admit` or `Reject`.

    For ``left_s`` seconds from now on tasks may run there.
    """

    info: m.EngineInfo
    channel: str
    left_s: float = math.inf


class EngineCut(_Noun, frozen=True):
    """One channel of an engine has lost its connection; that alone does not say that the engine is dead."""

    engine: int
    channel: str


class EngineSaid(_Noun, frozen=True):
    """A message from an engine, on either channel."""

    engine: int
    message: m.Message
    frames: Frames = ()


class EngineDied(_Noun, frozen=True):
    """The process of an engine is gone. ``signal`` and ``exit_code`` are -1 where they are not known (yet).

    ``oom`` says that the kernel has killed it because memory ran out.
    """

    engine: int
    signal: int = -1
    exit_code: int = -1
    oom: bool = False


class ProcessEnded(_Noun, frozen=True):
    """The launcher reports the end of a process, which may have been an engine."""

    host: str
    pid: int
    signal: int
    exit_code: int
    detail: str = ""
    oom: bool = False


class LaunchEnded(_Noun, frozen=True):
    """The launcher reports that all it has started under a label has ended, and what was written last if it crashed."""

    label: str
    stderr: str = ""


class Closing(_Noun, frozen=True):
    """The controller is about to end, and its engines with it."""

    reason: str


class Tick(_Noun, frozen=True):
    """Nothing happened, but the time given by `Brain.next_timeout` has come."""


Event: TypeAlias = (
    ClientCame
    | ClientGone
    | ClientSaid
    | ClientSlow
    | EngineCame
    | EngineCut
    | EngineSaid
    | EngineDied
    | ProcessEnded
    | LaunchEnded
    | Closing
    | Tick
)

# ---------------------------------------------------------------- actions


class Admit(_Noun, frozen=True):
    """Welcome the connection that `EngineCame` told of, under this id."""

    engine: int


class Reject(_Noun, frozen=True):
    """Refuse the connection that `EngineCame` told of."""

    reason: str


class Send(_Noun, frozen=True):
    """Send to an engine on its work channel."""

    engine: int
    message: m.Message
    frames: Frames = ()


class Command(_Noun, frozen=True):
    """Send to an engine on its control channel, which answers while user code runs."""

    engine: int
    message: m.Message


class Tell(_Noun, frozen=True):
    """Send to one client."""

    client: int
    message: m.Message
    frames: Frames = ()


class Deliver(_Noun, frozen=True):
    """Send results to a client; those of one round travel together in one `hpc.wire.messages.Delivery`."""

    client: int
    item: m.Delivered
    frames: Frames


class Announce(_Noun, frozen=True):
    """Send to all clients and monitors."""

    message: m.Engines


class Dropped(_Noun, frozen=True):
    """An engine is gone for good: its sessions, links and watches can be dropped."""

    engine: int
    end: m.End


class Quit(_Noun, frozen=True):
    """End the controller."""

    reason: str


Action: TypeAlias = Admit | Reject | Send | Command | Tell | Deliver | Announce | Dropped | Quit
