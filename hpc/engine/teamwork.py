"""Running tasks that several ranks of a group do together.

The root decides what is begun, by its ledger, and tells the others; all agree on what became of a task before any of
them goes on; the root answers. The others account for nothing but their output.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, TypeAlias

from hpc.dataplane.arrival import route_of
from hpc.engine import current
from hpc.engine.functions import Held
from hpc.engine.results import pack_error, pack_value
from hpc.engine.work import call_positions, take_values
from hpc.engine.workplace import Workplace
from hpc.errors import CollectiveStalled, ProtocolError
from hpc.wire import codec, failures, objects
from hpc.wire.messages import Entry, Kind, Run, Status
from hpc.wire.session import Frame

# What ranks agree on after a task, bit by bit: that something holds for any of them.
FAILED: Final = 1
TALKED: Final = 2

# Pieces of output are numbered rank by rank: no task prints so many.
_PIECES_PER_RANK: Final = 1 << 24

_Call: TypeAlias = tuple[Held, tuple[Any, ...], dict[str, Any]]


class _Outcome(NamedTuple):
    """What a task came to on one rank: frames of its value, or an error's payload."""

    frames: list[Any]
    error: bytes
    summary: str
    is_echo: bool  # raised because of what happened on another rank


class TeamRunner:
    """Runs bundles together with others, in the main thread. User code runs under the same rule as in `Runner`.

    Without MPI a team is one rank.
    """

    def __init__(self, place: Workplace) -> None:
        self._place = place
        self._teams: dict[tuple[int, ...], Any] = {}

    def __repr__(self) -> str:
        return f"<TeamRunner {len(self._teams)} teams>"

    def run(self, run: Run, held: list[Held], body: Sequence[Frame]) -> None:
        """Run what is left of a part, with the others of its team; its last results stay in the root's ledger."""
        ledger, capture = self._place.ledger, self._place.capture
        try:
            with self._team(run.team) as team:
                if team.is_root:
                    ledger.begin(run)
                capture.active = True
                calls = _Calls(self._place, run, held, body)
                try:
                    while (offset := team.share(ledger.claim() if team.is_root else -1)) >= 0:
                        if not team.is_root:
                            ledger.assist((run.client, run.first), offset, team.rank * _PIECES_PER_RANK)
                        self._run_task(team, run, calls, offset)
                finally:
                    calls.close()
        except CollectiveStalled:
            if not self._place.interrupts.leaving:
                raise
        finally:
            capture.active = False
            ledger.finish()
            ledger.streamed = 0  # of the next task, nothing has left yet
        capture.take()

    @contextmanager
    def _team(self, ranks: list[int]) -> Iterator[Any]:
        collectives = self._place.collectives
        if collectives is None:
            yield _Alone()
            return
        from hpc.mpi.taskteam import TaskTeam

        key = tuple(ranks)
        with collectives.team(ranks) as team:
            known = self._teams.get(key) or TaskTeam(team)
            yield known
            if team.is_kept:
                self._teams[key] = known
            else:
                known.close()

    def _run_task(self, team: Any, run: Run, calls: "_Calls", offset: int) -> None:
        place = self._place
        ledger, capture = place.ledger, place.capture
        team.begin()
        started = time.time()
        if team.is_root:
            ledger.running_since = started
        with _introduced(place, team):
            outcome = self._call(team, calls, offset, run.everyone)
        said = Entry(Status.DONE, 0.0, 0.0, b"")
        if capture or ledger.streamed % _PIECES_PER_RANK:
            place.add_output(said, said)
        talked = said.stdout or said.stderr or said.n_outputs
        agreed = team.agree((FAILED if outcome.error else 0) | (TALKED if talked else 0))
        entry = Entry(Status.DONE, started, 0.0, b"", route=calls.route)
        if agreed & TALKED:
            _collect_output(team, said, entry)
        buffers: list[Any] = []
        if agreed & FAILED:
            outcomes = team.collect(outcome)
            if outcomes is not None:
                entry.status, entry.payload = Status.FAILED, _joined(outcomes, run.team)
        else:
            buffers = self._add_value(team, run, outcome, entry)
        entry.completed = time.time()
        if not team.is_root:
            return
        ledger.hold_entry(offset, entry, buffers)
        if place.interrupts.interrupted:
            place.interrupts.interrupted = False
            if run.kind == Kind.SPAN:  # the person who interrupts a map means the map
                place.fail_rest(KeyboardInterrupt("interrupted before it began"))
        if not 0 <= entry.completed - ledger.held_since < ledger.hold_s:
            place.flush()
        elif not ledger.armed:
            place.wake()

    def _call(self, team: Any, calls: "_Calls", offset: int, everyone: bool) -> _Outcome:
        """Run one task on this rank."""
        interrupts, function = self._place.interrupts, None
        try:
            interrupts.in_task = True
            function, args, kwargs = calls.load(offset)
            if function.binds:
                function.prepare()
            value = function.call(*args, **kwargs)
            frames = [] if not (everyone or team.is_root) else list(pack_value(value))
            interrupts.in_task = False
        except BaseException as error:
            interrupts.in_task = False
            if self._place.interrupts.leaving and not isinstance(error, Exception):
                raise CollectiveStalled(f"this rank leaves: {self._place.interrupts.leaving}") from None
            entry = self._place.failure(error, function, 0.0, 0.0, engine=self._place.namespace.identity.id)
            is_echo = type(error).__name__ == "RaisedElsewhere"  # without MPI there is no such class to ask for
            return _Outcome([], entry.payload, f"{type(error).__name__}: {error}", is_echo)
        return _Outcome(frames, b"", "", False)

    def _add_value(self, team: Any, run: Run, outcome: _Outcome, entry: Entry) -> list[Any]:
        """Put the value of the root, or of all, into the entry; return its buffers."""
        payload, buffers = outcome.frames or (b"", [])
        outcome.frames.clear()
        if run.everyone:
            try:
                values = team.gather([payload, *buffers])
                payload, buffers = pack_value(values) if values is not None else (b"", [])
                values = None
            except Exception as error:
                entry.status, entry.payload = Status.FAILED, pack_error(error)
                return []
        if team.is_root and buffers:
            buffers = self._place.ship(buffers, run.route)
        entry.payload, entry.n_buffers = payload, len(buffers)
        return buffers


