"""A backend of joblib: ``joblib.parallel_config(backend="hpc")``. The only place that imports joblib."""

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from joblib.parallel import AutoBatchingMixin, ParallelBackendBase, register_parallel_backend

from hpc.client.balanced import LoadBalancedView

if TYPE_CHECKING:
    from hpc.client.asyncresult import AsyncResult

NAME = "hpc"


class HpcBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """Runs the calls of `joblib.Parallel` on the engines of a view.

    Parameters
    ----------
    view : LoadBalancedView, optional
        Where; by default any engine of this user's newest cluster.
    """

    supports_retrieve_callback = True
    supports_return_generator = True
    supports_timeout = True

    def __init__(self, view: LoadBalancedView | None = None, **options: Any) -> None:
        super().__init__(**options)
        if view is None:
            from hpc.client.remote import connect

            view = connect().load_balanced_view()
        self.view = view
        self._under_way: weakref.WeakSet[AsyncResult] = weakref.WeakSet()

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many calls run at the same time: all engines of the view, or fewer if fewer are asked for."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        n = len(self.view)
        if n_jobs is None:
            return n
        return min(n, n_jobs) if n_jobs > 0 else max(1, n + 1 + n_jobs)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
        """Take note of who uses it."""
        self.parallel = parallel
        return self.effective_n_jobs(n_jobs)

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], None] | None = None) -> "AsyncResult":
        """Give a batch of calls to an engine."""
        # The batch is an argument, not the function: an engine keeps every function that it has seen.
        result = self.view.apply_async(_call, func)
        self._under_way.add(result)
        if callback is not None:
            result.add_done_callback(callback)
        return result

    apply_async = submit  # its name in older versions of joblib

    def retrieve_result_callback(self, out: "AsyncResult") -> Any:
        """Return the values of a batch, or raise what it raised."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel the batches that no engine has begun."""
        for result in list(self._under_way):
            if not result.done():
                result.abort()


def _call(batch: Callable[[], Any]) -> Any:
    return batch()


def register(name: str = NAME, view: LoadBalancedView | None = None, default: bool = False) -> None:
    """Make a backend of that name known to joblib, which runs on that view, or on the newest cluster of this user."""
    register_parallel_backend(name, lambda **options: HpcBackend(**{"view": view, **options}), make_default=default)
