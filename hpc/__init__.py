"""Interactive parallel Python for MPI clusters.

>>> import hpc
>>> rc = hpc.connect()                       # doctest: +SKIP
>>> rc[:].execute("x = rank ** 2")           # doctest: +SKIP

Nothing is imported before it is used: ``import hpc`` costs next to nothing, and never initialises MPI.
"""

import importlib

__version__ = "0.1.0"

TYPE_CHECKING = False  # type checkers take it for true; to import `typing` would cost more than all the rest

if TYPE_CHECKING:
    from hpc import errors as errors
    from hpc.client import AsyncResult as AsyncResult
    from hpc.client import DirectView as DirectView
    from hpc.client import Group as Group
    from hpc.client import LoadBalancedView as LoadBalancedView
    from hpc.client import RemoteController as RemoteController
    from hpc.client import connect as connect
    from hpc.client.dependency import Dependency as Dependency
    from hpc.cluster import Cluster as Cluster
    from hpc.cluster.executor import Executor as Executor
    from hpc.engine.current import comm as comm
    from hpc.engine.hooks import on_walltime as on_walltime
    from hpc.engine.walltime import time_left as time_left
    from hpc.wire.conditions import depend as depend
    from hpc.wire.conditions import require as require
    from hpc.wire.objects import Reference as Reference

    Client = RemoteController

# Name here: module, name there ("" is the module itself).
_EXPORTS = {
    "AsyncResult": ("hpc.client", "AsyncResult"),
    "Client": ("hpc.client", "RemoteController"),
    "Cluster": ("hpc.cluster", "Cluster"),
    "Dependency": ("hpc.client.dependency", "Dependency"),
    "DirectView": ("hpc.client", "DirectView"),
    "Executor": ("hpc.cluster.executor", "Executor"),
    "Group": ("hpc.client", "Group"),
    "LoadBalancedView": ("hpc.client", "LoadBalancedView"),
    "Reference": ("hpc.wire.objects", "Reference"),
    "RemoteController": ("hpc.client", "RemoteController"),
    "comm": ("hpc.engine.current", "comm"),
    "connect": ("hpc.client", "connect"),
    "depend": ("hpc.wire.conditions", "depend"),
    "errors": ("hpc.errors", ""),
    "on_walltime": ("hpc.engine.hooks", "on_walltime"),
    "require": ("hpc.wire.conditions", "require"),
    "time_left": ("hpc.engine.walltime", "time_left"),
}

__all__ = [  # noqa: PLE0604 - the names are those of the table
    "__version__",
    "register_joblib_backend",
    *_EXPORTS,
]


def load_ipython_extension(shell: object) -> None:
    """Make ``%px`` and its relatives known: what ``%load_ext hpc`` calls."""
    from hpc.magics import load_ipython_extension

    load_ipython_extension(shell)


def register_joblib_backend(name: str = "hpc", make_default: bool = False) -> None:
    """Have ``joblib.parallel_config(backend="hpc")`` use the engines of this user's newest cluster."""
    from hpc.client.joblib import register

    register(name, None, make_default)


def __getattr__(name: str) -> object:
    try:
        module, attribute = _EXPORTS[name]
    except KeyError:
        raise AttributeError(f"module 'hpc' has no attribute {name!r}") from None
    found = importlib.import_module(module)
    value = getattr(found, attribute) if attribute else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
