"""The errors of ipyparallel. Those of `hpc` are their bases, so that either package's ``except`` clauses catch them.

Unlike ipyparallel's, a `RemoteError` is also an instance of what was raised: ``except ZeroDivisionError`` works.
"""

import builtins
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from hpc import errors
from hpc.errors import ranges

TimeoutError = builtins.TimeoutError
IPythonError = KernelError = errors.HpcError
NoEnginesRegistered = errors.NoEngines
TaskAborted = errors.TaskAborted
UnmetDependency = errors.DependencyError


class RemoteError(errors.RemoteError):
    """Code raised on an engine."""

    method = "apply"
    engine_uuid = ""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}[{self.engine_id}]:{self.ename}({self.evalue})>"

    @property
    def engine_info(self) -> dict[str, Any]:
        """Which engine it was, and what it was doing."""
        return {"engine_id": self.engine_id, "engine_uuid": self.engine_uuid, "method": self.method}

    def render_traceback(self) -> list[str]:
        """Return the lines of the traceback, after one that names the engine."""
        return [f"[{self.engine_id}:{self.method}]", *(self.traceback or "No traceback available").splitlines()]

    def print_traceback(self, excid: int | None = None) -> None:
        """Print the traceback."""
        print("\n".join(self.render_traceback()))


class AlreadyDisplayedError(RemoteError):
    """For ``except`` clauses only: ``%px`` raises here what the engines have raised, whether it was shown or not."""


class EngineError(RemoteError, errors.EngineLost):
    """The engine that held the task is gone."""


class _ToldError(RemoteError):
    """What the controller says of a task; for ipyparallel that is an error of an engine, too."""

    def __init__(self, error: BaseException | str) -> None:
        super().__init__(str(error))
        self.ename, self.evalue = type(self).__name__, str(error)

    def __str__(self) -> str:
        return self.evalue


class TaskTimeout(_ToldError, errors.TaskTimeout):  # noqa: N818 - its name there
    """The task has waited, or run, for too long."""


class ImpossibleDependency(_ToldError, errors.DependencyError):  # noqa: N818 - its name there
    """What the task depends on cannot be met any more."""


class InvalidDependency(ImpossibleDependency):
    """The task depends on something that is no task of this client."""


class DependencyTimeout(ImpossibleDependency):
    """For ``except`` clauses only: who waits for too long gets a `TaskTimeout`."""


class CompositeError(RemoteError, errors.CompositeError):
    """Several engines failed.

    Attributes
    ----------
    msg : str
        What they were doing.
    elist : list of tuple
        Name, text, traceback and `RemoteError.engine_info` of the error of each task.
    """

    tb_limit = 4

    def __init__(
        self,
        failed: Mapping[int, BaseException],
        what: str = "",
        method: str = "apply",
        each: Sequence[tuple[int, BaseException]] = (),
    ) -> None:
        super().__init__({engine: failed[engine] for engine in sorted(failed)}, what)
        # The engine and the error of each task; there may be several of one engine.
        self._each = list(each) or list(self.errors.items())
        self.ename, self.evalue, self.method = "CompositeError", self.args[0], method
        self.msg = f"one or more exceptions raised in: {method}"

    def __repr__(self) -> str:
        return f"CompositeError({len(self)})"

    def __str__(self) -> str:
        return self.evalue

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows: as `hpc` has it, engines that failed alike together."""
        return [f"[{ranges(sorted(self.errors))}:{self.method}]", *str(self).splitlines()]

    @property
    def elist(self) -> list[tuple[str, str, str, dict[str, Any]]]:
        """The errors, as tuples."""
        return [
            (e.ename, e.evalue, e.traceback, e.engine_info)
            if isinstance(e, RemoteError)
            else (type(e).__name__, str(e), "", {"engine_id": engine, "method": self.method})
            for engine, e in self._each
        ]

    def raise_exception(self, excid: int | None = None) -> None:
        """Raise one of the errors, by its index in `elist`."""
        raise self._at(excid or 0)

    def _at(self, excid: int) -> BaseException:
        try:
            return self._each[excid][1]
        except IndexError:
            raise IndexError(f"there is no error {excid}, there are {len(self._each)}") from None

    def render_traceback(self, excid: int | None = None) -> list[str]:
        """Return the lines of one error's traceback, or of the first `tb_limit` of them."""
        rows = self.elist
        if excid is not None:
            self._at(excid)
            rows = [rows[excid]]
        lines: list[str] = []
        for _, _, traceback, info in rows[: self.tb_limit]:
            head = f"[{info['engine_id']}:{info['method']}]:"
            lines += [head, *(traceback or "No traceback available").splitlines(), ""]
        if len(rows) > self.tb_limit:
            lines.append(f"... {len(rows) - self.tb_limit} more exceptions ...")
        return lines

    def print_traceback(self, excid: int | None = None) -> None:
        """Print one error's traceback, or the first `tb_limit` of them."""
        print("\n".join(self.render_traceback(excid)))


def translated(error: BaseException, method: str = "apply") -> BaseException:
    """Return an error of `hpc` as ipyparallel's; any other as it is."""
    if isinstance(error, RemoteError):
        return error
    if isinstance(error, errors.CompositeError):
        return CompositeError({i: translated(e, method) for i, e in error.errors.items()}, error.what, method)
    if isinstance(error, errors.RemoteError):
        # It is of a class of its own, made from the class that was raised: that stays its base.
        error.__class__ = _kind(type(error))  # type: ignore[arg-type]  # mypy doubts that classes are hashable
        error.method = method  # type: ignore[attr-defined]
        return error
    if isinstance(error, errors.TaskTimeout):
        return TaskTimeout(error)
    if isinstance(error, errors.DependencyError):
        return ImpossibleDependency(error)
    if isinstance(error, errors.EngineLost):
        facts = ("engine_id", "rank", "host", "pid", "reason", "signal")
        lost = EngineError(str(error), **{name: getattr(error, name) for name in facts})
        lost.ename, lost.evalue, lost.method = "EngineError", str(error), method
        return lost
    return error


@functools.lru_cache(maxsize=256)
def _kind(kind: type[errors.RemoteError]) -> type[RemoteError]:
    return type(kind.__name__, (RemoteError, kind), {"__module__": kind.__module__})
