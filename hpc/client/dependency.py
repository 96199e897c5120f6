"""Tasks that others wait for."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hpc.client.asyncresult import AsyncResult
from hpc.errors import DependencyError
from hpc.wire import messages as m

if TYPE_CHECKING:
    from hpc.client.link import Link


class Dependency(set[str]):
    """Tasks that others wait for (``lv.after``), or have to run where they ran (``lv.follow``): a set of their names.

    Parameters
    ----------
    dependencies : AsyncResult, str, or several of them
        Results, or names of tasks as in ``ar.task_ids``.
    all : bool
        Whether all of them have to end so, or any one.
    success, failure : bool
        Which ends count: by default that the tasks succeed. What can never be met any more is a `DependencyError`.
    """

    all = True
    success = True
    failure = False

    def __init__(
        self,
        dependencies: "AsyncResult | str | Iterable[AsyncResult | str] | Mapping[str, Any]" = (),
        all: bool = True,
        success: bool = True,
        failure: bool = False,
    ) -> None:
        if isinstance(dependencies, Mapping):
            given = dependencies
            all, success = given.get("all", all), given.get("success", success)
            failure, dependencies = given.get("failure", failure), given.get("dependencies", ())
        if not (success or failure):
            raise ValueError("a dependency must count successes, failures, or both")
        several = [dependencies] if isinstance(dependencies, str | AsyncResult) else list(dependencies)
        self._results: list[AsyncResult] = list(getattr(dependencies, "_results", ()))
        for each in several:
            if isinstance(each, AsyncResult):
                self._results.append(each)
            elif not isinstance(each, str):
                raise TypeError(f"a task is named by its result or by a text of ar.task_ids, not by {each!r}")
        super().__init__(
            name for each in several for name in (each.task_ids if isinstance(each, AsyncResult) else [each])
        )
        self.all, self.success, self.failure = bool(all), bool(success), bool(failure)

    def __repr__(self) -> str:
        ends = " or ".join(word for word, counts in (("success", self.success), ("failure", self.failure)) if counts)
        return f"<Dependency on {ends} of {'all' if self.all else 'any'} of {len(self)} tasks>"

    def check(self, completed: Iterable[str], failed: Iterable[str] = ()) -> bool:
        """Say whether it is met when these tasks have succeeded, and those failed."""
        good = self & self._counting(completed, failed, True)
        return not self or (len(good) == len(self) if self.all else bool(good))

    def unreachable(self, completed: Iterable[str], failed: Iterable[str] = ()) -> bool:
        """Say whether it can never be met when these tasks have succeeded, and those failed."""
        bad = self & self._counting(completed, failed, False)
        return bool(self) and (bool(bad) if self.all else len(bad) == len(self))

    def _counting(self, completed: Iterable[str], failed: Iterable[str], good: bool) -> set[str]:
        return {*(completed if self.success is good else ()), *(failed if self.failure is good else ())}

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain types, which the constructor takes."""
        return {"dependencies": list(self), "all": self.all, "success": self.success, "failure": self.failure}

    def to_message(self, link: "Link") -> m.After:
        """Return what the controller is to wait for, given what has come back here by now.

        Raises
        ------
        DependencyError
            One of the tasks was not given out by this client.
        """
        after = m.After([], self.all, self.success, self.failure)
        engines: dict[int, None] = {}
        known: set[int] = set()
        with link.lock:
            for result in self._results:
                if result._link is not link:
                    raise DependencyError(f"{result!r} is of another client: wait for it before you submit")
                for number, (_, outcome, index) in zip(result._numbers(), result._slots(), strict=True):
                    if outcome is None or number in known:
                        continue
                    known.add(number)
                    if self.failure if outcome.failed(index) else self.success:
                        after.good += 1
                        engines.update({outcome.engine: None} if outcome.engine >= 0 else {})
                    else:
                        after.bad += 1
            after.engines = list(engines)
            after.tasks = list(_ranges(sorted(_numbers(self, link) - known)))
        return after


def _numbers(names: Iterable[str], link: "Link") -> set[int]:
    session = link.peer.hello.session[:8]
    found = set()
    for name in names:
        prefix, _, number = name.rpartition("-")
        if prefix != session or not number.isdecimal() or not 0 < int(number) < link.outbox.next_number:
            raise DependencyError(f"there is no task {name!r} of this client: name those that it has given out")
        found.add(int(number))
    return found


def _ranges(numbers: list[int]) -> Iterator[tuple[int, int]]:
    start = stop = 0
    for number in numbers:
        if number != stop:
            if start < stop:
                yield start, stop
            start = number
        stop = number + 1
    if start < stop:
        yield start, stop
