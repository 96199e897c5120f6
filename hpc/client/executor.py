"""Views as executors of `concurrent.futures`."""

import atexit
import logging
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from concurrent.futures import Executor as BaseExecutor
from typing import Any, TypeAlias

from hpc.client.asyncresult import AsyncResult
from hpc.client.balanced import LoadBalancedView
from hpc.client.mapresult import MapResult
from hpc.client.view import DirectView
from hpc.errors import EngineLost

log = logging.getLogger("concurrent.futures")  # where the executors of the library say the same

View: TypeAlias = LoadBalancedView | DirectView


class ViewExecutor(BaseExecutor):
    """A `concurrent.futures.Executor` whose workers are the engines of a view.

    Each call goes to an engine that is free; over a direct view of one engine to that one.
    The engines stay when it is shut down. `starmap`, ``unordered`` and `bootup` are as in `mpi4py.futures`.

    Parameters
    ----------
    view : LoadBalancedView or DirectView
        Whose engines.
    initializer, initargs : callable, tuple
        Called once on each engine, also on those that come later, before it gets a call of this executor.
    """

    def __init__(
        self,
        view: View | None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if isinstance(view, DirectView) and not isinstance(view.targets, int):
            view = view._balanced()  # each call is for one engine
        self._view = view
        self._initializer, self._initargs = initializer, initargs
        self._initialised: set[tuple[int, str, int]] = set()  # engine id, host, pid: a new process begins anew
        self._initialising: list[AsyncResult] = []
        self._broken = ""
        self._closed = False
        self._results: weakref.WeakSet[AsyncResult] = weakref.WeakSet()
        # What was submitted is done before the interpreter ends, as with every executor.
        self._finish = _Finish(self._results)

    def __repr__(self) -> str:
        state = f"broken: {self._broken}" if self._broken else "shut down" if self._closed else "open"
        return f"<{type(self).__name__} of {self._view!r}, {state}>"

    @property
    def view(self) -> View:
        """The view whose engines do the work."""
        assert self._view is not None  # noqa: S101 - a subclass that makes it later overrides this
        return self._view

    @property
    def num_workers(self) -> int:
        """How many engines there are to work."""
        return len(self.view)

    # ------------------------------------------------------------ calls

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Have an engine call ``fn(*args, **kwargs)``; return the future.

        Raises
        ------
        RuntimeError
            The executor was shut down.
        BrokenExecutor
            The initializer has failed on an engine.
        """
        self._prepare()
        result = self.view.apply_async(fn, *args, **kwargs)
        self._results.add(result)
        self._finish.arm()
        return result

    def map(
        self,
        fn: Callable[..., Any],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        unordered: bool = False,
    ) -> Iterator[Any]:
        """Call ``fn`` with the items of the iterables; yield the values as they come, in the order of the items.

        Parameters
        ----------
        timeout : float, optional
            Seconds from now after which the iteration raises `TimeoutError`.
        chunksize : int, optional
            Items that travel together; by default what suits their number and that of the engines.
        unordered : bool
            Yield values in the order in which they come.
        """
        self._prepare()
        result = self.view.map_async(fn, *iterables, chunksize=chunksize, ordered=not unordered)
        self._results.add(result)
        self._finish.arm()
        assert isinstance(result, MapResult)  # noqa: S101 - what maps return
        return result.iterate(timeout)

    def starmap(
        self,
        fn: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        timeout: float | None = None,
        chunksize: int | None = None,
        unordered: bool = False,
    ) -> Iterator[Any]:
        """Do as `map` does, with all arguments of a call in one tuple."""
        return self.map(_Star(fn), list(iterable), timeout=timeout, chunksize=chunksize, unordered=unordered)

    def bootup(self, wait: bool = True) -> "ViewExecutor":
        """Connect, and have the initializer run; with ``wait``, until it is through on all engines."""
        self._begin()
        if wait:
            self._prepare()
        return self

    def _prepare(self) -> None:
        """See that the executor may be used, and that every engine has been initialised."""
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if self._finish.over:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        if self._initializer is None:
            return
        self._begin()
        while self._initialising:
            result = self._initialising[0]
            try:
                result.get()
            except EngineLost:
                pass  # with the engine goes the need to initialise it
            except Exception as error:
                self._broken = f"the initializer failed on engine {result.engine_id}: {type(error).__name__}"
                log.critical("Exception in initializer:", exc_info=True)
                raise BrokenExecutor(self._broken) from error
            self._initialising.remove(result)

    def _begin(self) -> None:
        """Have the initializer run on engines that are new."""
        view, initializer = self.view, self._initializer
        rows = view.client._connected().roster.engines
        if initializer is None:
            return
        if self._broken:
            raise BrokenExecutor(self._broken)
        wanted = view.targets
        ids = list(rows) if wanted is None else [wanted] if isinstance(wanted, int) else wanted
        for key in [(i, rows[i].host, rows[i].pid) for i in ids if i in rows]:
            if key not in self._initialised:
                self._initialised.add(key)
                self._initialising.append(view.client[key[0]].apply_async(initializer, *self._initargs))

    # ------------------------------------------------------------ the end

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; with ``wait``, return when those that were taken have ended. The engines stay.

        Parameters
        ----------
        cancel_futures : bool
            Cancel the calls that no engine has begun.
        """
        self._closed = True
        pending = [result for result in list(self._results) if not result.done()]
        if cancel_futures:
            for result in pending:
                result.abort()
        if wait:
            for result in pending:
                result.wait()
            self._finish.detach()


class _Star:
    """A function that takes its arguments in one tuple."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        self.__name__ = getattr(fn, "__name__", type(fn).__name__)

    def __call__(self, args: Iterable[Any]) -> Any:
        return self.fn(*args)


class _Finish:
    """Waits, when the interpreter ends, for what an executor has under way; does not keep the executor alive."""

    def __init__(self, results: "weakref.WeakSet[AsyncResult]") -> None:
        self.over = False
        self.then: Callable[[], object] | None = None  # what else is to be done then
        self._results = results
        self._armed = False
        atexit.register(self._end)

    def arm(self) -> None:
        """Wait at the end, before the connection is closed: call it when there is one, since the last come first."""
        if not self._armed:
            self._armed = True
            atexit.register(self._finish)

    def wait(self) -> None:
        """Wait for all that was submitted."""
        for result in list(self._results):
            result.wait()

    def detach(self) -> None:
        """Do nothing at the end of the interpreter: nothing is under way any more."""
        atexit.unregister(self._end)
        atexit.unregister(self._finish)

    def _end(self) -> None:
        self.over = True

    def _finish(self) -> None:
        self.wait()
        if self.then is not None:
            self.then()
