"""`Executor`: an executor of `concurrent.futures` with a cluster of its own."""

import threading
from collections.abc import Callable
from typing import Any

from hpc.client.executor import View, ViewExecutor
from hpc.cluster.cluster import Cluster


class Executor(ViewExecutor):
    """A `concurrent.futures.Executor` that starts engines when it gets its first call, and ends them at `shutdown`.

    ::

        with hpc.Executor(8) as pool:
            list(pool.map(f, xs))

    Parameters
    ----------
    max_workers : int, optional
        How many engines; as many as there are cores by default.
    initializer, initargs : callable, tuple
        Called once on each engine before it gets a call.
    **options
        Of `Cluster`: ``launcher``, ``mpi`` and so on.

    Raises
    ------
    StartError
        By the first call: the engines could not be started.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        **options: Any,
    ) -> None:
        if max_workers is not None and max_workers < 1:
            raise ValueError(f"max_workers must be greater than 0, not {max_workers}")
        super().__init__(None, initializer=initializer, initargs=initargs)
        self._cluster = Cluster(max_workers, **options)
        self._finish.then = self._cluster.stop
        self._starting = threading.Lock()

    @property
    def view(self) -> View:
        """The load-balanced view of its engines, which are started if they are not there yet."""
        with self._starting:
            if self._view is None:
                if self._closed:
                    raise RuntimeError("the executor was shut down before its engines were started")
                self._view = self._cluster.__enter__().load_balanced_view()
            return self._view

    @property
    def num_workers(self) -> int:
        """How many engines do, or will do, the work."""
        return self._cluster.n

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and end the engines when those that were taken have ended; with ``wait``, wait for that.

        Parameters
        ----------
        cancel_futures : bool
            Cancel the calls that no engine has begun.
        """
        super().shutdown(wait, cancel_futures=cancel_futures)
        if self._view is None:
            return
        if wait:
            self._cluster.stop()
        else:
            threading.Thread(target=self._stop_when_done, name="hpc-executor").start()

    def _stop_when_done(self) -> None:
        self._finish.wait()
        self._cluster.stop()
