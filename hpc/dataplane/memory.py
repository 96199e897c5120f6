"""How much memory there is to be had, and copying it."""

import _thread
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from hpc.transport.meter import meter

# How long an answer about free memory holds.
LOOK_AGAIN_S: Final = 1.0
# From here on a copy is left to numpy, which lets other threads run meanwhile.
NUMPY_NBYTES: Final = 1024 * 1024
# From here on two threads copy: one core does not fill the memory's bandwidth.
THREADS_NBYTES: Final = 8 * 1024 * 1024
PIECE_NBYTES: Final = 512 * 1024

_PUNCH_HOLE: Final = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE, which wants FALLOC_FL_KEEP_SIZE
_PROC: Final = Path("/proc/meminfo")
_CGROUP: Final = Path("/sys/fs/cgroup")

_known: tuple[float, int] = (0.0, 0)


def available_nbytes(age_s: float = LOOK_AGAIN_S) -> int:
    """Return how much memory may still be used, by the machine's account and the control group's, lately.

    An answer may be as old as ``age_s``: to look takes 50 us, and 300 us where the caches are cold.
    """
    global _known  # noqa: PLW0603 - one answer for the process
    now = time.monotonic()
    if not _known[1] or now - _known[0] > age_s:
        _known = now, _look()
    return _known[1]


def _look() -> int:
    limits = [1 << 62]
    try:
        for line in _PROC.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024)
                break
    except (OSError, ValueError):
        pass  # no such account here; the control group may have one
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            limits.append(int((_CGROUP / limit).read_text()) - int((_CGROUP / used).read_text()))
        except (OSError, ValueError):
            continue  # none, or "max"
    return max(1, min(limits))


def discard(fd: int, nbytes: int) -> None:
    """Give the pages of a memory file back to the system, whoever may still have it mapped: it reads as zeros then."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate(ctypes.c_int(fd), ctypes.c_int(_PUNCH_HOLE), ctypes.c_int64(0), ctypes.c_int64(nbytes))


def touch(view: memoryview) -> None:
    """Have the system give the pages of fresh memory; other threads run meanwhile."""
    import ctypes

    ctypes.memset((ctypes.c_char * view.nbytes).from_buffer(view), 0, view.nbytes)


def copy(target: memoryview, source: Any) -> None:
    """Copy bytes; other threads run meanwhile if there are many, and a second one helps if there are very many."""
    nbytes = target.nbytes
    if nbytes < NUMPY_NBYTES or "numpy" not in sys.modules:
        target[:] = memoryview(source).cast("B")
    else:
        _copy_pieces(target, source, nbytes if nbytes < THREADS_NBYTES else PIECE_NBYTES)


def _copy_pieces(target: memoryview, source: Any, piece_nbytes: int) -> None:
    """Copy piece by piece; if there are several, a second thread takes pieces too, whenever it gets to run."""
    import numpy

    there, here = numpy.frombuffer(target, numpy.uint8), numpy.frombuffer(source, numpy.uint8)
    starts = iter(range(0, target.nbytes, piece_nbytes))  # next() of it is atomic
    busy = threading.Lock()

    def copy_next() -> bool:
        start = next(starts, None)
        if start is None:
            return False
        numpy.copyto(there[start : start + piece_nbytes], here[start : start + piece_nbytes])
        meter.count(min(piece_nbytes, target.nbytes - start))
        return True

    def help_out() -> None:
        more = True
        while more:
            with busy:
                more = copy_next()

    if piece_nbytes < target.nbytes and len(os.sched_getaffinity(0)) > 1:
        _thread.start_new_thread(help_out, ())  # not `Thread`, whose start() waits until it runs
    try:
        while copy_next():
            pass
    finally:
        # Whatever happened here: nothing writes to the target after this.
        starts = iter(())
        with busy:
            pass
