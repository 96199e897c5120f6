"""The communicator of a launch as user code gets it: ``COMM_WORLD``, but it says so before it aborts.

What MPI itself writes of an abort may be lost, since its launcher ends all ranks at once: MPICH's loses every third.
"""

import functools
from collections.abc import Callable
from typing import Any, NoReturn


@functools.cache
def world_comm_class() -> Any:
    """Return `WorldComm`, a class of mpi4py's kind: mpi4py is imported by those who have it loaded anyway."""
    from mpi4py import MPI

    class WorldComm(MPI.Intracomm):
        """A communicator; equal to the one of mpi4py that it was made of, and duplicates of it are of its kind.

        Attributes
        ----------
        before_abort : callable
            Called by whoever calls ``Abort``, before MPI is.
        """

        before_abort: Callable[[], None] = staticmethod(lambda: None)

        def Abort(self, errorcode: int = 0) -> NoReturn:  # noqa: N802 - as in mpi4py
            WorldComm.before_abort()
            super().Abort(errorcode)

    WorldComm.__qualname__ = "WorldComm"
    return WorldComm
