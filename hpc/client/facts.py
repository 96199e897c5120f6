"""What is known of the tasks of a result besides their values: where and when they ran, what they printed."""

import time
from collections.abc import Iterator
from concurrent.futures import ALL_COMPLETED
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from hpc.client.metadata import KEYS, Metadata, describe, outputs_of
from hpc.wire.display import Outputs

if TYPE_CHECKING:
    from hpc.client.link import Link
    from hpc.client.outcome import Outcome


class Facts:
    """Base of results; each item of the metadata is an attribute, too (``ar.completed``, ``ar.rank`` ...)."""

    _link: "Link"
    _submitted: float

    if TYPE_CHECKING:  # what results have, and this base asks for

        def done(self) -> bool: ...  # noqa: D102
        def wait(self, timeout: float | None = None, return_when: str | None = None) -> Any: ...  # noqa: D102
        def __getitem__(self, key: int | slice | str) -> Any: ...
        def _numbers(self) -> list[int]: ...
        def _slots(self) -> Iterator[tuple[int, Outcome | None, int]]: ...
        def _one_or_all(self, values: list[Any]) -> Any: ...
        def _route(self, outcome: Outcome | None) -> str: ...
        def _printed(self, task: int, outcome: Outcome | None, index: int, stream: str) -> str: ...

    # ------------------------------------------------------------ by task

    @property
    def task_ids(self) -> list[str]:
        """The names of the tasks, for as long as the cluster lives."""
        session = self._link.peer.hello.session[:8]
        return [f"{session}-{number}" for number in self._numbers()]

    msg_ids = task_ids

    @property
    def metadata(self) -> Any:
        """What is known of the task, a `Metadata`; a list of them if there are several tasks."""
        roster = self._link.roster
        rows: list[Metadata] = []
        slots = enumerate(zip(self.task_ids, self._slots(), strict=True))
        for task, (task_id, (target, outcome, index)) in slots:
            row = describe(roster, target, outcome, index, task_id=task_id, submitted=self._submitted)
            route = self._route(outcome)
            row["route"] = route if route != "inline" else row["route"]
            for stream in ("stdout", "stderr"):
                row[stream] = self._printed(task, outcome, index, stream)
            rows.append(row)
        return self._one_or_all(rows)

    @property
    def stdout(self) -> Any:
        """What was printed so far, all of it once the task has ended; a list if there are several tasks."""
        return self._one_or_all([self._printed(i, o, k, "stdout") for i, (_, o, k) in enumerate(self._slots())])

    @property
    def stderr(self) -> Any:
        """What was written to stderr; see `stdout`."""
        return self._one_or_all([self._printed(i, o, k, "stderr") for i, (_, o, k) in enumerate(self._slots())])

    @property
    def outputs(self) -> Any:
        """What was displayed besides text, `hpc.wire.display.Outputs`, once the task has ended; a list if several."""
        return self._one_or_all([self._displayed(outcome, index) for _, outcome, index in self._slots()])

    @property
    def engine_id(self) -> Any:
        """Which engine ran the task; a list if there are several tasks."""
        return self._one_or_all([t if o is None else o.engine for t, o, _ in self._slots()])

    @property
    def progress(self) -> int:
        """How many of the tasks have ended."""
        return sum(outcome is not None for _, outcome, _ in self._slots())

    @property
    def elapsed(self) -> float:
        """Seconds since the submission, up to the last result."""
        last = max((o.received for _, o, _ in self._slots() if o is not None), default=0.0)
        return (last if self.done() and last else time.time()) - self._submitted

    @property
    def wall_time(self) -> float:
        """Seconds from the submission to the last result; raises `TimeoutError` while a task waits or runs."""
        self._must_have_ended()
        return self.elapsed

    @property
    def serial_time(self) -> float:
        """Seconds that the engines spent on the tasks, one after the other; `TimeoutError` while one waits or runs."""
        self._must_have_ended()
        entries = {id(e): e for _, o, k in self._slots() if o is not None and (e := o.entry(k)) is not None}
        return sum(entry.completed - entry.started for entry in entries.values())

    @property
    def speedup(self) -> float:
        """How many times longer one engine would have taken: `serial_time` over `wall_time`."""
        return self.serial_time / self.wall_time

    def _must_have_ended(self) -> None:
        if not self.done():
            raise TimeoutError(f"{self!r} has not ended yet")

    def _displayed(self, outcome: "Outcome | None", index: int) -> Outputs:
        if outcome is None:
            return Outputs()
        shown = outputs_of(outcome, index)
        value = None if outcome.failed(index) else outcome.value(index)
        return Outputs([*shown, *value]) if isinstance(value, Outputs) else shown

    # ------------------------------------------------------------ for a person to look at

    def display_outputs(self, groupby: str = "type") -> None:
        """Wait, then show what the tasks printed and displayed: by ``"type"``, by ``"engine"``, or in ``"order"``."""
        from hpc.client.displaying import show
        from hpc.client.showing import display

        self.wait()
        display(self, groupby)  # type: ignore[arg-type]  # results are all that has facts
        show(self)  # type: ignore[arg-type]

    def stream_output(self) -> AbstractContextManager[None]:
        """Print output as it comes, with the number of its engine, for as long as a ``with`` block lasts."""
        from hpc.client.showing import streaming

        return streaming(self)  # type: ignore[arg-type]

    def wait_for_output(self, timeout: float | None = None) -> bool:
        """Wait until all output is there, which is when the tasks have ended; False after ``timeout`` seconds."""
        return bool(self.wait(timeout))

    def wait_interactive(
        self, interval: float = 0.2, timeout: float | None = None, return_when: str = ALL_COMPLETED
    ) -> None:
        """Wait with a bar that shows how many tasks have ended; Ctrl-C ends the wait, not the tasks."""
        from hpc.client.taskbar import watch_tasks

        watch_tasks(self, interval, timeout, return_when)  # type: ignore[arg-type]

    # ------------------------------------------------------------ by engine, by task, by key

    def __getattr__(self, name: str) -> Any:
        # Only for names that are not there otherwise: `completed`, `rank` and so on are those of the metadata.
        if name in KEYS:
            return self[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *KEYS})
