"""Functions that may run only where a condition is met: on engines that have a module, or whatever one asks for."""

import importlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from hpc.errors import DependencyError


class Condition:
    """A call that must not return False where a task is to run; or it may raise `DependencyError`, which says more."""

    def __init__(self, f: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.f, self.args, self.kwargs = f, args, dict(kwargs)

    def __repr__(self) -> str:
        arguments = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        return f"{getattr(self.f, '__name__', self.f)}({', '.join(arguments)})"

    def __call__(self) -> None:
        """Raise `DependencyError` if it is not met."""
        if self.f(*self.args, **self.kwargs) is False:
            raise DependencyError(f"{self!r} is False")


class Requirement:
    """Modules that must be there, and names that are bound to objects, where a task is to run."""

    def __init__(self, modules: list[str], names: Mapping[str, Any]) -> None:
        self.modules, self.names = modules, dict(names)

    def __repr__(self) -> str:
        return f"<Requirement of {', '.join([*self.modules, *self.names])}>"

    def __call__(self) -> None:
        """Import the modules and bind the names; `DependencyError` if a module is not there."""
        here = sys.modules["__main__"].__dict__
        for module in self.modules:
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise DependencyError(f"the module {module} is needed: {error}") from error
            package = module.partition(".")[0]
            here[package] = sys.modules[package]
        here.update(self.names)


class Conditions:
    """All that must be met, as one call."""

    def __init__(self, conditions: "tuple[Condition | Requirement, ...]") -> None:
        self.conditions = conditions

    def __repr__(self) -> str:
        return f"<Conditions {self.conditions}>"

    def __call__(self) -> None:
        """Raise `DependencyError` if one is not met."""
        for condition in self.conditions:
            condition()


class Conditional:
    """A function with conditions: what `depend` and `require` make. Called directly it checks them first."""

    def __init__(self, f: Callable[..., Any], *conditions: Condition | Requirement) -> None:
        inner: Conditional | None = f if isinstance(f, Conditional) else None
        self.f: Callable[..., Any] = f if inner is None else inner.f
        self.conditions: Conditions = Conditions(
            conditions if inner is None else (*conditions, *inner.conditions.conditions)
        )
        self.__name__ = self.__qualname__ = getattr(f, "__name__", None) or type(f).__name__
        self.__doc__ = f.__doc__

    def __repr__(self) -> str:
        return f"<Conditional {self.__name__}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Check the conditions, and call the function."""
        self.conditions()
        return self.f(*args, **kwargs)


class depend:  # noqa: N801 - a decorator
    """Decorate a function that may run only where ``f(*args, **kwargs)`` does not return False.

    A load-balanced view has engines asked, and gives the task to one that agrees; elsewhere `DependencyError` is
    raised. What an engine says is believed for a second, also for other tasks with the same condition.
    """

    def __init__(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        self.condition = Condition(f, args, kwargs)

    def __repr__(self) -> str:
        return f"<depend {self.condition!r}>"

    def __call__(self, f: Callable[..., Any]) -> Conditional:
        """Return the function with its condition."""
        return Conditional(f, self.condition)


def require(*objects: Any, **names: Any) -> Callable[[Callable[..., Any]], Conditional]:
    """Decorate a function that needs modules imported, or objects bound, where it runs.

    Modules are given as such or by name, functions by position, other objects by keyword. A load-balanced view gives
    the task to an engine that has the modules.
    """
    modules = []
    for needed in objects:
        if isinstance(needed, str | ModuleType):
            modules.append(needed if isinstance(needed, str) else needed.__name__)
        elif hasattr(needed, "__name__"):
            names[needed.__name__] = needed
        else:
            raise TypeError(f"give {needed!r} by keyword, so that it has a name")
    return lambda f: Conditional(f, Requirement(modules, names))
