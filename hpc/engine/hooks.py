"""What users want done on an engine before its allocation ends."""

import logging
from collections.abc import Callable, Hashable
from types import FunctionType
from typing import Any, TypeVar

Hook = TypeVar("Hook", bound=Callable[[], Any])

_hooks: dict[Hashable, Callable[[], Any]] = {}

log = logging.getLogger("hpc.engine")


def on_walltime(hook: Hook) -> Hook:
    """Have a function called, without arguments, on this engine before its allocation ends. A decorator, too.

    Hooks run in the main thread, in the order of their registration, when the engine has finished its work or has been
    interrupted in it; `hpc.time_left` says how long they have. Under MPI they may use the communicator, as all ranks of
    an allocation get there. A function of the same module and name replaces the one registered before, so that a cell
    can be run twice. In a process that is no engine nothing comes of it.
    """
    _hooks[_key(hook)] = hook
    return hook


def run_hooks() -> list[str]:
    """Call all hooks; return what went wrong, a line each."""
    troubles = []
    for hook in list(_hooks.values()):
        name = getattr(hook, "__qualname__", repr(hook))
        log.info("calling %s before the end", name)
        try:
            hook()
        except BaseException as error:  # also what is meant to end a program: it is about to
            log.exception("the hook %s fails", name)
            troubles.append(f"the hook {name} failed: {type(error).__name__}: {error}")
    return troubles


def _key(hook: Callable[[], Any]) -> Hashable:
    # Functions in functions, lambdas and methods share names without being one another's successors.
    if isinstance(hook, FunctionType) and "<" not in hook.__qualname__:
        return hook.__module__, hook.__qualname__
    return id(hook)
