"""Results under ipyparallel's names."""

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ALL_COMPLETED
from datetime import datetime
from typing import Any, cast

import hpc
from hpc.client.division import JoinedResult
from hpc.client.gathering import GatherResult
from hpc.client.mapresult import MapResult
from hpc.client.metadata import Metadata
from hpc.compat.ipyparallel.error import CompositeError, RemoteError, translated
from hpc.errors import HpcError

_STATUS = {"done": "ok", "failed": "error", "lost": "error", "cancelled": "aborted"}
_MIMES = {
    "_repr_html_": "text/html",
    "_repr_json_": "application/json",
    "_repr_jpeg_": "image/jpeg",
    "_repr_latex_": "text/latex",
    "_repr_markdown_": "text/markdown",
    "_repr_pdf_": "application/pdf",
    "_repr_png_": "image/png",
    "_repr_svg_": "image/svg+xml",
}
_MORE_KEYS = ("msg_id", "engine_uuid", "execute_result")


class AsyncResult(hpc.AsyncResult):
    """A result that raises ipyparallel's errors, and whose timeouts may be negative for none."""

    _method = "apply"
    _silent = True

    # ------------------------------------------------------------ waiting and values

    def wait(self, timeout: float | None = -1, return_when: str | None = None) -> Any:
        """Wait until all tasks have ended; with ``return_when``, return the sets of those that have and have not."""
        return super().wait(seconds(timeout), return_when)

    def get(
        self, timeout: float | None = None, return_exceptions: bool | None = None, return_when: str | None = None
    ) -> Any:
        """Wait and return the value; with ``return_when=FIRST_EXCEPTION`` raise the first error at once."""
        if return_when is not None:
            for part in self.wait(timeout, return_when)[0]:
                part.get()
        return super().get(seconds(timeout), bool(return_exceptions))

    def wait_for_send(self, timeout: float | None = -1) -> None:
        """Wait until the memory of the arguments may be used again."""
        super().wait_for_send(seconds(timeout))

    def wait_for_output(self, timeout: float | None = -1) -> bool:
        """Wait until all output is there, which is when the tasks have ended."""
        return super().wait_for_output(seconds(timeout))

    def wait_interactive(
        self,
        interval: float = 0.2,
        timeout: float | None = -1,
        return_when: str = ALL_COMPLETED,
    ) -> None:
        """Wait with a bar that shows how many tasks have ended."""
        super().wait_interactive(interval, seconds(timeout), return_when)

    def _conclude(self) -> Any:
        try:
            value = super()._conclude()
        except Exception as error:
            self._exception = translated(error, self._method)
            self._fill_in(self._exception)
            raise self._exception from None
        if isinstance(self, AsyncMapResult) and self._return_exceptions:
            value = self._result = [self._translated(item) for item in value]
        return self._shown(value)

    def _fill_in(self, error: BaseException) -> None:
        """Give an error what it has in ipyparallel: uuids of engines, and an entry for each of several tasks."""
        if isinstance(error, CompositeError):
            failed = ((e, t if o.engine < 0 else o.engine) for t, o, k in self._slots() if o and (e := o.error(k)))
            error._each = [(engine, translated(e, self._method)) for e, engine in failed] or error._each
        for _, each in error._each if isinstance(error, CompositeError) else [(0, error)]:
            if isinstance(each, RemoteError):
                each.engine_uuid = uuid_of(self._link, each.engine_id) or ""

    def _conclude_all(self) -> Any:
        found = super()._conclude_all()
        if self._is_one():
            return self._shown(self._translated(found))
        return self._shown([self._translated(value) for value in found])

    def _translated(self, value: Any) -> Any:
        return translated(value, self._method) if isinstance(value, HpcError) else value

    def _shown(self, value: Any) -> Any:
        """Return what `DirectView.execute` has for values; anything else as it is."""
        if self._method != "execute":
            return value
        if isinstance(self, JoinedResult):
            return value  # they are those of its parts
        if self._is_one():
            return value if isinstance(value, HpcError) else ExecuteReply(self.metadata)
        return [
            item if isinstance(item, HpcError) else ExecuteReply(row)
            for item, row in zip(value, self.metadata, strict=True)
        ]

    def __iter__(self) -> Iterator[Any]:
        """Yield the values, each as soon as it is there."""
        values = super().__iter__()
        while True:
            try:
                value = next(values)
            except StopIteration:
                return
            except Exception as error:
                raise translated(error, self._method) from None
            yield self._translated(value)

    def split(self) -> tuple[hpc.AsyncResult, ...]:
        """Return a result for each of the tasks."""
        return tuple(adopt(part, self._method, self._silent) for part in super().split())

    @classmethod
    def join(cls, *results: hpc.AsyncResult) -> "AsyncResult":
        """Return several results of one client as one."""
        methods = {getattr(result, "_method", "apply") for result in results}
        return adopt(super().join(*results), methods.pop() if len(methods) == 1 else "apply")

    # ------------------------------------------------------------ about the tasks

    @property
    def metadata(self) -> Any:
        """What is known of the task; a list if there are several. ``msg_id`` and ``status`` are as in ipyparallel."""
        rows = super().metadata
        shown = super().outputs
        if isinstance(rows, list):
            return [self._extended(row, outputs) for row, outputs in zip(rows, shown, strict=True)]
        return self._extended(rows, shown)

    def _extended(self, row: Metadata, outputs: list[dict[str, Any]]) -> Metadata:
        value = next((shown for shown in outputs if shown["output_type"] == "execute_result"), None)
        row["msg_id"] = row["task_id"]
        row["engine_uuid"] = uuid_of(self._link, row["engine_id"])
        row["status"] = _STATUS.get(row["status"])
        if self._method == "execute":  # while %px wants to show all there is, in order
            outputs = [shown for shown in outputs if shown["output_type"] != "execute_result"]
        row["outputs"] = outputs
        row["execute_result"] = None if self._silent else value
        return row

    @property
    def outputs(self) -> Any:
        """What was displayed, without the value of the last expression; a list of it if there are several tasks."""
        return self["outputs"]

    def display_outputs(self, groupby: str = "type", result_only: bool = False) -> None:
        """Wait, then show what the tasks printed and displayed: by ``"type"``, by ``"engine"``, or in ``"order"``."""
        from hpc.compat.ipyparallel.showing import display

        self.wait()
        display(self, groupby, text=not result_only, displayed=not result_only)

    def get_dict(self, timeout: float | None = -1) -> dict[int, Any]:
        """Return the values by engine id; raises `ValueError` if there are several of one engine."""
        self.get(timeout)
        engines = self.engine_id
        if isinstance(engines, list) and len(set(engines)) < len(engines):
            twice = next(engine for engine in engines if engines.count(engine) > 1)
            raise ValueError(f"there is more than one value of engine {twice}: use get()")
        return super().get_dict()

    @property
    def result_dict(self) -> dict[int, Any]:
        """The values by engine id."""
        return self.get_dict()

    def timedelta(
        self,
        start: datetime | Sequence[datetime],
        end: datetime | Sequence[datetime],
        start_key: Callable[[Sequence[datetime]], datetime] = min,
        end_key: Callable[[Sequence[datetime]], datetime] = max,
    ) -> float:
        """Return the seconds between two times, or between the first and the last of several."""
        first = start if isinstance(start, datetime) else start_key(start)
        last = end if isinstance(end, datetime) else end_key(end)
        return (last - first).total_seconds()

    def __getattr__(self, name: str) -> Any:
        return self[name] if name in _MORE_KEYS else super().__getattr__(name)


