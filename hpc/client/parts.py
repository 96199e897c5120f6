"""Dividing sequences into parts, one an engine, and putting parts together again."""

from array import array
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

from hpc import partition
from hpc.client import joining
from hpc.client.joining import is_array, is_matrix, is_table
from hpc.partition import Distribution

# What strings and bytes are made of are no items that could be told from parts: they are put together by name.
_TEXT = ("str", "bytes", "bytearray")


class Layout(NamedTuple):
    """How a name was scattered, so that gather can undo it.

    ``kind`` is array, table, list, tuple, str, bytes, bytearray, or ``array.`` and a typecode. ``flat`` says of which
    parts only their one item was sent, ``flatten`` whether that is so for all of them. ``dtype`` is that of an array.
    """

    dist: Distribution = "block"
    axis: int = 0
    kind: str = ""
    flatten: bool = False
    flat: tuple[bool, ...] = ()
    dtype: Any = None


def split(sequence: Any, n: int, dist: Distribution, axis: int, flatten: bool) -> tuple[list[Any], Layout]:
    """Return ``n`` parts of a sequence and their layout.

    Arrays (whatever has ``shape`` and slices) and DataFrames are divided along ``axis``; ranges and iterables that are
    no sequences give lists. With ``flatten`` a part of length 1 becomes its item.
    """
    partition.check(dist)
    if isinstance(sequence, memoryview):
        import numpy

        sequence = numpy.asarray(sequence)
    dtype = None
    if is_table(sequence):
        if flatten:
            raise ValueError(f"flatten is for sequences; a part of one row of a {type(sequence).__name__} stays one")
        parts, lengths, kind = _split_table(sequence, n, dist, axis), [0] * n, "table"
    elif is_array(sequence) and len(sequence.shape):
        partition.along(axis, len(sequence.shape), slice(None))  # for its check of the axis
        slices = partition.slices(sequence.shape[axis], n, dist)
        parts = [sequence[partition.along(axis, len(sequence.shape), piece)] for piece in slices]
        parts = [_compact(part) for part in parts]
        lengths = [part.shape[axis] for part in parts]
        kind, dtype = "array", sequence.dtype
    else:
        if axis:
            raise ValueError(f"axis {axis} is for arrays; this is {type(sequence).__name__}")
        kind = _kind_of(sequence)
        if kind == "list":
            sequence = list(sequence)
        parts = [sequence[piece] for piece in partition.slices(len(sequence), n, dist)]
        lengths = [len(part) for part in parts]
    flat = tuple(flatten and length == 1 and not is_matrix(sequence) for length in lengths)
    parts = [_first(part, axis) if bare else part for part, bare in zip(parts, flat, strict=True)]
    return parts, Layout(dist, axis, kind, all(flat), flat, dtype)


def _kind_of(sequence: Any) -> str:
    if isinstance(sequence, array):
        return f"array.{sequence.typecode}"
    return next((kind.__name__ for kind in (str, bytes, bytearray, tuple) if isinstance(sequence, kind)), "list")


def _split_table(table: Any, n: int, dist: Distribution, axis: int) -> list[Any]:
    ndim = len(table.shape)
    slices = partition.slices(table.shape[axis], n, dist)
    return [table.iloc[partition.along(axis, ndim, piece) if ndim > 1 else piece] for piece in slices]


def _compact(part: Any) -> Any:
    """Return a part that travels out of band: a slice along an inner axis is not contiguous, and is copied once."""
    flags = getattr(part, "flags", None)
    if flags is None or flags.c_contiguous or flags.f_contiguous:
        return part
    return part.copy(order="K")


def _first(part: Any, axis: int) -> Any:
    if not is_array(part):
        return part[0]
    where = (slice(None),) * (axis % len(part.shape)) + (0,)
    # A masked item would become the constant `masked`, which knows no type.
    return part[(*where, ...)] if hasattr(part, "mask") else part[where]


def join(parts: list[Any], layout: Layout) -> Any:
    """Put parts together, in the order of their engines; the inverse of `split`."""
    kind, dist, axis = layout.kind, layout.dist, layout.axis
    flat = layout.flat if len(layout.flat) == len(parts) else (layout.flatten,) * len(parts)
    if kind == "array" and any(flat):
        return joining.stack(parts, flat, dist, axis, layout.dtype)
    parts = [_box(part, kind) if bare else part for part, bare in zip(parts, flat, strict=True)]
    if parts and all(map(is_table, parts)):
        return joining.tables(parts, dist, axis)
    if kind not in _TEXT and all(map(is_array, parts)):
        return joining.arrays(parts, dist, axis)
    if dist == "cyclic":
        parts = [_interleave(parts)] if kind != "str" else ["".join(_interleave(parts))]
    return _joiner(kind, parts)([*parts])


def _box(part: Any, kind: str) -> Any:
    return part if kind == "str" else bytes([part]) if kind in ("bytes", "bytearray") else [part]


def _joiner(kind: str, parts: Sequence[Any]) -> Callable[[list[Any]], Any]:
    def are(wanted: type) -> bool:
        return not kind and all(isinstance(part, wanted) for part in parts)

    if kind == "str" or are(str):
        return "".join
    if kind in ("bytes", "bytearray") or are(bytes):
        make = bytearray if kind == "bytearray" else bytes
        return lambda pieces: make(b"".join(map(bytes, pieces)))
    if kind == "tuple" or are(tuple):
        return lambda pieces: tuple(chain.from_iterable(pieces))
    if kind.startswith("array."):
        return lambda pieces: array(kind[-1], chain.from_iterable(pieces))
    return lambda pieces: list(chain.from_iterable(p if _is_sequence(p) else (p,) for p in pieces))


def _is_sequence(part: Any) -> bool:
    return (isinstance(part, Sequence) and not isinstance(part, str | bytes)) or is_array(part)


def _interleave(parts: list[Any]) -> list[Any]:
    n = partition.total([len(part) for part in parts], "cyclic")
    items: list[Any] = [None] * n
    for piece, part in zip(partition.slices(n, len(parts), "cyclic"), parts, strict=True):
        items[piece] = list(part)
    return items
