"""What the tests of several ranks are made of: ranks, lengths, dtypes, and arrays that all ranks can make alike."""

from typing import Any

import numpy as np
from mpi4py import MPI

RANK, SIZE = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size
EVERYBODY = list(range(SIZE))
LAST = SIZE - 1
LENGTHS = sorted({0, 1, SIZE - 1, SIZE, SIZE + 1, 1009})
DTYPES = [
    "?",
    "i1",
    "i8",
    ">i4",
    "f2",
    "f8",
    "g",
    "c16",
    "M8[ns]",
    "m8[s]",
    "S3",
    "U5",
    "V7",
    [("a", "i4"), ("b", "f8", (2,))],
]


def sample(dtype: Any, n: int, seed: int = 0) -> np.ndarray:
    raw = np.random.default_rng(seed + n).integers(0, 2 if dtype == "?" else 100, n * np.dtype(dtype).itemsize)
    if dtype in ("f2", "f8", "g", "c16", "?", "U5"):
        return (raw[:n] % 7).astype(dtype)
    return raw.astype(np.uint8).view(dtype)


def same(left: Any, right: Any) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    # Of long doubles six bytes mean nothing.
    return bool((left == right).all()) if left.dtype.char == "g" else left.tobytes() == right.tobytes()
