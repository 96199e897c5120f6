"""Combining what a name means on several engines into one value.

The rules are those of the MPI route: arrays are combined item by item and keep their type, numbers and other objects
are combined as Python does it, and functions get two values at a time, in the order of the targets.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

Operation: TypeAlias = str | Callable[[Any, Any], Any]

_UFUNCS: Final = {
    "sum": "add",
    "prod": "multiply",
    "max": "maximum",
    "min": "minimum",
    "land": "logical_and",
    "lor": "logical_or",
}
_PLAIN: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "sum": lambda a, b: a + b,
    "prod": lambda a, b: a * b,
    "max": lambda a, b: b if b > a else a,
    "min": lambda a, b: b if b < a else a,
    "land": lambda a, b: bool(a and b),
    "lor": lambda a, b: bool(a or b),
}


def check(op: Operation) -> None:
    """Raise ValueError or TypeError if this is no operation."""
    if isinstance(op, str) and op not in _UFUNCS:
        raise ValueError(f"op must be a function of two values or one of {', '.join(_UFUNCS)}, not {op!r}")
    if not isinstance(op, str) and not callable(op):
        raise TypeError(f"op must be a function of two values or one of {', '.join(_UFUNCS)}, not {op!r}")


def reduce(values: Sequence[Any], op: Operation) -> Any:
    """Return all values combined into one. Arrays among them may be overwritten."""
    whole = values[0]
    for value in values[1:]:
        whole = _combine(whole, value, op)
    # Truth values also if there is only one engine.
    return _combine(whole, whole, op) if len(values) == 1 and op in ("land", "lor") else whole


def _combine(left: Any, right: Any, op: Operation) -> Any:
    if not isinstance(op, str):
        return op(left, right)
    if not hasattr(left, "__array_ufunc__") and not hasattr(right, "__array_ufunc__"):
        return _PLAIN[op](left, right)
    import numpy

    ufunc = getattr(numpy.ma if _is_masked(left) or _is_masked(right) else numpy, _UFUNCS[op])
    alike = type(left) is type(right) is numpy.ndarray and left.dtype == right.dtype and left.shape == right.shape
    if not alike or not left.ndim or op in ("land", "lor") or left.dtype.hasobject:
        return ufunc(left, right)
    # What was received is ours: no third array.
    return ufunc(left, right, out=left)


def _is_masked(value: Any) -> bool:
    return hasattr(value, "mask") and hasattr(value, "filled")
