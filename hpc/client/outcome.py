"""How tasks ended, as it came in; values and errors are unpickled when somebody asks for them.

A *reply* covers the tasks that ended together. The results of tasks hold the reply and their index in it. There are two
kinds: `Reply`, what an engine answered, and `Loss`, why there will be no answer.
"""

from collections.abc import Sequence
from concurrent.futures import CancelledError
from typing import Any, TypeAlias

from hpc.client.roster import Roster, describe_end
from hpc.dataplane.arrival import route_of
from hpc.errors import (
    DependencyError,
    EngineLost,
    HpcError,
    NoEngines,
    ProtocolError,
    SerializationError,
    TaskAborted,
    TaskTimeout,
)
from hpc.wire import codec, failures, objects
from hpc.wire import messages as m
from hpc.wire.session import Frame


class Cancelled(TaskAborted, CancelledError):  # noqa: N818 - as its bases
    """The task was aborted before it ran; for `concurrent.futures` it is cancelled."""


class Reply:
    """What an engine answered for the tasks of one range: one `Entry` a task, or one for all of them (``packed``)."""

    __slots__ = ("_errors", "_values", "engine", "entries", "frames", "packed", "received", "roster")

    def __init__(self, roster: Roster, engine: int, packed: bool, frames: Sequence[Frame], received: float) -> None:
        self.roster = roster
        self.engine = engine
        self.packed = packed
        self.received = received
        self.entries = codec.decode_entries(frames[0])
        self.frames = frames
        self._values: list[Any] | None = None
        self._errors: dict[int, BaseException] = {}

    def __repr__(self) -> str:
        return f"<Reply of engine {self.engine}, {len(self.entries)} entries{', packed' if self.packed else ''}>"

    def covers(self, count: int) -> bool:
        """Say whether it can be the answer for so many tasks."""
        return len(self.entries) == (1 if self.packed else count)

    def talked(self) -> bool:
        """Say whether output of the tasks came, or will come, in pieces of its own."""
        for entry in self.entries:  # noqa: SIM110 - half the time of any()
            if entry.n_outputs:
                return True
        return False

    def entry(self, index: int) -> m.Entry | None:
        """Return what the engine said of the task."""
        return self.entries[0 if self.packed else index]

    def failed(self, index: int) -> bool:
        """Say whether the task has no value."""
        return self.entries[0 if self.packed else index].status is not m.Status.DONE

    def status(self, index: int) -> str:
        """Say in a word how it ended."""
        return "failed" if self.failed(index) else "done"

    def value(self, index: int) -> Any:
        """Return the value of a task that is done; it is unpickled anew at each call, unless the reply is packed."""
        if self.packed:
            return self.values()[index]
        return self._load(index)

    def values(self) -> list[Any]:
        """Return the values of all tasks, none of which failed."""
        if self._values is None:
            self._values = self._load(0) if self.packed else [self._load(i) for i in range(len(self.entries))]
        return self._values

    def _load(self, index: int) -> Any:
        entry = self.entries[index]
        try:
            if not entry.n_buffers:
                return objects.loads((entry.payload,))
            start = 1 + sum(before.n_buffers for before in self.entries[:index])
            return objects.loads([entry.payload, *self.frames[start : start + entry.n_buffers]])
        except Exception as error:
            raise SerializationError(
                f"the result of engine {self.engine} cannot be unpickled here: {type(error).__name__}: {error}"
            ) from error

    @property
    def route(self) -> str:
        """The way that its buffers took."""
        return route_of(self.frames[1:])

    def error(self, index: int) -> BaseException | None:
        """Return the error of a task, None if it has a value; the same object each time."""
        if not self.failed(index):
            return None
        if index not in self._errors:
            rank, host = self.roster.place(self.engine)
            payload = self.entries[index].payload
            try:
                self._errors[index] = failures.load_error(payload, engine_id=self.engine, rank=rank, host=host)
            except ProtocolError as error:
                self._errors[index] = error
        return self._errors[index]


class Loss:
    """Why tasks have no answer. Each call of `error` gives a new exception: raising one adds to its traceback."""

    __slots__ = ("_make", "_word", "engine", "received")

    packed = False
    route = "inline"

    def __init__(self, make: "Any", engine: int, word: str, received: float) -> None:
        self._make = make
        self._word = word
        self.engine = engine
        self.received = received

    def __repr__(self) -> str:
        return f"<Loss {self._word}: {self._make()}>"

    def entry(self, _index: int) -> m.Entry | None:
        """Return None: no engine said anything of the task."""
        return None

    def failed(self, _index: int) -> bool:
        """Return True: there is no value."""
        return True

    def status(self, _index: int) -> str:
        """Say in a word how it ended."""
        return self._word

    def value(self, _index: int) -> Any:
        """Raise the reason."""
        raise self._make()

    def values(self) -> list[Any]:
        """Raise the reason."""
        raise self._make()

    def error(self, _index: int) -> BaseException | None:
        """Return the reason."""
        error: BaseException = self._make()
        return error

    @property
    def cancelled(self) -> bool:
        """Whether that is what the user asked for."""
        return self._word == "cancelled"


Outcome: TypeAlias = Reply | Loss


def unwrap(outcome: Outcome, index: int) -> Any:
    """Return the value of a task, or raise its error."""
    error = outcome.error(index)
    if error is not None:
        raise error
    return outcome.value(index)


def loss_of(ended: m.Ended, received: float) -> Loss:
    """Return what the controller said about tasks that end without a result."""
    reason, end, detail = ended.reason, ended.end, ended.detail
    if reason == m.EndReason.ABORTED:
        return Loss(lambda: Cancelled(detail or "the task was aborted before it ran"), -1, "cancelled", received)
    if reason == m.EndReason.NO_ENGINES:
        return Loss(lambda: NoEngines(detail or "there is no engine that may run the task"), -1, "lost", received)
    if reason == m.EndReason.DEPENDENCY:
        return Loss(lambda: DependencyError(detail or "what the task depends on cannot be met"), -1, "failed", received)
    if reason == m.EndReason.TIMEOUT:
        return Loss(lambda: TaskTimeout(detail or "the task has waited for too long"), -1, "failed", received)
    if reason == m.EndReason.REFUSED and end is None:
        return Loss(lambda: HpcError(detail or "the controller refused the task"), -1, "lost", received)
    if end is not None:
        return Loss(lambda: lost_engine(end), end.id, "lost", received)
    return Loss(lambda: EngineLost(detail or "the engine is gone", reason=reason.name.lower()), -1, "lost", received)


def lost_engine(end: m.End) -> EngineLost:
    """Return the error that says which engine went, and how."""
    return EngineLost(
        describe_end(end),
        engine_id=end.id,
        rank=end.rank,
        host=end.host,
        pid=end.pid,
        reason=end.reason.name.lower(),
        signal=end.signal if end.signal > 0 else None,
    )


def malformed(engine: int, error: BaseException, received: float) -> Loss:
    """Return the outcome for tasks whose answer cannot be read."""
    text = f"the answer of engine {engine} cannot be read: {error}"
    return Loss(lambda: ProtocolError(text), engine, "failed", received)


def broken_off(error: BaseException, received: float) -> Loss:
    """Return the outcome for tasks that were under way when the connection ended for good."""
    text, kind = str(error), type(error)
    return Loss(lambda: kind(text), -1, "lost", received)
