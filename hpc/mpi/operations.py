"""The operations of a reduction by name: on numbers and other objects as Python does them, on arrays as numpy does."""

from collections.abc import Callable, Sequence
from typing import Any, Final

NAMES: Final = ("sum", "prod", "max", "min", "land", "lor")
_UFUNCS: Final = {
    "sum": "add",
    "prod": "multiply",
    "max": "maximum",
    "min": "minimum",
    "land": "logical_and",
    "lor": "logical_or",
}


class Operation:
    """A function of two objects. ``ufunc`` is numpy's for arrays of a fixed size, None for functions of users."""

    def __init__(self, function: str | Callable[[Any, Any], Any]) -> None:
        self.ufunc: Any = None
        if isinstance(function, str):
            import numpy

            self.ufunc = getattr(numpy, _UFUNCS[function])
        self._function = function

    def __repr__(self) -> str:
        return f"<Operation {self._function!r}>"

    def __call__(self, left: Any, right: Any) -> Any:
        """Combine two objects."""
        if callable(self._function):
            return self._function(left, right)
        if hasattr(left, "__array_ufunc__") or hasattr(right, "__array_ufunc__"):
            return self.ufunc(left, right)
        return _PLAIN[self._function](left, right)


_PLAIN: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "sum": lambda a, b: a + b,
    "prod": lambda a, b: a * b,
    "max": lambda a, b: b if b > a else a,
    "min": lambda a, b: b if b < a else a,
    "land": lambda a, b: bool(a and b),
    "lor": lambda a, b: bool(a or b),
}


def find(function: str | Callable[[Any, Any], Any]) -> Operation:
    """Return the operation; `ValueError` if there is none of that name."""
    if isinstance(function, str) and function not in NAMES:
        raise ValueError(f"op must be a function of two objects or one of {', '.join(NAMES)}, not {function!r}")
    if not isinstance(function, str) and not callable(function):
        raise TypeError(f"op must be a function of two objects or one of {', '.join(NAMES)}, not {function!r}")
    return Operation(function)


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
    if name in ("land", "lor"):
        array = array.astype(bool)
    sample = np.ones(1, array.dtype) if array.dtype.kind != "V" else np.zeros(1, array.dtype)
    result = getattr(np, _UFUNCS[name])(sample, sample)
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
