"""What is large in a message, on its way out of this process."""

import sys
from collections.abc import Mapping
from typing import Any, Final

from hpc.client.bundle import Mark, Placement
from hpc.client.roster import log
from hpc.dataplane import chooser, memory
from hpc.dataplane.outgoing import Outgoing
from hpc.security.host import hostname
from hpc.transport.pieces import WINDOW_NBYTES
from hpc.transport.shared import SharedFrame
from hpc.wire import messages as m

# So much is made warm when a client connects, for the first array that it sends; given back if none comes. It takes
# 40 ms of another processor, and is done only where there is so many times as much memory to be had.
FIRST_NBYTES: Final = 64 * 1024 * 1024
FIRST_SHARE: Final = 64


class Freight:
    """Finds the way for the large buffers of bodies.

    Attributes
    ----------
    outgoing : Outgoing
        The shared memory that this client sends from.
    forced : str or None
        The route that the environment asks for.
    obstacle : str
        Why the controller is reached by TCP although it runs on this machine.
    """

    def __init__(self) -> None:
        self.outgoing = Outgoing()
        self.forced = chooser.forced_by_environment()
        self.obstacle = ""
        self._told: set[str] = set()
        self._is_prepared = False

    def __repr__(self) -> str:
        return f"<Freight {self.outgoing!r}>"

    def prepare(self) -> None:
        """Have warm memory for what is sent first."""
        if not self._is_prepared:
            self._is_prepared = True
            self.outgoing.pool.want(WINDOW_NBYTES)
            # Whoever has not imported numpy by now is not about to send an array.
            if "numpy" in sys.modules and memory.available_nbytes() // FIRST_SHARE >= FIRST_NBYTES:
                self.outgoing.pool.want(FIRST_NBYTES)

    def ship(
        self,
        body: list[Any],
        placement: Placement,
        engines: Mapping[int, m.EngineRow],
        link: str,
        *,
        once: bool = False,
        late: bool = False,
    ) -> tuple[list[Any], Mark]:
        """Return a body with its buffers where they travel best, and its mark.

        With ``once`` every receiver looks at it once, with ``late`` only after it has heard that the bytes are there.
        The mark must be told to `finish` when the body is sent.
        """
        buffers = body[1:]
        if any(type(buffer) is SharedFrame for buffer in buffers):
            return body, Mark("shm", copied=True)
        nbytes = sum(map(len, buffers))
        ids = engines if placement.targets is None else placement.targets
        rows = [engines[i] for i in ids if i in engines]
        forced = placement.route or self.forced
        route, reason = chooser.choose(nbytes, rows, link=link, forced=forced, obstacle=self.obstacle)
        if reason and reason not in self._told:
            self._told.add(reason)
            log.warning("large data takes a slower way than it might (%s): %s", route, reason)
        if route == "mpi":  # that is for whoever makes the group work together; this is a message like any other
            route = "shm" if link == "unix" else "tcp"
        if route == "shm":
            near = len(rows) == 1 and placement.targets is not None and rows[0].host == hostname()
            shared = self.outgoing.hand_over(buffers, in_pieces=once and near, late=late and near)
            if shared is not None:
                frames, hand_over = shared
                return [body[0], *frames], Mark("shm", copied=True, hand_over=hand_over)
            route = "tcp"
        return body, Mark(route)
