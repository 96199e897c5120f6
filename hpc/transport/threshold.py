"""The threshold of the TCP port: how long, how many and how loud peers may be that have not shown who they are.

zmq takes in whatever a connection brings, up to the size of the largest frame, before it knows whom it comes from; so
the kernel is asked how much that was. Monitors are watched in the same way: all they have to say are a few questions.
"""

import itertools
from collections import Counter
from typing import Final, Protocol

# A handshake takes some milliseconds, and zmq itself ends one that takes longer than `zmtp.HANDSHAKE_MS`.
PATIENCE_S: Final = 15.0
# All engines of a large job may come at once; who is over it tries again.
MAX_STRANGERS: Final = 1024
# A handshake is below 1 KiB; one that comes back by itself may have sent what it has to say at once.
MAX_NBYTES: Final = 1024 * 1024
LOOK_S: Final = 0.1
LOOK_AT_MONITORS_S: Final = 0.5


class Connected(Protocol):
    """What the threshold needs of a connection."""

    address: str
    quiet: bool

    def cut(self) -> None:
        """End it."""

    def nbytes_received(self) -> int:
        """Return how much has come in over it."""


class Threshold:
    """Connections that are watched.

    Attributes
    ----------
    watched : dict
        For each how much it had sent when it was last looked at; empty when there is nothing to do.
    """

    def __init__(self) -> None:
        self.watched: dict[Connected, int] = {}
        self._strangers: dict[Connected, float] = {}  # since when, in the order in which they came
        self._next = 0.0

    def __repr__(self) -> str:
        n = len(self._strangers)
        return f"<Threshold with {n} strangers, {len(self.watched) - n} monitors>"

    def came(self, channel: Connected, now: float) -> None:
        """Watch a new connection."""
        if not self._strangers:
            self._next = now + LOOK_S
        self.watched[channel] = 0
        self._strangers[channel] = now

    def known(self, channel: Connected, role: str) -> None:
        """Watch a connection no more, unless the role that it has proved is that of a monitor."""
        if self._strangers.pop(channel, None) is not None:
            if role == "monitor":
                self.watched[channel] = channel.nbytes_received()
            else:
                del self.watched[channel]

    def gone(self, channel: Connected) -> None:
        """Forget a connection."""
        self._strangers.pop(channel, None)
        self.watched.pop(channel, None)

    def wait_s(self, now: float) -> float:
        """Return in how many seconds it is time to look."""
        return max(0.0, self._next - now)

    def look(self, now: float) -> list[str]:
        """Cut the connections that do not behave, if it is time; return what a log should say of each."""
        if now < self._next:
            return []
        self._next = now + (LOOK_S if self._strangers else LOOK_AT_MONITORS_S)
        said = [self._end(channel, "it does not say who it is") for channel in self._late(now)]
        said += [self._end(channel, "too many do not say who they are") for channel in self._crowd()]
        for channel, before in list(self.watched.items()):
            nbytes = channel.nbytes_received()
            if nbytes - before > MAX_NBYTES:
                what = "a stranger" if channel in self._strangers else "a monitor"
                said.append(self._end(channel, f"{what} that sends {nbytes - before} bytes"))
            elif channel not in self._strangers:
                self.watched[channel] = nbytes
        return said

    def _late(self, now: float) -> list[Connected]:
        return list(itertools.takewhile(lambda each: now - self._strangers[each] >= PATIENCE_S, self._strangers))

    def _crowd(self) -> list[Connected]:
        """Return those that are too many: the oldest ones of the hosts with most of them."""
        excess = len(self._strangers) - MAX_STRANGERS
        crowd: list[Connected] = []
        if excess > 0:
            for host, _ in Counter(map(_host, self._strangers)).most_common():
                theirs = [channel for channel in self._strangers if _host(channel) == host]
                crowd += theirs[: excess - len(crowd)]
                if len(crowd) == excess:
                    break
        return crowd

    def _end(self, channel: Connected, why: str) -> str:
        self.gone(channel)
        channel.quiet = True
        channel.cut()
        return f"refused a peer at {channel.address}: {why}"


def _host(channel: Connected) -> str:
    return channel.address.rpartition(":")[0]
