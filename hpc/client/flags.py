"""Settings of a load-balanced view: attributes that are checked when they are set."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from hpc.client.dependency import Dependency
from hpc.wire import messages as m

if TYPE_CHECKING:
    from hpc.client.balanced import LoadBalancedView


class Flag:
    """One setting, with its value if nobody sets it, and a function that checks what is set."""

    def __init__(self, default: Any, check: Callable[[str, Any], Any], doc: str) -> None:
        self.default, self.check, self.__doc__ = default, check, doc

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<Flag {self.name}, {self.default!r} by default>"

    def __get__(self, view: "LoadBalancedView | None", owner: type) -> Any:
        return self if view is None else view._flags.get(self.name, self.default)

    def __set__(self, view: "LoadBalancedView", value: Any) -> None:
        value = self.check(self.name, value)
        if value == self.default and not isinstance(value, Dependency):
            view._flags.pop(self.name, None)
        else:
            view._flags[self.name] = value
        view._settle()


def count(name: str, value: Any) -> int:
    """Check a number of times."""
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} must be a number that is not negative: {value!r}")
    return int(value)


def number(name: str, value: Any) -> float:
    """Check any finite number."""
    found = float(value)
    if not math.isfinite(found):
        raise ValueError(f"{name} must be a finite number: {value}")
    return found


def share(name: str, value: Any) -> float:
    """Check a share of the engines."""
    found = float(value)
    if not m.SMALLEST_SHARE <= found <= m.LARGEST_SHARE:
        raise ValueError(f"{name} must be from {m.SMALLEST_SHARE:g} to {m.LARGEST_SHARE:g}, 1 as usual: {value}")
    return found


def seconds(name: str, value: Any) -> float:
    """Check a time that is known, or 0."""
    if not 0 <= float(value) < math.inf:
        raise ValueError(f"{name} must be seconds, or 0 if that is not known: {value}")
    return float(value)


def limit(name: str, value: Any) -> float | None:
    """Check a time limit; None, 0 and -1 are none, infinity is one."""
    if value is None or value in (0, -1):
        return None
    if not float(value) > 0:
        raise ValueError(f"{name} must be seconds, or None for no limit: {value}")
    return float(value)


def names(name: str, value: Any) -> tuple[str, ...]:
    """Check names: one, or several."""
    found = (value,) if isinstance(value, str) else tuple(value or ())
    if not all(isinstance(each, str) and each for each in found):
        raise TypeError(f"{name} must be names, not {value!r}")
    return found


def amounts(name: str, value: Mapping[str, float] | None) -> dict[str, float]:
    """Check amounts by name."""
    found = {each: float(amount) for each, amount in (value or {}).items()}
    if not all(0 <= amount < math.inf for amount in found.values()):
        raise ValueError(f"{name} must be amounts that are not negative: {value}")
    return found


def text(_name: str, value: Any) -> str:
    """Check a text; None is none."""
    return "" if value is None else str(value)


def dependency(_name: str, value: Any) -> Dependency | None:
    """Check what tasks wait for: results, names of tasks, or a `Dependency` of them."""
    if value is None or isinstance(value, Dependency):
        return value
    if isinstance(value, Iterable) and not isinstance(value, str) and not hasattr(value, "task_ids"):
        value = list(value)
        if not value:
            return None
    return Dependency(value)
