"""Where engines are: their Python stacks, and the picture of all of them that a person reads."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

# States of an engine, beside "idle" and "running": Python code runs in none of its threads (C code that keeps the
# interpreter's lock); a signal has stopped the process; it did not answer, and nobody on its host could look.
HELD: Final = "held"
STOPPED: Final = "stopped"
SILENT: Final = "silent"

# What runs user code in an engine, and what may stand between it and that code.
_RUNNERS: Final = ("/hpc/engine/work.py", "/hpc/engine/span.py")
_BETWEEN: Final = ("/hpc/engine/", "/IPython/core/")
_MAX_FRAMES: Final = 200


class Frame(NamedTuple):
    """One line of a stack, with the names that `traceback.FrameSummary` has; ``line`` is '' if it is not known."""

    filename: str
    lineno: int
    name: str
    line: str = ""


class EngineStack(tuple[Frame, ...]):
    """The frames of an engine's main thread, the outermost first; none if it is idle.

    Attributes
    ----------
    engine_id, rank, size, group, host, pid
        Which engine it is.
    state : str
        ``idle``, ``running``, ``held`` (C code keeps the interpreter's lock), ``stopped`` (by a signal), ``silent``.
    call : str
        What the innermost frame has called that is no Python function; ``mpi`` says whether that is MPI.
    since : float
        When the task that runs began, in seconds since the epoch.
    failure : str
        What the last task that failed here raised, and where; ``failed_at`` is when.
    """

    engine_id: int
    rank: int
    size: int
    group: str
    host: str
    pid: int
    state: str
    call: str
    mpi: bool
    since: float
    failure: str
    failed_at: float

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "EngineStack":
        """Return what a row of the controller's answer says."""
        stack = cls(Frame(*frame) for frame in row.get("frames", ()))
        known: dict[str, Any] = {"engine_id": -1, "rank": 0, "size": 1, "group": "", "host": "", "pid": 0}
        known |= {"state": SILENT, "call": "", "mpi": False, "since": 0.0, "failure": "", "failed_at": 0.0}
        for name, default in known.items():
            setattr(stack, name, row.get("id" if name == "engine_id" else name, default))
        return stack

    def __repr__(self) -> str:
        return f"<EngineStack of engine {self.engine_id}: {self.describe()}>"

    def describe(self) -> str:
        """Say in a line where it is."""
        if self.state == SILENT:
            return "does not answer"
        if self.state == STOPPED:
            return "is stopped by a signal" + (f" {self._place()}" if self else "")
        if not self:
            if self.failure:
                return f"raised {self.failure}"
            return "is idle" if self.state == "idle" else "is between two tasks"
        what = f"in {self.call}" if self.call else "runs" if self.state == "running" else "in C code"
        return f"{what} {self._place()}"

    def _place(self) -> str:
        return f"at {os.path.basename(self[-1].filename)}:{self[-1].lineno}"


class Stacks(Mapping[int, EngineStack]):
    """Stacks by engine id. As text: which ranks are where, identical ones together."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        stacks = (EngineStack.of(row) for row in rows)
        self._stacks = {stack.engine_id: stack for stack in stacks}

    def __getitem__(self, engine_id: int) -> EngineStack:
        return self._stacks[engine_id]

    def __iter__(self) -> Iterator[int]:
        return iter(self._stacks)

    def __len__(self) -> int:
        return len(self._stacks)

    def __repr__(self) -> str:
        return str(self)

    @property
    def summary(self) -> str:
        """One line for each group: ``ranks 0,2,3 in Allreduce at solver.py:112; rank 1 raised ValueError at ...``."""
        return "\n".join(
            head + "; ".join(f"{who} {alike[0].describe()}" for who, alike in parts) for head, parts in self._groups()
        )

    def __str__(self) -> str:
        if not self._stacks:
            return "no engines"
        lines = [self.summary]
        for head, parts in self._groups():
            for who, alike in parts:
                if alike[0]:
                    lines += ["", f"{head}{who}{_how_long(alike)}:"]
                    for frame in alike[0]:
                        lines.append(f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}')
                        if frame.line:
                            lines.append(f"    {frame.line}")
        return "\n".join(lines)

    def _groups(self) -> list[tuple[str, list[tuple[str, list[EngineStack]]]]]:
        """Return for each group of ranks, and for all other engines, how to call it, and who is alike in it."""
        groups: dict[str, list[EngineStack]] = {}
        for stack in sorted(self._stacks.values(), key=lambda stack: stack.engine_id):
            groups.setdefault(stack.group if stack.size > 1 else "", []).append(stack)
        found = []
        for name, members in groups.items():
            alike: dict[object, list[EngineStack]] = {}
            for stack in members:
                key = tuple(stack), stack.call, stack.state, "" if stack else stack.failure
                alike.setdefault(key, []).append(stack)
            head = ""
            if len(groups) > 1 and name:
                head = f"group of engines {numbers([stack.engine_id for stack in members])}: "
            found.append((head, [(_who(stacks, in_group=bool(name)), stacks) for stacks in alike.values()]))
        return found


def user_frames(frames: Sequence[tuple[str, int, str, str]]) -> list[tuple[str, int, str, str]]:
    """Return the frames of a task, the outermost first, from all of its thread; [] if no task is among them."""
    starts = [n for n, frame in enumerate(frames) if frame[0].endswith(_RUNNERS)]
    if not starts:
        return []
    start = starts[-1] + 1
    while start < len(frames) and any(part in frames[start][0] for part in _BETWEEN):
        start += 1
    return list(frames[start:])[-_MAX_FRAMES:]


def _who(stacks: Sequence[EngineStack], *, in_group: bool) -> str:
    ids = [stack.rank if in_group else stack.engine_id for stack in stacks]
    return f"{'rank' if in_group else 'engine'}{'s' * (len(ids) > 1)} {numbers(ids)}"


def _how_long(stacks: Sequence[EngineStack]) -> str:
    began = max(stack.since for stack in stacks)
    seconds = time.time() - began
    return f", for {seconds:.0f} s" if began and seconds >= 1 else ""


def numbers(ids: Iterable[int]) -> str:
    """Write numbers for people: runs of three and more are shortened.

    >>> numbers([0, 2, 3, 5, 6, 7])
    '0,2,3,5-7'
    """
    runs: list[list[int]] = []
    for number in sorted(ids):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)
