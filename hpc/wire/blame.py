"""Which part of an object cannot be pickled: the path to it, for the error message."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any, Final

# An object may be large, and each try costs a pickle of a part: the path then ends where the search did.
MAX_TRIES: Final = 1000
MAX_DEPTH: Final = 32


def find(obj: Any, dumps: Callable[[Any], object]) -> tuple[str, Any, BaseException | None]:
    """Return the path to the innermost part that ``dumps`` refuses, the part, and what it raises for that.

    The path is written as Python reaches it: ``[0]['lock']``, ``.connection``; it is empty if it is the object itself.
    """
    tries = MAX_TRIES
    path, seen = "", {id(obj)}
    error = _refusal(obj, dumps)
    for _ in range(MAX_DEPTH):
        for step, part in _parts(obj):
            if id(part) in seen or isinstance(part, (str, bytes, int, float, complex, type(None))):
                continue
            tries -= 1
            if tries < 0:
                return path, obj, error
            refusal = _refusal(part, dumps)
            if refusal is not None:
                path, obj, error = path + step, part, refusal
                seen.add(id(part))
                break
        else:
            break
    return path, obj, error


def _refusal(obj: Any, dumps: Callable[[Any], object]) -> BaseException | None:
    try:
        dumps(obj)
    except Exception as error:
        return error
    return None


def _parts(obj: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an object is made of, as far as pickle would look into it."""
    if isinstance(obj, Mapping):
        for key, value in obj.items():
            yield f"[{_short(key)}]", value
            yield f" (key {_short(key)})", key
    elif isinstance(obj, Sequence) and not isinstance(obj, (str, bytes, bytearray, memoryview, range)):
        for i, value in enumerate(obj):
            yield f"[{i}]", value
    elif isinstance(obj, Set):
        for value in obj:
            yield f" (item {_short(value)})", value
    elif isinstance(obj, functools.partial):
        yield ".func", obj.func
        yield ".args", obj.args
        yield ".keywords", obj.keywords
    if getattr(obj, "__closure__", None) and hasattr(obj, "__code__"):
        for name, cell in zip(obj.__code__.co_freevars, obj.__closure__, strict=False):
            yield f" variable {name!r} of {obj.__qualname__}", cell.cell_contents
        yield ".__defaults__", getattr(obj, "__defaults__", None)
    if hasattr(obj, "__self__") and not isinstance(obj.__self__, type(functools)):
        yield ".__self__", obj.__self__
    attributes = getattr(obj, "__dict__", None)
    if isinstance(attributes, dict) and not isinstance(obj, type):
        for name, value in attributes.items():
            yield f".{name}", value


def _short(key: Any) -> str:
    try:
        text = repr(key)
    except Exception as error:
        return f"<repr raised {type(error).__name__}>"
    return text if len(text) <= 40 else text[:37] + "..."
