"""What MPI can reduce by itself: arrays of a fixed size per item, of one kind on all ranks (rules: `hpc.reduction`)."""

from collections.abc import Sequence
from typing import Any

from hpc import reduction


def ufunc_of(name: str) -> Any:
    """Return numpy's function for an operation."""
    import numpy

    return getattr(numpy, reduction.UFUNCS[name])


def prepare(name: str, value: Any) -> tuple[Any, tuple[Any, ...] | None]:
    """Return a value as MPI can reduce it, and dtype and shape; None for what is reduced as an object.

    Raises what numpy raises where the dtype does not allow the operation: it must not happen within MPI.
    """
    import numpy as np

    if not isinstance(value, np.ndarray | np.generic) or type(value).__module__ != "numpy":
        return value, None
    array = np.ascontiguousarray(value) if value.shape else np.asarray(value).reshape(())
    if array.dtype.hasobject:
        return value, None
    if name in reduction.LOGICAL:
        array = array.astype(bool)
    sample = np.ones(1, array.dtype) if array.dtype.kind != "V" else np.zeros(1, array.dtype)
    result = ufunc_of(name)(sample, sample)
    if result.dtype != array.dtype:
        raise TypeError(f"{name} of {array.dtype} gives {result.dtype}: give a function as op")
    return array, (array.dtype, array.shape)


def unlike(name: str, ranks: Sequence[int], kinds: Sequence[tuple[Any, ...] | None]) -> ValueError:
    """Return the error that says what the ranks have, where they had to have the same."""
    alike: dict[str, list[int]] = {}
    for rank, kind in zip(ranks, kinds, strict=True):
        alike.setdefault("no array" if kind is None else f"{kind[0]} of shape {kind[1]}", []).append(rank)
    text = "; ".join(f"{what} on rank{'s' * (len(on) > 1)} {', '.join(map(str, on[:8]))}" for what, on in alike.items())
    return ValueError(f"{name!r} is not the same kind of array on all ranks: {text}")
