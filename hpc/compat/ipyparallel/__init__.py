"""ipyparallel's names, for code that was written for it.

::

    import hpc.compat.ipyparallel as ipp
    rc = ipp.Client()
    ar = rc[:].apply_async(os.getpid)

What differs in ipyparallel is as it is there: views do not wait unless ``block`` is set, errors have ``elist`` and
``render_traceback()``, references may be expressions. What there is no work for says so, as a NotImplementedError. The
page docs/howto/porting.md goes through it name by name.
"""

from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION

from hpc.client.dependency import Dependency
from hpc.client.executor import ViewExecutor
from hpc.client.lazymap import LazyMap as LazyMapIterator
from hpc.client.parallel import ParallelFunction, RemoteFunction
from hpc.compat.ipyparallel import error
from hpc.compat.ipyparallel.client import Client
from hpc.compat.ipyparallel.cluster import Cluster
from hpc.compat.ipyparallel.error import (
    CompositeError,
    EngineError,
    NoEnginesRegistered,
    RemoteError,
    TaskAborted,
    TaskTimeout,
    TimeoutError,
    UnmetDependency,
)
from hpc.compat.ipyparallel.functions import Reference, interactive, parallel, remote
from hpc.compat.ipyparallel.results import AsyncMapResult, AsyncResult
from hpc.compat.ipyparallel.views import DirectView, LoadBalancedView
from hpc.wire.conditions import Conditional as dependent  # noqa: N813 - its name there
from hpc.wire.conditions import depend, require

# Of which ipyparallel these are the names, for programs that look.
version_info = (9, 2, 0)
__version__ = "9.2.0"

AsyncHubResult = AsyncResult
BroadcastView = DirectView

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "AsyncHubResult",
    "AsyncMapResult",
    "AsyncResult",
    "BroadcastView",
    "Client",
    "Cluster",
    "CompositeError",
    "Dependency",
    "DirectView",
    "EngineError",
    "LazyMapIterator",
    "LoadBalancedView",
    "NoEnginesRegistered",
    "ParallelFunction",
    "Reference",
    "RemoteError",
    "RemoteFunction",
    "TaskAborted",
    "TaskTimeout",
    "TimeoutError",
    "UnmetDependency",
    "ViewExecutor",
    "__version__",
    "depend",
    "dependent",
    "error",
    "interactive",
    "load_ipython_extension",
    "parallel",
    "register_joblib_backend",
    "remote",
    "require",
    "version_info",
]


def load_ipython_extension(shell: object) -> None:
    """Make ``%px`` and its relatives known: what ``%load_ext hpc.compat.ipyparallel`` calls."""
    from hpc.compat.ipyparallel.magics import activate

    activate(None, shell=shell)


def register_joblib_backend(name: str = "ipyparallel", make_default: bool = False) -> None:
    """Have ``joblib.parallel_config(backend="ipyparallel")`` use the engines of this user's newest cluster."""
    from hpc.client.joblib import register

    register(name, lambda: Client().load_balanced_view(), make_default)
