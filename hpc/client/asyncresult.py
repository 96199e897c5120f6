"""The result of a task, now or later."""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, _base, wait
from typing import TYPE_CHECKING, Any

from hpc.client.bundle import Bundle, Mark
from hpc.client.facts import Facts
from hpc.client.metadata import output
from hpc.client.outcome import Loss, Outcome
from hpc.client.pieces import Pieces
from hpc.client.roster import log
from hpc.client.waiting import Parker
from hpc.wire import messages as m

if TYPE_CHECKING:
    from hpc.client.link import Link

PENDING, FINISHED, CANCELLED = _base.PENDING, _base.FINISHED, _base.CANCELLED_AND_NOTIFIED


class AsyncResult(Facts, Future[Any]):
    """The result of one task; also a `concurrent.futures.Future`.

    Results are unpickled by the first thread that asks for them. `get` waits, without any other thread taking part, and
    Ctrl-C ends the wait (not the task). `GroupResult` and `MapResult` are the same for several tasks.
    """

    # Thousands of these are made at a time: what is the same for all of them at first stands in the class.
    _state: str = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _outcome: Outcome | None = None
    _index = 0
    _number = 0
    _submitted = 0.0
    _loaded = False
    _mark: Mark | None = None
    _pieces: Pieces | None = None
    _watchers: list[Any] | None = None
    _hooks: list[Callable[[Any], object]] | None = None
    _parts: "tuple[AsyncResult, ...]" = ()  # what `split` has made
    _listener: Callable[[], object] | None = None  # called, by the receiver, when there is output or a result
    _stall: BaseException | None = None  # why it cannot end by itself
    _awaiting: Callable[[BaseException], object] | None = None  # tells a coroutine that waits of a stall

    def __init__(self, link: "Link", name: str, target: int = -1) -> None:  # the base class would make a lock for each
        self._link = link
        self._name = name
        self._target = target

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name or 'task'}, {self._describe()}>"

    def _describe(self) -> str:
        state = "waiting" if self._outcome is None else self._outcome.status(self._index)
        engine = self._target if self._outcome is None else self._outcome.engine
        return f"task {self._number}{f' on engine {engine}' if engine >= 0 else ''}: {state}"

    # ------------------------------------------------------------ what concurrent.futures looks for

    @property
    def _condition(self) -> Any:  # type: ignore[override]
        return self._link.condition

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        if self._watchers is None:
            self._watchers = []
        return self._watchers

    @property
    def _done_callbacks(self) -> list[Callable[[Any], object]]:
        if self._hooks is None:
            self._hooks = []
        return self._hooks

    def _settle(self, outcome: Outcome, index: int) -> int:
        """Take the outcome; return 1, or 0 if there is one already. Called under the lock of the link."""
        if self._state is not PENDING:
            return 0
        self._outcome = outcome
        self._index = index
        if type(outcome) is Loss:
            self._finish(True, outcome.cancelled)
        elif self._watchers or self._hooks or self._listener:
            self._finish(outcome.failed(index), False)
        else:  # the shortest way: nobody waits for this one
            self._state = FINISHED
        return 1

    def _finish(self, failed: bool, cancelled: bool) -> None:
        """Tell everybody who waits."""
        self._state = CANCELLED if cancelled else FINISHED
        if self._listener is not None:
            self._listener()
        if self._watchers:
            for watcher in list(self._watchers):
                if cancelled:
                    watcher.add_cancelled(self)
                elif failed:
                    watcher.add_exception(self)
                else:
                    watcher.add_result(self)
        if self._hooks:
            self._link.inbox.calls.append(self._run_hooks)

    def _run_hooks(self) -> None:
        while self._hooks:
            hook = self._hooks.pop(0)
            try:
                hook(self)
            except Exception:  # it is nobody's here: logged, as futures do, and the others are called all the same
                log.exception("a callback of %r raised", self)

    # ------------------------------------------------------------ waiting

    def done(self) -> bool:
        """Say whether all tasks have ended, in whatever way."""
        return self._state is not PENDING

    ready = done

    def wait(self, timeout: float | None = None, return_when: str | None = None) -> Any:
        """Wait until all tasks have ended; False if ``timeout`` seconds pass first.

        Raises `CollectiveStalled` if they cannot end by themselves. This result stays open then: an interrupt, new work
        for the missing ranks, or `cancel` may end it.

        With ``return_when``, a constant of `concurrent.futures` such as ``FIRST_EXCEPTION``, wait for that, and return
        two sets of the results that `split` gives, those that have ended and the others.
        """
        if return_when is not None:
            return wait(self.split(), timeout, return_when)
        if self._state is not PENDING or self._link.wait(self._is_over, timeout, self._waiters):
            if self._state is PENDING and self._stall is not None:
                raise self._stall
            return True
        return False

    def _is_over(self) -> bool:
        return self._state is not PENDING or self._stall is not None

    def stall(self, error: BaseException | None) -> None:
        """Take note that it cannot end by itself, or, with None, that it can after all; for the receiver only."""
        self._stall = error
        if error is None or self._state is not PENDING:
            return
        for watcher in list(self._watchers or ()):
            if isinstance(watcher, Parker):
                watcher.wake()
        for part in self._parts:
            part.stall(error)
        if self._awaiting is not None:
            self._awaiting(error)

    def get(self, timeout: float | None = None, return_exceptions: bool = False) -> Any:
        """Wait and return the value, or raise what the task raised; `TimeoutError` after ``timeout`` seconds.

        With ``return_exceptions`` exceptions stand where the values would be, and nothing is raised for them.
        """
        if self._state is PENDING and not self.wait(timeout):
            raise TimeoutError(f"no result within {timeout:g} s: {self!r}")
        return self._conclude_all() if return_exceptions else self._conclude()

    def result(self, timeout: float | None = None) -> Any:
        """Do the same as `get`."""
        return self.get(timeout)

    @property
    def r(self) -> Any:
        """The value, as `get` returns it."""
        return self.get()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait and return what `get` would raise, None if it would return."""
        if self._state is PENDING and not self.wait(timeout):
            raise TimeoutError(f"no result within {timeout:g} s: {self!r}")
        try:
            self._conclude()
        except Exception as error:
            return error
        return None

    def successful(self) -> bool:
        """Say whether no task failed; raises `ValueError` while some have not ended."""
        if not self.done():
            raise ValueError(f"{self!r} has not ended yet")
        return self.exception() is None

    def _conclude(self) -> Any:
        if self._loaded:
            return self._result
        if self._exception is None and self._outcome is not None:
            self._exception = self._outcome.error(self._index)
            if self._exception is None:
                self._result = self._outcome.value(self._index)
                self._loaded = True
                return self._result
        assert self._exception is not None  # noqa: S101 - for the type checker
        raise self._exception

    def _conclude_all(self) -> Any:
        """Return values, and exceptions in the place of those that are missing."""
        found = [o.error(k) or o.value(k) for _, o, k in self._slots() if o is not None]
        return self._one_or_all(found)

    def __await__(self) -> Generator[Any, None, Any]:
        import asyncio  # 25 ms that a program without coroutines need not spend

        loop, future = asyncio.get_running_loop(), asyncio.wrap_future(self)
        self._awaiting = lambda error: loop.call_soon_threadsafe(
            lambda: None if future.done() else future.set_exception(error)
        )
        return future.__await__()

    # ------------------------------------------------------------ ending early

    def cancelled(self) -> bool:
        """Say whether the task was aborted before it ran."""
        return self._state is CANCELLED

    def running(self) -> bool:
        """Return False: a client is not told when a task starts."""
        return False

    def abort(self) -> None:
        """End what no engine has begun; what runs goes on. Return without waiting for it."""
        for bundle, start, stop in self._open():
            self._link.order(m.Abort(bundle.first, start, stop))

    def _open(self) -> list[tuple[Bundle, int, int]]:
        """Return the bundles that its tasks are in and that have not ended, and in which range of each they are."""
        wanted = set(self._numbers())
        link = self._link
        link.outbox.flush()
        found = []
        for bundle in list(link.inbox.bundles.values()):
            mine = [n - bundle.first for n in range(bundle.first, bundle.first + bundle.count) if n in wanted]
            if mine:
                found.append((bundle, mine[0], mine[-1] + 1))
        return found

    def cancel(self, force: bool = False, grace: float = 3.0) -> bool:
        """Abort, and say whether nothing of it has run to its end.

        With ``force`` what runs is ended, too: by `KeyboardInterrupt`, and where that has not helped after ``grace``
        seconds (code in C, or in MPI), by giving the engines, and the other ranks of their groups, new processes. Then
        everything on them is lost.

        Raises
        ------
        HpcError
            The engines hear no interrupt, and cannot be given new processes; it says why.
        """
        if self.done():
            return self.cancelled()
        if force:
            from hpc.client.forcing import end_by_force

            end_by_force(self, grace)
            return self.cancelled()
        self.abort()
        # The controller answers in order; tasks that an engine held already have to be asked back from it first.
        self._link.request(lambda number: m.Query(number, "ping"))
        self.wait(0.1)
        return self.cancelled()

    # ------------------------------------------------------------ sending

    @property
    def sent(self) -> bool:
        """Whether the memory of arrays among the arguments may be used again."""
        return all(mark.is_free(self._link.peer.session.acknowledged) for mark in self._marks()) or self.done()

    def wait_for_send(self, timeout: float | None = None) -> None:
        """Wait until `sent`; `TimeoutError` after ``timeout`` seconds."""
        if not self._link.wait(lambda: self.sent, timeout):
            raise TimeoutError(f"not sent within {timeout:g} s: {self!r}")

    # ------------------------------------------------------------ the tasks: overridden where there are several

    def _numbers(self) -> list[int]:
        return [self._number]

    def _marks(self) -> list[Mark]:
        return [] if self._mark is None else [self._mark]

    def _route(self, outcome: Outcome | None) -> str:
        """Return the way that the large data of a task took: that of the result, or else that of the arguments."""
        routes = [] if outcome is None else [outcome.route]
        routes += [mark.route for mark in self._marks()]
        return next((route for route in routes if route != "inline"), "inline")

    def _slots(self) -> Iterator[tuple[int, Outcome | None, int]]:
        """Yield target (-1 if open), outcome and index in it, for each task."""
        yield self._target, self._outcome, self._index

    def _one_or_all(self, values: list[Any]) -> Any:
        return values[0]

    def _is_one(self) -> bool:
        """Say whether it stands for one task, so that what is asked of it is no list."""
        return not isinstance(self._one_or_all([None]), list)

    def _printed(self, task: int, outcome: Outcome | None, index: int, stream: str) -> str:
        return output(self._pieces, task, outcome, index, stream)

    def _came(self, start: int, stop: int, outcome: Outcome, index: int) -> None:
        """Tell those who follow single tasks; for the receiver only."""
        if self._parts:
            for task in range(start, stop):
                self._parts[task]._settle(outcome, index + task - start)
        if self._listener is not None:
            self._listener()

    def split(self) -> "tuple[AsyncResult, ...]":
        """Return a result for each of the tasks, in order."""
        from hpc.client.division import split

        return self._parts or (
            (self,) if len(self) == 1 and not isinstance(self._one_or_all([0]), list) else split(self)
        )

    @classmethod
    def join(cls, *results: "AsyncResult") -> "AsyncResult":
        """Return several results of one client as one, whose value is the list of theirs."""
        from hpc.client.division import join

        return join(results)

    def hear(self, task: int, number: int, stream: str, text: str) -> None:
        """Take a piece of output; for the receiver only."""
        if self._pieces is None:
            self._pieces = Pieces()
        self._pieces.add(task, number, stream, text)
        if self._listener is not None:
            self._listener()

    def heard(self, task: int) -> int:
        """Return how many pieces of output came; for the receiver only."""
        return 0 if self._pieces is None else self._pieces.count(task)

    def get_dict(self, timeout: float | None = None) -> dict[int, Any]:
        """Return the values by engine id."""
        value = self.get(timeout)
        return {self.engine_id: value}

    def __len__(self) -> int:
        return len(self._numbers())

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("there is one value, and nothing to iterate over; use get()")

    def __getitem__(self, key: int | slice | str) -> Any:
        if isinstance(key, str):
            rows = self.metadata
            return rows[key] if isinstance(rows, dict) else [row[key] for row in rows]
        return self.get()[key]
