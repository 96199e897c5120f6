"""What the main thread of this engine does, as the control thread sees it, and what its last failed task left."""

import linecache
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, Final

from hpc.security.peek import RawFrame, peek
from hpc.wire.messages import Look, Message, Sight
from hpc.wire.stacks import user_frames

if TYPE_CHECKING:
    from hpc.engine.workplace import Workplace

_PACKAGE: Final = str(Path(__file__).parent.parent) + "/"
_LOADS: Final = frozenset(("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FAST", "LOAD_DEREF", "LOAD_CLOSURE", "LOAD_FAST_CHECK"))
_ATTRIBUTES: Final = frozenset(("LOAD_ATTR", "LOAD_METHOD"))
# Names that nothing but MPI has, for communicators that cannot be looked up from outside of the frame.
_CERTAIN: Final = frozenset(
    (
        "barrier",
        "bcast",
        "allreduce",
        "allgather",
        "allgatherv",
        "alltoall",
        "alltoallv",
        "alltoallw",
        "reduce_scatter",
        "reduce_scatter_block",
        "exscan",
        "sendrecv",
        "create_group",
        "waitall",
    )
)


class Lookout:
    """Sees where the main thread is. For the control thread, but for `note`."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.failed_at = 0.0
        self.is_fresh = False  # the engine's own frames still hold what they held
        self._main = threading.main_thread().ident or 0

    def __repr__(self) -> str:
        return f"<Lookout, last failure {self.error!r}>"

    def note(self, error: BaseException) -> None:
        """Keep what a task has raised, with its frames, until the next one fails."""
        self.error, self.failed_at, self.is_fresh = error, time.time(), True

    def release(self) -> None:
        """Let go of what the engine's own frames hold for the last failure: bodies of bundles, shared memory."""
        self.is_fresh = False
        trace = None if self.error is None else self.error.__traceback__
        while trace is not None:
            frame = trace.tb_frame
            if frame.f_code.co_filename.startswith(_PACKAGE):
                try:
                    frame.clear()
                except RuntimeError:  # it runs
                    return
            trace = trace.tb_next

    def answer(self, look: Look, place: "Workplace", send: Callable[[Message], None]) -> None:
        """Answer the controller."""
        if not look.others:
            send(self._sight(look.number, place))
            return
        for engine, pid in look.others:
            found = peek(pid)
            if found is not None:
                state, frames = found
                send(Sight(look.number, engine, state, user_frames(frames)))

    def _sight(self, number: int, place: "Workplace") -> Sight:
        ledger, identity = place.ledger, place.namespace.identity
        with ledger.lock:
            running = ledger.key is not None
            key, offset, since = ledger.key or ledger.last, ledger.running, ledger.running_since
        sight = Sight(number, identity.id, "running" if running else "idle", since=since if running else 0.0)
        if key is not None:
            (sight.client, sight.first), sight.offset = key, offset if running else -1
        innermost = sys._current_frames().get(self._main)
        if running and innermost is not None:
            sight.frames = user_frames(_walk(innermost))
            if sight.frames:
                chain = _called(innermost.f_code, innermost.f_lasti)
                sight.call = chain[-1] if chain else ""
                sight.mpi, sight.world = _is_mpi(innermost, chain, identity.comm, identity.size)
        if self.error is not None:
            sight.failure, sight.failed_at = describe_error(self.error), self.failed_at
        return sight


def describe_error(error: BaseException) -> str:
    """Say what was raised and where: ``ValueError at solver.py:108: no convergence``."""
    where, trace = "", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if not code.co_filename.startswith(_PACKAGE):
            where = f" at {Path(code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    try:
        text = str(error)
    except Exception as broken:
        text = f"<str() of it raised {type(broken).__name__}>"
    text = text.strip().partition("\n")[0][:200]
    return f"{type(error).__name__}{where}{': ' + text if text else ''}"


def _walk(innermost: FrameType | None) -> list[RawFrame]:
    """Return the frames of a task, the outermost first; [] if the thread is in none."""
    found: list[RawFrame] = []
    frame = innermost
    while frame is not None:
        code = frame.f_code
        line = frame.f_lineno or code.co_firstlineno
        text = linecache.getline(code.co_filename, line, frame.f_globals).strip()
        found.append((code.co_filename, line, code.co_qualname, text))
        frame = frame.f_back
    return found[::-1]


def _called(code: CodeType, lasti: int) -> list[str]:
    """Return the dotted name of what an innermost frame calls now, if that can be told: ``["comm", "Allreduce"]``.

    The source may not be here; but the instructions that load a function begin in the same place of it as the call.
    """
    import dis  # which is slow to import, and seldom needed

    instructions = list(dis.get_instructions(code))
    at = next((n for n, one in enumerate(instructions) if one.offset == lasti), None)
    if at is None or not instructions[at].opname.startswith(("PRECALL", "CALL")):
        return []
    place = instructions[at].positions
    if place is None or place.col_offset is None:
        return []
    names: list[str] = []
    for one in instructions[:at]:
        here = one.positions
        if here is None or (here.lineno, here.col_offset) != (place.lineno, place.col_offset):
            continue
        if one.opname in _LOADS:
            names = [str(one.argval)]
        elif one.opname in _ATTRIBUTES and names:
            names.append(str(one.argval))
        elif one.opname.startswith("CALL") and names:
            names = [f"{'.'.join(names)}()"]
    return names


def _is_mpi(frame: FrameType, chain: list[str], comm: Any, size: int) -> tuple[bool, bool]:
    """Say whether a call is one of MPI, and whether all ranks of the group have to take part in it."""
    if len(chain) < 2 or comm is None:
        return False, False
    owner = comm if chain[:-1] == ["hpc.comm()"] else _look_up(frame, chain[:-1])
    if owner is None:
        return chain[-1].lower() in _CERTAIN, False
    if not any(kind.__module__.startswith("mpi4py") for kind in type(owner).__mro__):
        return False, False
    collective = chain[-1].lower() not in ("send", "ssend", "bsend", "rsend", "recv", "sendrecv", "probe", "mprobe")
    if not collective or not isinstance(owner, sys.modules["mpi4py.MPI"].Intracomm):
        return True, False
    return True, bool(owner == comm or owner.Get_size() == size)


def _look_up(frame: FrameType, chain: list[str]) -> Any:
    """Return what a dotted name means in a frame; no code of the user runs for it. None if that does not tell."""
    first, *rest = chain
    found = frame.f_locals.get(first, frame.f_globals.get(first))
    for name in rest:
        found = getattr(found, "__dict__", {}).get(name)
    return found
