"""Dividing sequences into parts, one an engine, and putting parts together again."""

import sys
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

from hpc import partition
from hpc.partition import Distribution


class Layout(NamedTuple):
    """How a name was scattered, so that gather can undo it. ``kind`` is array, list, tuple, str, bytes or bytearray."""

    dist: Distribution = "block"
    axis: int = 0
    kind: str = ""
    flatten: bool = False


def split(sequence: Any, n: int, dist: Distribution, axis: int, flatten: bool) -> tuple[list[Any], Layout]:
    """Return ``n`` parts of a sequence and their layout.

    Arrays (whatever has ``shape`` and slices) are divided along ``axis``; ranges and iterables that are no sequences
    give lists. With ``flatten`` a part of length 1 becomes its item.
    """
    partition.check(dist)
    if is_array(sequence) and len(sequence.shape):
        slices = partition.slices(sequence.shape[axis], n, dist)
        parts = [sequence[partition.along(axis, len(sequence.shape), piece)] for piece in slices]
        parts = [_compact(part) for part in parts]
        lengths = [part.shape[axis] for part in parts]
        kind = "array"
    else:
        if axis:
            raise ValueError(f"axis {axis} is for arrays; this is {type(sequence).__name__}")
        if isinstance(sequence, str | bytes | bytearray | tuple):
            kind = next(k.__name__ for k in (str, bytes, bytearray, tuple) if isinstance(sequence, k))
        else:
            kind, sequence = "list", list(sequence)
        parts = [sequence[piece] for piece in partition.slices(len(sequence), n, dist)]
        lengths = [len(part) for part in parts]
    flat = flatten and all(length == 1 for length in lengths)
    if flatten:
        parts = [_first(part, axis) if length == 1 else part for part, length in zip(parts, lengths, strict=True)]
    return parts, Layout(dist, axis, kind, flat)


def is_array(thing: Any) -> bool:
    """Say whether something is sliced as an array is: numpy's, or of a package that does as numpy does."""
    return hasattr(thing, "shape") and hasattr(thing, "dtype") and hasattr(type(thing), "__getitem__")


def _compact(part: Any) -> Any:
    """Return a part that travels out of band: a slice along an inner axis is not contiguous, and is copied once."""
    flags = getattr(part, "flags", None)
    if flags is None or flags.c_contiguous or flags.f_contiguous:
        return part
    return part.copy(order="K")


def _first(part: Any, axis: int) -> Any:
    if not is_array(part):
        return part[0]
    return part[(slice(None),) * (axis % len(part.shape)) + (0,)]


def join(parts: list[Any], layout: Layout) -> Any:
    """Put parts together, in the order of their engines; the inverse of `split`."""
    if layout.flatten:
        if layout.kind == "array":
            numpy = sys.modules["numpy"]
            return numpy.stack([numpy.asarray(part) for part in parts], axis=layout.axis)
        parts = [_box(part, layout.kind) for part in parts]
    kind = layout.kind
    if kind not in ("str", "bytes", "bytearray") and all(map(is_array, parts)):
        return _join_arrays(parts, layout)
    if layout.dist == "cyclic":
        parts = [_interleave(parts)] if kind != "str" else ["".join(_interleave(parts))]
    return _joiner(kind, parts)([*parts])


def _box(part: Any, kind: str) -> Any:
    return part if kind == "str" else bytes([part]) if kind in ("bytes", "bytearray") else [part]


def _joiner(kind: str, parts: Sequence[Any]) -> Callable[[list[Any]], Any]:
    if kind == "str" or (not kind and all(isinstance(part, str) for part in parts)):
        return "".join
    if kind in ("bytes", "bytearray"):
        make = bytes if kind == "bytes" else bytearray
        return lambda pieces: make(b"".join(map(bytes, pieces)))
    if kind == "tuple" or (not kind and all(isinstance(part, tuple) for part in parts)):
        return lambda pieces: tuple(chain.from_iterable(pieces))
    return lambda pieces: list(chain.from_iterable(p if _is_sequence(p) else (p,) for p in pieces))


def _is_sequence(part: Any) -> bool:
    return (isinstance(part, Sequence) and not isinstance(part, str | bytes)) or is_array(part)


def _interleave(parts: list[Any]) -> list[Any]:
    n = partition.total([len(part) for part in parts], "cyclic")
    items: list[Any] = [None] * n
    for piece, part in zip(partition.slices(n, len(parts), "cyclic"), parts, strict=True):
        items[piece] = list(part)
    return items


def _join_arrays(parts: list[Any], layout: Layout) -> Any:
    import numpy

    if any(isinstance(part, numpy.ma.MaskedArray) for part in parts):
        concatenate: Any = numpy.ma.concatenate
    else:
        concatenate = numpy.concatenate
    if not all(len(part.shape) for part in parts):  # numbers, as a reduction leaves them
        return numpy.asarray(parts)
    axis = layout.axis
    whole = concatenate(parts, axis=axis)
    if layout.dist == "block":
        return whole
    n = partition.total([part.shape[axis] for part in parts], "cyclic")
    result = whole.copy()
    for piece, part in zip(partition.slices(n, len(parts), "cyclic"), parts, strict=True):
        result[partition.along(axis, whole.ndim, piece)] = part
    return result
