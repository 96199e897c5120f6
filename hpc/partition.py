"""How a sequence is divided among engines: pure index arithmetic, no data.

Two distributions. *Block*: contiguous slices, the first ``n % parts`` of them one longer. *Cyclic*: item ``i`` belongs
to part ``i % parts``.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

Distribution: TypeAlias = Literal["block", "cyclic"]
DISTRIBUTIONS: tuple[Distribution, ...] = ("block", "cyclic")


def counts(n: int, parts: int) -> list[int]:
    """Return how many of ``n`` items each part gets; the same for both distributions.

    >>> counts(10, 4)
    [3, 3, 2, 2]
    """
    if n < 0 or parts < 1:
        raise ValueError(f"cannot divide {n} items into {parts} parts")
    each, longer = divmod(n, parts)
    return [each + 1] * longer + [each] * (parts - longer)


def displacements(n: int, parts: int) -> list[int]:
    """Return where each part of a block distribution begins.

    >>> displacements(10, 4)
    [0, 3, 6, 8]
    """
    starts = [0]
    for count in counts(n, parts)[:-1]:
        starts.append(starts[-1] + count)
    return starts


def slices(n: int, parts: int, dist: Distribution = "block") -> list[slice]:
    """Return the slice of ``range(n)`` that each part holds.

    >>> slices(5, 2), slices(5, 2, "cyclic")
    ([slice(0, 3, 1), slice(3, 5, 1)], [slice(0, 5, 2), slice(1, 5, 2)])
    """
    check(dist)
    if dist == "cyclic":
        counts(n, parts)  # for its check of the arguments
        return [slice(min(i, n), n, parts) for i in range(parts)]
    return [
        slice(start, start + count, 1) for start, count in zip(displacements(n, parts), counts(n, parts), strict=True)
    ]


def locate(index: int, n: int, parts: int, dist: Distribution = "block") -> tuple[int, int]:
    """Return which part holds an item, and at what offset within the part.

    >>> locate(4, 10, 4), locate(4, 10, 4, "cyclic")
    ((1, 1), (0, 1))
    """
    check(dist)
    if not 0 <= index < n:
        raise IndexError(f"index {index} is not within {n} items")
    if dist == "cyclic":
        return index % parts, index // parts
    each, longer = divmod(n, parts)
    border = longer * (each + 1)
    if index < border:
        return divmod(index, each + 1)
    part, offset = divmod(index - border, each)
    return longer + part, offset


def along(axis: int, ndim: int, piece: slice) -> tuple[slice, ...]:
    """Return the index that applies a slice along one axis of an array; negative axes count from the end.

    >>> along(-1, 2, slice(0, 3))
    (slice(None, None, None), slice(0, 3, None))
    """
    where = axis + ndim if axis < 0 else axis
    if not 0 <= where < ndim:
        raise ValueError(f"axis {axis} is out of bounds for an array of {ndim} dimensions")
    return (slice(None),) * where + (piece,)


def total(lengths: Sequence[int], dist: Distribution = "block") -> int:
    """Return the number of items that parts of these lengths hold together.

    Raises
    ------
    ValueError
        No cyclic distribution has such lengths: the parts could not be interleaved.
    """
    check(dist)
    n = sum(lengths)
    if dist == "cyclic" and list(lengths) != counts(n, len(lengths)):
        raise ValueError(f"parts of lengths {list(lengths)} are not of a cyclic distribution")
    return n


def check(dist: str) -> None:
    """Raise ValueError if there is no such distribution."""
    if dist not in DISTRIBUTIONS:
        raise ValueError(f"dist must be 'block' or 'cyclic', not {dist!r}")
