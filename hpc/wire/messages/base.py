"""What messages are made of: their base, and the words that several of them use."""

from enum import IntEnum

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
TOGETHER = frozenset((b"!bcast", b"!scatterv", b"!gatherv", b"!reduce", b"!share"))


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
    WALLTIME = 9
    PREEMPTED = 10
    DEPENDENCY = 16
    TIMEOUT = 17
