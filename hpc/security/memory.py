"""Keeps what a process has in memory, keys among it, from files and from other processes."""

import resource
import sys
from typing import Final

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h


def no_core_file() -> None:
    """See that this process writes no core file when it crashes; it may raise its limit again, up to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def close_to_others() -> None:
    """Keep this process from being dumped or traced by others of its user; Linux only.

    Not for engines: MPI libraries move data between the memory of ranks in that way.
    """
    if sys.platform == "linux":
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "this process cannot be closed to others")
