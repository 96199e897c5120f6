"""A backend of joblib: ``joblib.parallel_config(backend="hpc")``. The only place that imports joblib."""

import sys
import weakref
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any

from joblib.parallel import (
    BACKENDS,
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
    register_parallel_backend,
)

from hpc.client.balanced import LoadBalancedView
from hpc.client.executor import ViewExecutor
from hpc.wire.functions import dump_function, load_function

if TYPE_CHECKING:
    from hpc.client.asyncresult import AsyncResult

NAME = "hpc"


class HpcBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """Runs the calls of `joblib.Parallel` on the engines of a view.

    Parameters
    ----------
    view : LoadBalancedView or callable, optional
        Where, or what makes that view; by default any engine of this user's newest cluster.
    """

    default_n_jobs = -1  # who names this backend means all engines
    supports_retrieve_callback = True
    supports_return_generator = True
    supports_timeout = True

    def __init__(self, view: LoadBalancedView | Callable[[], LoadBalancedView] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._view = view() if callable(view) else view
        self._pool: ViewExecutor | None = None
        self._under_way: weakref.WeakSet[AsyncResult] = weakref.WeakSet()

    @property
    def view(self) -> LoadBalancedView:
        """The view whose engines do the work."""
        if self._view is None:
            from hpc.client.remote import connect

            self._view = connect().load_balanced_view()
        return self._view

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many calls run at the same time: all engines of the view, or fewer if fewer are asked for."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if _on_engine():
            return 1
        n = len(self.view)
        if n_jobs is None:
            return n
        return min(n, n_jobs) if n_jobs > 0 else max(1, n + 1 + n_jobs)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        **_: Any,
    ) -> int:
        """Take note of who uses it; ``initializer(*initargs)`` is called on each engine before its first batch."""
        if _on_engine():
            # All engines may be at it, and would wait for one another.
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        self._pool = ViewExecutor(self.view, initializer=initializer, initargs=initargs)
        return self.effective_n_jobs(n_jobs)

    def submit(self, func: Any, callback: Callable[[Any], None] | None = None) -> "AsyncResult":
        """Give a batch of calls to an engine."""
        func.items = [(_Carried(f) if isinstance(f, FunctionType) else f, args, kw) for f, args, kw in func.items]
        # The batch is an argument, not the function: an engine keeps every function that it has seen.
        if self._pool is None:
            self._pool = ViewExecutor(self.view)
        result = self._pool.submit(_call, func)
        self._under_way.add(result)
        if callback is not None:
            result.add_done_callback(callback)
        return result

    apply_async = submit  # its name in older versions of joblib

    def retrieve_result_callback(self, out: "AsyncResult") -> Any:
        """Return the values of a batch, or raise what it raised."""
        return out.result()

    def terminate(self) -> None:
        """Forget how long batches took, and what they needed: the next ones may be of something else."""
        self.reset_batch_stats()
        self._pool = None

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel the batches that no engine has begun."""
        for result in list(self._under_way):
            if not result.done():
                result.abort()


def _on_engine() -> bool:
    """Say whether this process is an engine. Asked by name: the client knows nothing of engines."""
    return getattr(sys.modules.get("hpc.engine.current"), "engine", None) is not None


class _Carried:
    """A function that travels as those given to views do: by value where the engines cannot import it."""

    def __init__(self, f: FunctionType) -> None:
        self.f = f

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, bytes, bytes]]:
        blob = dump_function(self.f)
        return _unpacked, (blob.name, blob.by_reference, blob.by_value)


def _unpacked(name: str, by_reference: bytes, by_value: bytes) -> Callable[..., Any]:
    loaded = load_function(name, by_reference, by_value)
    loaded.prepare()
    return loaded.call


def _call(batch: Callable[[], Any]) -> Any:
    offer()  # a call may use joblib in its turn
    return batch()


def register(
    name: str = NAME, view: LoadBalancedView | Callable[[], LoadBalancedView] | None = None, default: bool = False
) -> None:
    """Make a backend of that name known to joblib, which runs on that view, or on the newest cluster of this user."""
    factory = HpcBackend if view is None else partial(HpcBackend, view)
    register_parallel_backend(name, factory, make_default=default)


def offer() -> None:
    """Make the backend known under its own name, unless there is one of that name."""
    if NAME not in BACKENDS:
        register()
