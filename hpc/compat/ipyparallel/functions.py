"""What ipyparallel does to functions: decorators, and references among their arguments."""

import sys
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import hpc
from hpc.client.parallel import ParallelFunction, RemoteFunction
from hpc.wire.conditions import Conditional

if TYPE_CHECKING:
    from hpc.compat.ipyparallel.views import View

Distribution: TypeAlias = Literal["block", "cyclic"]

_DISTS: dict[str, Distribution] = {"b": "block", "r": "cyclic"}


def distribution(dist: str) -> Distribution:
    """Return the name that `hpc` has for ipyparallel's ``"b"`` or ``"r"``; its own names are taken, too."""
    return _DISTS.get(dist, dist)  # type: ignore[arg-type]  # other names are refused where they are used


# ---------------------------------------------------------------- decorators


def interactive(f: Any) -> Any:
    """Have a function run with the engine's names as its globals, as if it had been defined in the session."""
    if isinstance(f, FunctionType):
        main = sys.modules["__main__"].__dict__
        new = FunctionType(f.__code__, main, f.__name__, f.__defaults__, f.__closure__)
        new.__kwdefaults__, new.__doc__ = f.__kwdefaults__, f.__doc__
        f = new
    f.__module__ = "__main__"
    return f


def remote(view: "View", block: bool | None = None) -> Callable[[Callable[..., Any]], RemoteFunction]:
    """Decorate a function so that calling it calls it on the targets of the view."""
    return view.remote(block)


def parallel(
    view: "View", dist: str = "b", block: bool | None = None, **options: Any
) -> Callable[[Callable[..., Any]], ParallelFunction]:
    """Decorate a function of sequences so that each target calls it with a part of them."""
    return view.parallel(dist, block, **options)


# ---------------------------------------------------------------- references


class Reference(hpc.Reference):
    """An expression, most often a name, that is evaluated on the engine, in place of an argument or a function.

    References may stand in lists, tuples and dicts that are arguments, too.
    """

    __slots__ = ()

    def evaluate(self) -> Any:
        """Return what it means here."""
        return eval(self.name, sys.modules["__main__"].__dict__)  # noqa: S307 - as any code that is sent to engines


class Resolving:
    """A function whose arguments, or who itself, are references."""

    def __init__(self, f: Callable[..., Any]) -> None:
        self.f = f
        self.__name__ = self.__qualname__ = getattr(f, "__name__", None) or getattr(f, "name", type(f).__name__)
        self.__doc__ = f.__doc__

    def __repr__(self) -> str:
        return f"<Resolving {self.__name__}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate the references, and call the function."""
        f = self.f.evaluate() if isinstance(self.f, Reference) else self.f
        return f(*map(resolved, args), **{name: resolved(value) for name, value in kwargs.items()})


def resolved(value: Any) -> Any:
    """Return a value with its references evaluated."""
    if isinstance(value, Reference):
        return value.evaluate()
    if not refers(value):
        return value
    if isinstance(value, dict):
        return {key: resolved(item) for key, item in value.items()}
    return type(value)(map(resolved, value))


def refers(value: Any) -> bool:
    """Say whether a value is a reference, or a list, tuple or dict that holds some."""
    if type(value) in (list, tuple, dict):
        return any(map(refers, value.values() if type(value) is dict else value))
    return isinstance(value, Reference)


def prepared(f: Any, args: Any, kwargs: Any = ()) -> Any:
    """Return what to call on the engine in the place of a function with these arguments."""
    needs = isinstance(f, Reference) or any(map(refers, args)) or any(map(refers, dict(kwargs).values()))
    if not needs:
        return f
    return Conditional(Resolving(f.f), *f.conditions.conditions) if isinstance(f, Conditional) else Resolving(f)
