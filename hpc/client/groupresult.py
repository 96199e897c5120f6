"""The results of one call on several engines."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from hpc.client.asyncresult import PENDING, AsyncResult
from hpc.client.bundle import Mark
from hpc.client.outcome import Outcome, unwrap
from hpc.errors import CompositeError

if TYPE_CHECKING:
    from hpc.client.link import Link


class GroupResult(AsyncResult):
    """One task for each target. `get` returns the list of values in the order of the targets.

    If any engine failed, `get` raises a `CompositeError` that names each, once all have ended.

    Parameters
    ----------
    combine : callable, optional
        Makes the value of `get` from the list of values.
    single : bool
        Whether it is the result of a view of one engine: its error is raised as it is, its metadata are no list.
    """

    def __init__(
        self,
        link: "Link",
        name: str,
        targets: list[int],
        combine: Callable[[list[Any]], Any] | None = None,
        single: bool = False,
    ) -> None:
        super().__init__(link, name)
        self.targets = targets
        self._combine = combine
        self._single = single
        self._outcomes: list[tuple[Outcome, int] | None] = [None] * len(targets)
        self._left = len(targets)
        self._firsts: list[tuple[int, int]] = []
        self._sending: list[Mark] = []

    def _describe(self) -> str:
        state = "done" if self._state is not PENDING else f"{self._left} of {len(self.targets)} wait or run"
        failed = sum(outcome.failed(index) for outcome, index in filter(None, self._outcomes))
        return f"on engines {self.targets}: {state}{f', {failed} failed' if failed else ''}"

    def register(self, first: int, count: int, when: float, mark: Mark | None) -> None:
        """Note a part of it that was submitted."""
        self._firsts.append((first, count))
        self._submitted = self._submitted or when
        if mark is not None:
            self._sending.append(mark)

    def take(self, start: int, stop: int, outcome: Outcome, index: int) -> int:
        """Take outcomes in; for the receiver only."""
        new = 0
        for task in range(start, stop):
            if self._outcomes[task] is None:
                self._outcomes[task] = outcome, index
                new += 1
            index += 1
        self._came(start, stop, outcome, index - (stop - start))
        self._left = self._left - new if new == stop - start else self._outcomes.count(None)
        if self._left == 0 and self._state is PENDING:
            words = [o.status(k) for o, k in filter(None, self._outcomes)]
            self._finish(any(word != "done" for word in words), all(word == "cancelled" for word in words))
        return new

    def _conclude(self) -> Any:
        if self._loaded:
            return self._result
        if self._exception is None:
            errors = {}
            for target, outcome, index in self._slots():
                error = outcome.error(index) if outcome is not None else None
                if error is not None:
                    errors[target] = error
            if errors and self._single:
                self._exception = errors.popitem()[1]
            elif errors:
                self._exception = CompositeError(errors, self._name)
            else:
                values = [outcome.value(index) for outcome, index in filter(None, self._outcomes)]
                self._result = values if self._combine is None else self._combine(values)
                self._loaded = True
                return self._result
        raise self._exception

    def get_dict(self, timeout: float | None = None) -> dict[int, Any]:
        """Return the values by engine id."""
        self.get(timeout)
        return {t: o.value(k) for t, o, k in self._slots() if o is not None}

    def __iter__(self) -> Iterator[Any]:
        """Yield the values in the order of the targets, each as soon as it is there."""
        for task in range(len(self.targets)):
            self._link.wait(lambda task=task: self._outcomes[task] is not None or self._stall)  # type: ignore[misc]
            slot = self._outcomes[task]
            if slot is None and self._stall is not None:
                raise self._stall
            if slot is not None:
                yield unwrap(*slot)

    def _numbers(self) -> list[int]:
        return [first + i for first, count in self._firsts for i in range(count)]

    def _marks(self) -> list[Mark]:
        return self._sending

    def _slots(self) -> Iterator[tuple[int, Outcome | None, int]]:
        for target, slot in zip(self.targets, self._outcomes, strict=True):
            yield (target, *slot) if slot is not None else (target, None, 0)

    def _one_or_all(self, values: list[Any]) -> Any:
        return values[0] if self._single else values
