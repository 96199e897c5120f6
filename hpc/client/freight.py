"""What is large in a message, on its way out of this process."""

from collections.abc import Mapping
from typing import Any

from hpc.client.bundle import Mark, Placement
from hpc.dataplane import chooser
from hpc.dataplane.outgoing import Outgoing
from hpc.transport.shared import SharedFrame
from hpc.wire import messages as m


class Freight:
    """Finds the way for the large buffers of bodies.

    Attributes
    ----------
    outgoing : Outgoing
        The shared memory that this client sends from.
    forced : str or None
        The route that the environment asks for.
    """

    def __init__(self) -> None:
        self.outgoing = Outgoing()
        self.forced = chooser.forced_by_environment()

    def __repr__(self) -> str:
        return f"<Freight {self.outgoing!r}>"

    def ship(
        self, body: list[Any], placement: Placement, engines: Mapping[int, m.EngineRow], link: str
    ) -> tuple[list[Any], Mark]:
        """Return a body with its buffers where they travel best, and its mark."""
        buffers = body[1:]
        if any(type(buffer) is SharedFrame for buffer in buffers):
            return body, Mark("shm", copied=True)
        nbytes = sum(map(len, buffers))
        ids = engines if placement.targets is None else placement.targets
        rows = [engines[i] for i in ids if i in engines]
        route, _ = chooser.choose(nbytes, rows, link=link, forced=placement.route or self.forced)
        if route == "mpi":  # that is for whoever makes the group work together; this is a message like any other
            route = "shm" if link == "unix" else "tcp"
        if route == "shm":
            shared = self.outgoing.share(buffers, 0)
            if shared is not None:
                return [body[0], *shared], Mark("shm", copied=True)
            route = "tcp"
        return body, Mark(route)
