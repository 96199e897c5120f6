"""Which engine this process is, for code that runs as a task."""

from dataclasses import dataclass
from typing import Any

from hpc.engine.departure import Departure
from hpc.errors import NoCommunicator


@dataclass(slots=True)
class Identity:
    """What a task may ask about the engine that runs it. ``comm`` is None without MPI, ``id`` -1 before the welcome."""

    id: int = -1
    rank: int = 0
    size: int = 1
    comm: Any = None

    def __str__(self) -> str:
        return f"engine {self.id} (rank {self.rank} of {self.size})" if self.size > 1 else f"engine {self.id}"


engine: Identity | None = None
departure: Departure | None = None
# What the running task communicates by, if it is one of several ranks.
team_comm: Any = None


def comm() -> Any:
    """Return the communicator of the engines that were launched together, an ``mpi4py.MPI.Intracomm``.

    Within a task of several ranks (`LoadBalancedView.with_ranks`) it is the communicator of these.

    Raises
    ------
    NoCommunicator
        The engine was started without MPI, or this process is no engine.
    """
    if team_comm is not None:
        return team_comm
    if engine is None:
        raise NoCommunicator("hpc.comm() is for code that runs on an engine; this process is none")
    if engine.comm is None:
        raise NoCommunicator(
            f"{engine} was started without MPI: start the engines with"
            " 'mpirun -n 4 ipengine' or 'ipcluster start -n 4 --mpi', and without --no-mpi"
        )
    return engine.comm
