"""`Client`: ipyparallel's name for a `RemoteController`, with its arguments and defaults."""

import functools
import os
import signal
import sys
import time
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for_futures
from typing import Any, NoReturn, Self

import hpc
from hpc.compat.ipyparallel.results import AsyncResult, adopt, seconds, uuid_of
from hpc.compat.ipyparallel.views import DirectView, LoadBalancedView
from hpc.errors import EngineLost

# What ipyparallel has, hpc's controller does not do, and why nothing can stand in for it.
_NOT_HERE = {
    "db_query": "the controller keeps no records of tasks",
    "hub_history": "the controller keeps no records of tasks",
    "purge_hub_results": "the controller keeps no records of tasks",
    "purge_results": "the controller keeps no records of tasks; results live as long as their AsyncResult",
    "purge_everything": "the controller keeps no records of tasks; results live as long as their AsyncResult",
    "resubmit": "the controller keeps no records of tasks; keep what you submit, and submit it again",
    "result_status": "ask the AsyncResult: ready(), successful(), metadata",
    "become_dask": "start dask's own cluster for it",
    "stop_dask": "start dask's own cluster for it",
}

_SEVERAL = (list, tuple, set, range)


class Client(hpc.RemoteController):
    """A cluster, as ipyparallel's code knows it; it connects at first use.

    Parameters
    ----------
    connection_info : path, optional
        The client's connection file.
    profile, cluster_id : str
        Together the name of the cluster, as `Cluster` makes it; by default the newest cluster of this user.
    timeout : float
        Seconds to wait for the controller.
    context, debug
        Without effect.

    Attributes
    ----------
    block : bool
        What views that are made from now on have for ``block``.
    """

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Return a client; here, so that a test may put its own in the place of this."""
        return super().__new__(cls)

    def __init__(
        self,
        connection_info: str | os.PathLike[str] | None = None,
        *,
        url_file: str | os.PathLike[str] | None = None,
        profile: str = "",
        cluster_id: str = "",
        timeout: float = 10.0,
        context: Any = None,
        debug: bool = False,
    ) -> None:
        name = name_of(profile, cluster_id) or None
        super().__init__(name=name, connection_file=connection_info or url_file, timeout=timeout)
        self.block = False
        self._given_out = array("Q")
        self._known: weakref.WeakSet[AsyncResult] = weakref.WeakSet()
        self._last: AsyncResult | None = None
        if "IPython" in sys.modules and _in_ipython():
            self.activate()

    @property
    def _engines(self) -> dict[int, str]:
        link = self._connected()
        return {engine: str(uuid_of(link, engine)) for engine in link.roster.engines}

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name in _NOT_HERE:
            return functools.partial(_refuse, name)
        raise AttributeError(f"ipyparallel's Client has no {name!r} here")

    def _ids_of(self, targets: Any) -> list[int]:
        try:
            return super()._ids_of(targets)
        except EngineLost as gone:
            raise IndexError(str(gone)) from gone

    # ------------------------------------------------------------ views

    def __getitem__(self, key: int | slice | Iterable[int]) -> DirectView:
        return DirectView(self, self.ids[key] if isinstance(key, slice) else self._targets_of(key), self.block)

    def __iter__(self) -> Iterator[DirectView]:
        for engine_id in self.ids:
            yield self[engine_id]

    def direct_view(self, targets: int | Iterable[int] | str | None = "all", **flags: Any) -> DirectView:
        """Return a view of certain engines; ``"all"`` also sees engines that come later."""
        view = DirectView(self, self._targets_of("all" if targets is None else targets), self.block)
        return view.set_flags(**flags)

    def broadcast_view(
        self, targets: int | Iterable[int] | str | None = "all", is_coalescing: bool = False, **flags: Any
    ) -> DirectView:
        """Do as `direct_view`: what is the same for all engines travels once in any case."""
        # Not by way of `direct_view`, which a program may have replaced by this.
        return Client.direct_view(self, targets, **flags)

    def load_balanced_view(self, targets: int | Iterable[int] | str | None = None, **flags: Any) -> LoadBalancedView:
        """Return a view that gives tasks to engines as they become free."""
        chosen = None if targets is None or targets == "all" else self._ids_of(self._targets_of(targets))
        return LoadBalancedView(self, chosen, block=self.block).set_flags(**flags)

    def executor(self, targets: int | Iterable[int] | str | None = None) -> Any:
        """Return an executor of `concurrent.futures` on a load-balanced view."""
        return self.load_balanced_view(targets).executor

    def activate(self, targets: int | Iterable[int] | str = "all", suffix: str = "") -> DirectView:
        """Return a view that ``%px`` and the others, with that suffix, work on from now on."""
        view = DirectView(self, targets if targets == "all" else self._targets_of(targets), True)
        view.activate(suffix)
        return view

    # ------------------------------------------------------------ tasks

    def _remember(self, result: AsyncResult, numbers: "array[int]") -> None:
        """Note a result of one of the views, and the numbers of its tasks also where that view keeps them."""
        if result not in self._known:
            self._known.add(result)
            self._last = result  # for get_result(), after a call whose result was not kept
            given = result._numbers()
            self._given_out.extend(given)
            numbers.extend(given)

    def _names(self, numbers: Iterable[int]) -> list[str]:
        session = self._connected().peer.hello.session[:8]
        return [f"{session}-{number}" for number in numbers]

    @property
    def history(self) -> list[str]:
        """The names of all tasks that this client has given out."""
        return self._names(self._given_out)

    @property
    def outstanding(self) -> set[str]:
        """The names of those of them that have not ended."""
        return set(self._names(self._under_way()))

    def _under_way(self) -> set[int]:
        link = self._connected()
        with link.lock:
            numbers = {n for b in link.inbox.bundles.values() for n in range(b.first, b.first + b.count)}
            for result in self._known:  # a bundle is there until the last of its tasks has ended
                slots = zip(result._numbers(), result._slots(), strict=True)
                numbers.difference_update(number for number, (_, outcome, _) in slots if outcome is not None)
        return numbers

    def get_result(self, indices_or_msg_ids: Any = None, block: bool | None = None, owner: bool = True) -> Any:
        """Return the result of tasks that this client has given out: by name, by index in `history`, or the last."""
        return self._found(-1 if indices_or_msg_ids is None else indices_or_msg_ids, self.history, block, owner)

    def _found(self, which: Any, history: list[str], block: bool | None, owner: bool) -> Any:
        results = self._results_of(which, history)
        result = results[0] if len(results) == 1 else AsyncResult.join(*results)
        return result.get() if (self.block if block is None else block) else result

    def _results_of(self, jobs: Any, history: list[str] | None = None) -> list[AsyncResult]:
        """Return the results of jobs: results, names of tasks, indices in the history, or a list of them."""
        found: list[AsyncResult] = []
        wanted: list[str] = []
        for job in jobs if isinstance(jobs, _SEVERAL) else [jobs]:
            if isinstance(job, hpc.AsyncResult):
                found.append(adopt(job))
            else:
                wanted.append((self.history if history is None else history)[job] if isinstance(job, int) else job)
        missing = set(wanted)
        for result in sorted(self._known, key=lambda result: result._numbers()[:1]) if wanted else ():
            names = result.msg_ids
            mine = [name for name in names if name in missing]
            missing.difference_update(mine)
            if mine and len(mine) == len(names):
                found.append(result)
            else:
                found += [adopt(result.split()[names.index(name)]) for name in mine]
        if missing:
            raise NotImplementedError(
                f"there is no result of task {min(missing)} here: hpc's controller keeps no results for other clients,"
                " and those of this one live as long as their AsyncResult, or until the next one"
            )
        return found

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> bool:
        """Wait until tasks have ended: results, futures or names of tasks, by default all that are under way."""
        link = self._connected()
        if jobs is None:
            return bool(link.wait(lambda: not link.inbox.bundles, seconds(timeout)))
        listed = list(jobs) if isinstance(jobs, _SEVERAL) else [jobs]
        futures = [job for job in listed if isinstance(job, Future)]
        numbers = {int(job.rpartition("-")[2]) for job in listed if isinstance(job, str)}
        limit_s, began = seconds(timeout), time.monotonic()
        if futures and wait_for_futures(futures, limit_s).not_done:
            return False
        left_s = None if limit_s is None else max(0.0, limit_s - (time.monotonic() - began))
        return bool(link.wait(lambda: numbers.isdisjoint(self._under_way()), left_s))

    def wait_interactive(self, jobs: Any = None, interval: float = 0.2, timeout: float | None = -1) -> None:
        """Wait, with a bar that shows how many tasks have ended."""
        results = [r for r in list(self._known) if not r.done()] if jobs is None else self._results_of(jobs)
        if results:
            AsyncResult.join(*results).wait_interactive(interval, timeout)

    def spin(self) -> None:
        """Do nothing: results come in by themselves."""

    def abort(self, jobs: Any = None, targets: Any = None, block: bool | None = None) -> None:
        """End tasks that no engine has begun: results or their names, by default all of this client."""
        if jobs is None and targets is not None:
            self.direct_view(targets).abort()
        else:
            super().abort(None if jobs is None else self._results_of(jobs))

    def purge_local_results(self, jobs: Any = (), targets: Any = ()) -> None:
        """Do nothing, since results live as long as their AsyncResult; raises `RuntimeError` if they are to come."""
        results = list(self._known) if jobs == "all" else self._results_of(jobs)
        if not all(result.done() for result in results):
            raise RuntimeError("tasks that have not ended cannot be forgotten: wait for them, or abort them")

    # ------------------------------------------------------------ engines

    def wait_for_engines(  # type: ignore[override]
        self, n: int | None = None, *, timeout: float | None = -1, block: bool = True, interactive: bool | None = None
    ) -> "Future[None] | None":
        """Wait until there are ``n`` engines; with ``block=False`` return a future of that."""
        if block:
            self._wait_for_engines(n, timeout)
            return None
        pool = ThreadPoolExecutor(1)
        future = pool.submit(self._wait_for_engines, n, timeout)
        pool.shutdown(wait=False)
        return future

    def _wait_for_engines(self, n: int | None, timeout: float | None) -> None:
        super().wait_for_engines(n, seconds(timeout))

    def clear(self, targets: Any = None, block: bool | None = None) -> Any:
        """Forget all names on the engines but those that they had at the start."""
        return self.direct_view(targets).clear(block=self.block if block is None else block)

    def send_signal(self, sig: str | int, targets: Any = None, block: bool | None = None) -> None:
        """Interrupt what the engines run: SIGINT is the one signal that can be sent."""
        number = getattr(signal, sig) if isinstance(sig, str) else sig
        if number != signal.SIGINT:
            raise NotImplementedError(f"engines can be interrupted (SIGINT), and ended with shutdown(); not sent {sig}")
        self.interrupt("all" if targets is None else targets)

    def queue_status(self, targets: Any = "all", verbose: bool = False) -> dict[Any, Any]:
        """Count tasks by engine; ``"unassigned"`` in all. Of one engine: its counts."""
        if verbose:
            raise NotImplementedError("hpc's controller counts tasks, and does not list them")
        found = super().queue_status(targets)
        for name in ("short_of_time", "stranded", "dependent"):
            del found[name]
        return found[self._ids_of(targets)[0]] if isinstance(targets, int) else found

    def shutdown(
        self, targets: Any = "all", restart: bool = False, hub: bool = False, block: bool | None = None
    ) -> None:
        """End engines, and with ``hub`` the whole cluster; or give them new processes. Return when that is done."""
        if restart:
            self.restart_engines(targets)
        else:
            super().shutdown(targets, controller=hub)


def name_of(profile: str, cluster_id: str) -> str:
    """Return the name that a cluster of a profile has; "" for any."""
    return "-".join(part for part in (profile if profile != "default" else "", cluster_id) if part)


def _refuse(name: str, *_: Any, **__: Any) -> NoReturn:
    raise NotImplementedError(f"Client.{name}: {_NOT_HERE[name]}")


def _in_ipython() -> bool:
    from IPython.core.getipython import get_ipython

    return get_ipython() is not None
