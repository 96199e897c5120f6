"""Which way large data takes: a pure function of where everybody is.

- ``inline``: small data rides in the message.
- ``shm``: through shared memory; what has to leave the host goes on from there.
- ``mpi``: once to the nearest rank of a group, which hands it on.
- ``tcp``: in frames that the controller relays.
"""

import os
from collections.abc import Sequence
from typing import Final, NamedTuple

from hpc.wire.messages import EngineRow

ROUTES: Final = ("inline", "shm", "mpi", "tcp")
# Below this the way through the sockets is as quick, and takes no file descriptors.
SHARED_NBYTES: Final = 256 * 1024
ENVIRONMENT: Final = "HPC_ROUTE"


class Choice(NamedTuple):
    """A route, and why it is not a faster one ('' if it is what one would expect, or asked for)."""

    route: str
    reason: str = ""


def choose(
    nbytes: int, rows: Sequence[EngineRow], *, link: str, forced: str | None = None, obstacle: str = ""
) -> Choice:
    """Return the route for data of so many bytes to or from all engines of ``rows``.

    Parameters
    ----------
    link
        How the client is connected: ``unix`` or ``tcp``.
    forced
        A route that was asked for. It is taken if it is possible at all.
    obstacle
        Why the link is ``tcp`` although the controller runs on this machine.
    """
    if forced in ("inline", "tcp"):
        return Choice(forced)
    if nbytes < SHARED_NBYTES and forced is None:
        return Choice("inline")
    spans = is_one_group(rows) and len({row.host for row in rows}) > 1
    reason = ""
    if forced == "mpi" or (forced is None and spans):
        if is_one_group(rows) and rows[0].mpi:
            return Choice("mpi")
        reason = "the engines are ranks of one group, but take no part in MPI (--no-mpi, or no mpi4py)"
        if forced == "mpi":
            return Choice("tcp", reason if is_one_group(rows) else "the engines are not ranks of one MPI group")
    if link == "unix":
        return Choice("shm", reason)
    if obstacle:
        return Choice("tcp", f"there is no unix socket to the controller of this machine ({obstacle})")
    return Choice("tcp", reason or ("there is no unix socket to the controller" if forced == "shm" else ""))


def is_one_group(rows: Sequence[EngineRow]) -> bool:
    """Say whether the engines were launched together."""
    return len({row.group for row in rows}) == 1 and len(rows) > 0 and rows[0].size > 1


def forced_by_environment() -> str | None:
    """Return the route that the environment asks for.

    Raises
    ------
    ValueError
        There is no such route.
    """
    route = os.environ.get(ENVIRONMENT) or None
    return check(route)


def check(route: str | None) -> str | None:
    """Return a route, None for automatic; raises `ValueError` if there is no such route."""
    if route is not None and route not in ROUTES:
        raise ValueError(f"there is no route {route!r}; there are {', '.join(ROUTES)}")
    return route