class _Calls:
    """The tasks of a bundle, one by one."""

    def __init__(self, place: Workplace, run: Run, held: list[Held], body: Sequence[Frame]) -> None:
        self._namespace, self._held, self._body = place.namespace, held, body
        self._columns: list[Any] | None = None
        self._calls: list[tuple[int, int, bytes]] = []
        self._positions: list[int] = []
        self._brought: list[list[Frame]] = []
        self._is_span = run.kind == Kind.SPAN
        self.route = ""

    def load(self, offset: int) -> _Call:
        """Return function and arguments of a task; may raise anything."""
        resolve = self._namespace.resolve
        if self._is_span:
            if self._columns is None:
                self._columns = objects.loads(self._body)
            if any(len(column) <= offset for column in self._columns):
                raise ProtocolError(f"the columns of a span end before task {offset + 1}")
            return self._held[0], tuple(resolve(column[offset]) for column in self._columns), {}
        if not self._calls:
            self._read_calls()
        which, n_buffers, payload = self._calls[offset]
        at = self._positions[offset]
        args, kwargs = objects.loads([payload, *self._body[at : at + n_buffers]])
        return self._held[which], tuple(map(resolve, args)), {name: resolve(value) for name, value in kwargs.items()}

    def _read_calls(self) -> None:
        self._calls = codec.decode_calls(self._body[0])
        self._positions = call_positions(self._calls)
        self._brought = take_values(self._calls, self._body)
        if self._brought:
            self._namespace.bring(self._brought)
            self.route = route_of([frame for frames in self._brought for frame in frames[1:]])

    def close(self) -> None:
        """Let go of what was brought."""
        if self._brought:
            self._namespace.forget()


class _Alone:
    """A team of one rank without MPI."""

    is_root: Final = True
    rank: Final = 0
    comm: Final = None

    def share(self, number: int) -> int:
        """Return what the root gives."""
        return number

    def begin(self) -> None:
        """Do nothing."""

    def agree(self, bits: int) -> int:
        """Return what any rank has."""
        return bits

    def collect(self, item: Any) -> list[Any]:
        """Return what each rank gives."""
        return [item]

    def gather(self, frames: list[Any]) -> list[Any]:
        """Return the objects of all ranks."""
        return [objects.loads(frames)]


@contextmanager
def _introduced(place: Workplace, team: Any) -> Iterator[None]:
    """Have ``hpc.comm()`` and the names ``comm``, ``rank``, ``size`` mean the team, unless the user has bound them."""
    if team.comm is None:
        yield
        return
    names, identity = place.namespace.names, place.namespace.identity
    comm = team.comm
    before = {"comm": identity.comm, "rank": identity.rank, "size": identity.size}
    within = {"comm": comm, "rank": comm.rank, "size": comm.size}
    changed = [name for name, value in before.items() if name in names and names[name] is value]
    names.update({name: within[name] for name in changed})
    current.team_comm = comm
    try:
        yield
    finally:
        current.team_comm = None
        names.update({name: before[name] for name in changed if names.get(name) is within[name]})


def _collect_output(team: Any, said: Entry, entry: Entry) -> None:
    """Put what all ranks have printed into the root's entry, in their order."""
    texts = team.collect((said.stdout, said.stderr, said.n_outputs % _PIECES_PER_RANK))
    if texts is not None:
        entry.stdout = "".join(stdout for stdout, _, _ in texts)
        entry.stderr = "".join(stderr for _, stderr, _ in texts)
        entry.n_outputs = sum(n for _, _, n in texts)


def _joined(outcomes: list[_Outcome], ranks: list[int]) -> bytes:
    """Return the error of the first rank that raised by itself; it names the others."""
    failed = [(ranks[i], outcome) for i, outcome in enumerate(outcomes) if outcome.error]
    causes = [(rank, outcome) for rank, outcome in failed if not outcome.is_echo] or failed
    _, first = causes[0]
    others = [f"Rank {rank} raised, too: {outcome.summary}" for rank, outcome in causes[1:]]
    return failures.with_more(first.error, others) if others else first.error
