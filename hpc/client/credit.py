"""How much unfinished work a client may have at the controller: who submits more waits until some has ended."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from hpc.transport.shared import SharedFrame
from hpc.wire.messages import TOGETHER
from hpc.wire.session import Frame

# What a bundle, and a single task in it, weigh besides their body: about what both sides keep for them.
BUNDLE_NBYTES: Final = 1024
TASK_NBYTES: Final = 256
# Who waits goes on when so much is free again: bundles form by themselves only if several tasks come at once.
FREE_SHARE: Final = 0.25
# Operations of a person (a line of code, one value) are smaller; they do not wait behind a flood.
SMALL_NBYTES: Final = 4096


class Credit:
    """What this client has under way, and how much that may be.

    Attributes
    ----------
    nbytes : float
        What the controller permits; without limit until it has said so.
    used : int
        What the unfinished bundles weigh. Changed under the lock of the link.
    patience : callable
        Called with a condition; returns when it is true, or when this thread must not wait.
    """

    __slots__ = ("nbytes", "patience", "used")

    def __init__(self) -> None:
        self.nbytes = math.inf
        self.used = 0
        self.patience: Callable[[Callable[[], bool]], object] = lambda _: None

    def __repr__(self) -> str:
        return f"<Credit {self.used} of {self.nbytes} bytes used>"

    def wait(self) -> None:
        """Wait until some of what is under way has ended. Call it without a lock, before anything is changed."""
        self.patience(self.is_free)

    def is_free(self) -> bool:
        """Say whether one who has waited may go on."""
        return self.used <= self.nbytes * (1 - FREE_SHARE)

    def charge(self, bundle: Any, nbytes: int) -> None:
        """Have a bundle weigh so much; 0 when it has ended."""
        self.used += nbytes - bundle.weight
        bundle.weight = nbytes


def weight(body: Sequence[Any]) -> int:
    """Return how many bytes of a body the controller has to hold: not what stays in memory that this host shares."""
    return sum([len(frame) for frame in body if type(frame) is not SharedFrame])


def is_urgent(digest: bytes, body: Sequence[Frame]) -> bool:
    """Say whether something must not wait: small questions of a person, and what others have begun to wait for."""
    return digest in TOGETHER or (digest[:1] == b"!" and sum(map(len, body)) < SMALL_NBYTES)