def uuid_of(link: Any, engine_id: int | None) -> str | None:
    """Return what tells the process of an engine from all others; None if there is no such engine."""
    roster = link.roster
    row = roster.engines.get(engine_id) or roster.departed.get(engine_id)
    return None if row is None else f"{row.host}-{row.pid}"


class AsyncMapResult(AsyncResult):
    """The result of a map, or of `gather`."""

    _return_exceptions = False


def seconds(timeout: float | None) -> float | None:
    """Return a timeout that may be negative, for none, as `hpc` has it."""
    return None if timeout is None or timeout < 0 else timeout


def adopt(result: hpc.AsyncResult, method: str = "apply", silent: bool = True) -> AsyncResult:
    """Make a result of `hpc` one of ipyparallel's, and return it.

    It stays the same object, which the receiver already knows; only its class becomes one that has its own as base.
    """
    if not isinstance(result, AsyncResult):
        result.__class__ = _kind(type(result))  # type: ignore[arg-type]  # mypy doubts that classes are hashable
        cast(AsyncResult, result)._method, cast(AsyncResult, result)._silent = method, silent
    return cast(AsyncResult, result)


@functools.cache
def _kind(kind: type[hpc.AsyncResult]) -> type[AsyncResult]:
    base = AsyncMapResult if issubclass(kind, MapResult | GatherResult) else AsyncResult
    return base if kind is hpc.AsyncResult else type(base.__name__, (base, kind), {"__module__": __name__})


class ExecuteReply:
    """What `DirectView.execute` has for a value: what an engine printed and displayed.

    Attributes
    ----------
    stdout, stderr : str
        What was printed.
    outputs : list of dict
        What was displayed, as in a notebook.
    execute_result : dict or None
        The value of the last expression, where it was executed with ``silent=False``.
    """

    def __init__(self, row: Metadata) -> None:
        self.metadata = row
        self.engine_id = row["engine_id"]
        self.stdout, self.stderr, self.outputs = row["stdout"], row["stderr"], row["outputs"]
        self.execute_result = row["execute_result"]

    def __repr__(self) -> str:
        return f"<ExecuteReply[{self.execution_count}]: {self.data.get('text/plain', '')}>"

    @property
    def execution_count(self) -> int | None:
        """Which of the engine's cells it was, where IPython counts them and there is a value."""
        return self.execute_result.get("execution_count") if self.execute_result else None

    @property
    def data(self) -> dict[str, Any]:
        """The last expression's value by MIME type."""
        return self.execute_result["data"] if self.execute_result else {}

    def __getitem__(self, key: str) -> Any:
        return self.metadata[key]

    def __getattr__(self, name: str) -> Any:
        # What notebooks ask for: `_repr_html_()` and so on. Those of IPython return metadata, too, if there are some.
        mime = _MIMES.get(name)
        if mime is None:
            raise AttributeError(f"ExecuteReply has no attribute {name!r}")
        data, metadata = self._repr_mimebundle_()
        found, about = data.get(mime), metadata.get(mime)
        return lambda: (found, about) if about else found

    def _repr_mimebundle_(self, *_: Any, **__: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.data, self.execute_result["metadata"] if self.execute_result else {}
