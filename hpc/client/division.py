"""Results taken apart, and put together: one future for each task, one future for several results."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hpc.client.asyncresult import AsyncResult
from hpc.client.outcome import Outcome
from hpc.errors import CompositeError

if TYPE_CHECKING:
    from hpc.client.bundle import Mark


class PartResult(AsyncResult):
    """One task of a result that has several."""

    def __init__(self, whole: AsyncResult, task: int, number: int, target: int) -> None:
        super().__init__(whole._link, whole._name, target)
        self._whole, self._task, self._number = whole, task, number
        self._submitted = whole._submitted

    def _marks(self) -> "list[Mark]":
        return self._whole._marks()

    def _printed(self, task: int, outcome: Outcome | None, index: int, stream: str) -> str:
        return self._whole._printed(self._task, outcome, index, stream)


def split(whole: AsyncResult) -> tuple[AsyncResult, ...]:
    """Return a result for each task of one."""
    with whole._link.lock:  # under which outcomes come in: none is missed, none comes twice
        parts = []
        slots = enumerate(zip(whole._numbers(), whole._slots(), strict=True))
        for task, (number, (target, outcome, index)) in slots:
            part = PartResult(whole, task, number, target)
            if outcome is not None:
                part._settle(outcome, index)
            parts.append(part)
        whole._parts = tuple(parts)
        return whole._parts


class JoinedResult(AsyncResult):
    """Several results as one: `get` returns the list of their values, once all have ended."""

    def __init__(self, results: Sequence[AsyncResult]) -> None:
        super().__init__(results[0]._link, ", ".join(dict.fromkeys(result._name for result in results)))
        self._results = tuple(results)
        self._submitted = min(result._submitted for result in results)
        self._left = len(results)
        for result in results:
            result.add_done_callback(self._one_ended)

    def _describe(self) -> str:
        return f"{self._left} of {len(self._results)} results are still to come"

    def _one_ended(self, _: Any) -> None:
        with self._link.lock:
            self._left -= 1
            if not self._left:
                failed = any(outcome is None or outcome.failed(index) for _, outcome, index in self._slots())
                self._finish(failed, all(result.cancelled() for result in self._results))
        self._link.inbox.run_calls()

    def _conclude(self) -> Any:
        errors = self._errors()
        if errors:
            raise CompositeError(errors, self._name)
        return [result._conclude() for result in self._results]

    def _errors(self) -> dict[int, BaseException]:
        """Return the first error of each engine."""
        errors: dict[int, BaseException] = {}
        for target, outcome, index in self._slots():
            error = outcome.error(index) if outcome is not None else None
            if error is not None and outcome is not None:
                errors.setdefault(outcome.engine if outcome.engine >= 0 else target, error)
        return errors

    def _conclude_all(self) -> Any:
        return [result._conclude_all() for result in self._results]

    def __iter__(self) -> Iterator[Any]:
        """Yield the values in order, each as soon as it is there."""
        for result in self._results:
            yield result.get()

    def split(self) -> tuple[AsyncResult, ...]:
        """Return a result for each of the tasks, in order."""
        return tuple(part for result in self._results for part in result.split())

    def _numbers(self) -> list[int]:
        return [number for result in self._results for number in result._numbers()]

    def _marks(self) -> "list[Mark]":
        return [mark for result in self._results for mark in result._marks()]

    def _slots(self) -> Iterator[tuple[int, Outcome | None, int]]:
        for result in self._results:
            yield from result._slots()

    def _printed(self, task: int, outcome: Outcome | None, index: int, stream: str) -> str:
        for result in self._results:
            if task < len(result):
                return result._printed(task, outcome, index, stream)
            task -= len(result)
        raise IndexError(f"there is no task {task} in {self!r}")

    def _one_or_all(self, values: list[Any]) -> Any:
        return values


def join(results: Sequence[AsyncResult]) -> AsyncResult:
    """Return several results of one client as one."""
    if not results:
        raise ValueError("give at least one result to join")
    if len({id(result._link) for result in results}) > 1:
        raise ValueError("results of different clients cannot be joined")
    return JoinedResult(results)
