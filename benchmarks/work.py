"""The functions that every system runs. Imports nothing, so that a worker of any pool loads it in no time."""

import os
import time
from typing import Any


def noop(value: object = None) -> object:
    """Return what came."""
    return value


def increment(x: int) -> int:
    """Return ``x + 1``: work that takes less time than anything around it."""
    return x + 1


def pid_after(seconds: float) -> int:
    """Return the worker's pid after a pause, so that the other workers get their share."""
    time.sleep(seconds)
    return os.getpid()


def sleep(seconds: float) -> None:
    """Stay in a task."""
    time.sleep(seconds)


_kept: Any = None


def keep(array: Any) -> int:
    """Hold an array in a worker, and look at its ends."""
    global _kept
    _kept = array
    return int(array[0]) + int(array[-1])


def give(nbytes: int) -> Any:
    """Return an array that a worker holds."""
    import numpy as np

    global _kept
    if _kept is None or _kept.nbytes != nbytes:
        _kept = np.ones(nbytes, np.uint8)
    return _kept
