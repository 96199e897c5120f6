"""Back-pressure: what clients may have here, and what becomes of the work of one that does not take its results."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from hpc.controller import conditions
from hpc.controller.bundles import Client, Part
from hpc.controller.events import Command, Tell
from hpc.wire import messages as m

if TYPE_CHECKING:
    from hpc.controller.balance import Pool
    from hpc.controller.queues import Queues

# Unfinished work of all clients together, and what one of them may have: many tasks for each of thousands of engines.
TOTAL_NBYTES: Final = 1024 * 1024 * 1024
MOST_NBYTES: Final = 64 * 1024 * 1024
LEAST_NBYTES: Final = 1024 * 1024


def share(n_clients: int) -> int:
    """Return how many bytes of unfinished work each of so many clients may have."""
    return max(LEAST_NBYTES, min(MOST_NBYTES, TOTAL_NBYTES // max(1, n_clients)))


class Parking:
    """Where load-balanced work waits while its client is slow, out of the way of that of others.

    Whatever is to be done with such work, it is put back into its pools before (`unpark`), and parked again after that.
    """

    def __init__(self, queues: "Queues") -> None:
        self._queues = queues
        self._share = share(1)
        self.lots: dict[int, list[tuple[Pool, list[Part]]]] = {}

    def __repr__(self) -> str:
        return f"<Parking of {len(self.lots)} clients>"

    def grant(self, clients: dict[int, Client], new: int | None = None) -> None:
        """Tell clients what they may have here: one that is new, and everybody if their number has changed that."""
        nbytes = share(len(clients))
        changed, self._share = nbytes != self._share, nbytes
        told = clients if changed else () if new is None else (new,)
        self._queues.out += [Tell(number, m.Credit(nbytes)) for number in told if number]

    def slow(self, client: Client) -> None:
        """Send no more of a client's load-balanced work out, and have engines keep back what its tasks print."""
        if client.number not in self.lots:
            self._hold(client, True)
            self.park(client)

    def fast(self, client: Client, now: float) -> None:
        """Go on with a client that takes its results again, or that is gone: nothing waits for it then."""
        if client.number in self.lots:
            self._hold(client, False)
            for pool in self.unpark(client):
                conditions.forsake(self._queues, pool, now)
                self._queues.pump(pool, now)

    @contextmanager
    def out(self, client: Client) -> Iterator[None]:
        """Have a client's work in its pools for a while, if it is parked."""
        if client.number not in self.lots:
            yield
            return
        self.unpark(client)
        try:
            yield
        finally:
            self.park(client)

    def park(self, client: Client) -> None:
        """Take what waits in the pools out of them."""
        lot = self.lots.setdefault(client.number, [])
        for pool in {bundle.pool: None for bundle in client.bundles.values() if bundle.pool is not None}:
            line = pool.lines.pop(client.number, None)
            if line is not None:
                pool.turns.remove(line)
                parts = [part for part in line.waiting() if part.start < part.stop]
                pool.waiting -= sum(part.stop - part.start for part in parts)
                lot.append((pool, parts))

    def unpark(self, client: Client) -> "list[Pool]":
        """Put it back, before what has come meanwhile; return the pools."""
        pools = []
        for pool, parts in self.lots.pop(client.number, ()):
            for part in reversed(parts):
                pool.push_front(part)
            pools.append(pool)
        return pools

    def _hold(self, client: Client, on: bool) -> None:
        # All engines: which of them has more of it, and what will print, is not known here.
        engines = self._queues.registry.engines
        self._queues.out += [Command(number, m.Hold(client.number, on)) for number in engines]
