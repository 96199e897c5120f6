"""The sequences of a map, cut into pieces that travel as spans."""

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from hpc.client.joining import is_array

# Pieces for each engine, if there are items enough: the first are at work while the next are pickled, and what is left
# over at the end is small. The controller divides further where engines lag behind.
PIECES_PER_ENGINE = 4
MAX_PIECE = 16384
# Of input without a length: a piece is sent when drawing it took this long, or when it is as large as it may get.
MAX_DRAW_S = 0.002
FIRST_DRAWN, LARGEST_DRAWN = 8, 4096


def pieces(sequences: tuple[Iterable[Any], ...], engines: int, size: int | None = None) -> Iterator[list[Any]]:
    """Yield lists of equally long columns. Input that has no length is drawn piece by piece, as the pieces are taken.

    Parameters
    ----------
    size : int, optional
        Items in a piece; by default a number that suits so many engines.
    """
    if not sequences:
        raise TypeError("map() needs at least one sequence")
    if size is not None and size < 1:
        raise ValueError(f"chunksize must be at least 1, not {size}")
    if not all(hasattr(sequence, "__len__") for sequence in sequences):
        return _drawn(zip(*sequences, strict=False), size)
    return _cut([_sliceable(sequence) for sequence in sequences], engines, size)


def _sliceable(sequence: Any) -> Any:
    if isinstance(sequence, list | tuple | range | str | bytes) or (is_array(sequence) and _is_numpy(sequence)):
        return sequence
    return list(sequence)


def _is_numpy(sequence: Any) -> bool:
    return type(sequence).__module__.partition(".")[0] == "numpy" and len(sequence.shape) > 0


def length(columns: list[Any]) -> int:
    """Return the number of items: that of the shortest column."""
    return min(map(len, columns))


def piece_size(n: int, engines: int) -> int:
    """Return how many items a piece should have."""
    return max(1, min(MAX_PIECE, -(-n // max(1, engines * PIECES_PER_ENGINE))))


def _cut(columns: list[Any], engines: int, size: int | None) -> Iterator[list[Any]]:
    n = length(columns)
    step = size or piece_size(n, engines)
    for start in range(0, n, step):
        yield [column[start : min(start + step, n)] for column in columns]


def _drawn(rows: Iterator[tuple[Any, ...]], size: int | None) -> Iterator[list[Any]]:
    if size is not None:
        while piece := list(islice(rows, size)):
            yield _transposed(piece)
        return
    limit = FIRST_DRAWN
    while True:
        piece = []
        deadline = time.monotonic() + MAX_DRAW_S
        for row in rows:
            piece.append(row)
            if len(piece) >= limit or time.monotonic() > deadline:
                break
        if not piece:
            return
        yield _transposed(piece)
        limit = min(2 * limit, LARGEST_DRAWN)


def _transposed(rows: list[tuple[Any, ...]]) -> list[Any]:
    return [list(column) for column in zip(*rows, strict=True)]
