"""What the server side of the transport gives to its owner: links to peers, and what arrives over them."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from hpc.transport.framing import Frame


class Disconnected(ConnectionError):  # noqa: N818 - says what happened, as the contract of Connection does
    """The connection to the other side is gone. What was not acknowledged has to be sent again over the next one."""


class ArrivalKind(IntEnum):
    """What happened.

    OPENED: a peer is there and may be sent to. FRAMES: it sent a transmission. CLOSED: it is gone, and the link with
    it. WATCH: a watched file descriptor is readable. NOISE: something came in that is not of the protocol or not
    permitted; ``detail`` says who and why, in words for a log.
    """

    OPENED = 0
    FRAMES = 1
    CLOSED = 2
    WATCH = 3
    NOISE = 4


OPENED, FRAMES, CLOSED, WATCH, NOISE = ArrivalKind


class Link:
    """A peer as the server sees it; one object for each connection, never used again.

    Attributes
    ----------
    roles : frozenset of str
        What the credentials of the peer permit it to be.
    route : str
        ``unix`` or ``tcp``.
    local : bool
        Whether the peer is known to run on this host.
    key : str
        The public key that it proved to have, '' on a unix socket.
    pid : int
        The peer's process, told by the kernel; 0 where that is not known.
    name : str
        For logs.
    closed : bool
        Whether the connection is gone.
    data : Any
        Free for the owner of the server; None at first.
    """

    __slots__ = ("closed", "data", "key", "local", "name", "pid", "roles", "route")

    def __init__(self, *, roles: frozenset[str], route: str, name: str, pid: int = 0, local: bool = False) -> None:
        self.roles, self.route, self.name, self.pid, self.local = roles, route, name, pid, local
        self.key = ""
        self.closed = False
        self.data: Any = None

    def trust(self, role: str) -> None:
        """Take as much from the peer as its role, which is known by now, may have to say."""

    def __repr__(self) -> str:
        return f"<Link {self.name}, may be {' or '.join(sorted(self.roles)) or 'nothing'}{', closed' * self.closed}>"


NOBODY = Link(roles=frozenset(), route="", name="nobody")


class Arrival(NamedTuple):
    """One thing that happened; ``link`` is `NOBODY` where no link has to do with it."""

    kind: ArrivalKind
    link: Link
    frames: Sequence[Frame] = ()
    token: Any = None
    detail: str = ""
