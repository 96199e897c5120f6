"""What a reduction does with two values, wherever it is done: on the client, between engines, between ranks.

Arrays are combined item by item, as numpy does it, and numbers and other objects as Python does it. A function gets two
values at a time, in the order of the targets. What is combined is a tree over neighbours: associative is enough.
"""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

Operation: TypeAlias = str | Callable[[Any, Any], Any]

# Operation -> numpy's function for arrays.
UFUNCS: Final = {
    "sum": "add",
    "prod": "multiply",
    "max": "maximum",
    "min": "minimum",
    "land": "logical_and",
    "lor": "logical_or",
}
LOGICAL: Final = ("land", "lor")
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
    text = f"op must be a function of two values or one of {', '.join(UFUNCS)}, not {op!r}"
    if isinstance(op, str) and op not in UFUNCS:
        raise ValueError(text)
    if not isinstance(op, str) and not callable(op):
        raise TypeError(text)


def combine(left: Any, right: Any, op: Operation, *, spare: Any = None) -> Any:
    """Return two values combined.

    Parameters
    ----------
    spare
        An array that may be overwritten, such as ``left`` if nobody else has it: the result stands there if it fits.
    """
    if not isinstance(op, str):
        return op(left, right)
    if not hasattr(left, "__array_ufunc__") and not hasattr(right, "__array_ufunc__"):
        return _PLAIN[op](left, right)
    import numpy

    ufunc = getattr(numpy.ma if _is_masked(left) or _is_masked(right) else numpy, UFUNCS[op])
    alike = type(left) is type(right) is type(spare) is numpy.ndarray and left.dtype == right.dtype == spare.dtype
    if not alike or not left.shape == right.shape == spare.shape or not left.ndim or op in LOGICAL:
        return ufunc(left, right)
    return ufunc(left, right, out=spare) if spare.flags.writeable else ufunc(left, right)


def _is_masked(value: Any) -> bool:
    return hasattr(value, "mask") and hasattr(value, "filled")


def pairs(n: int) -> list[tuple[int, int]]:
    """Return who takes whose value in, in order, until number 0 has all of them: each takes its right neighbour's.

    >>> pairs(5)
    [(0, 1), (2, 3), (0, 2), (0, 4)]
    """
    steps, distance = [], 1
    while distance < n:
        steps += [(left, left + distance) for left in range(0, n - distance, 2 * distance)]
        distance *= 2
    return steps
