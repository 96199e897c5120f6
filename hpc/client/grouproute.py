"""Large data to and from the ranks of one MPI group: once over the wire, the rest is theirs (route ``mpi``).

The rank nearest to the client, the root, is sent the buffers in pieces. Each piece is followed by a collective
operation of all ranks: while they move it, the next one is on its way (docs/decisions/0008-mpi-route.md).
"""

import itertools
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hpc.client.bundle import Part, Placement
from hpc.client.calls import dump_call
from hpc.client.groupresult import GroupResult
from hpc.client.outcome import Outcome
from hpc.dataplane import chooser
from hpc.security.host import hostname
from hpc.wire import objects

if TYPE_CHECKING:
    from hpc.client.link import Link

BCAST, SCATTERV, GATHERV, REDUCE = b"!bcast", b"!scatterv", b"!gatherv", b"!reduce"
STAGE, FORGET = b"!stage", b"!forget"

# Small enough that the first piece is soon there, large enough that a piece costs more than the messages about it.
PIECE_NBYTES: Final = 8 << 20
# So many pieces are under way at a time: one moves among the ranks, one is on the wire, and one is being made.
# It is also what the controller may have to hold.
N_PIECES: Final = 3

_tokens = itertools.count(1)


class TeamResult(GroupResult):
    """What the ranks of a group do together; it cannot be aborted, since each waits for the others."""

    def _route(self, _outcome: Outcome | None) -> str:
        return "mpi"


def applicable(link: "Link", targets: Sequence[int], nbytes: int | None = None, forced: str | None = None) -> bool:
    """Say whether this is the route to take.

    Parameters
    ----------
    nbytes
        How large the data is; None if it is not known, as before a gather.
    forced
        The route that was asked for, None for whichever is best.
    """
    engines = link.roster.engines
    if len(set(targets)) != len(targets) or any(target not in engines for target in targets):
        return False
    rows = [engines[target] for target in targets]
    nbytes = chooser.SHARED_NBYTES if nbytes is None else nbytes
    return chooser.choose(nbytes, rows, link=link.route, forced=forced or link.freight.forced).route == "mpi"


def push(
    link: "Link", targets: Sequence[int], names: Mapping[str, Any], *, single: bool = False, route: str | None = None
) -> TeamResult | None:
    """Bind the same objects on every target. Returns when the last piece is on its way; None if it is not worth it."""
    frames = [objects.dumps(dict(names))]
    if not _is_worth_it(link, frames, route):
        return None
    return _send(link, targets, BCAST, frames, _Label(f"push {', '.join(names)}", single))


def scatter(
    link: "Link",
    targets: Sequence[int],
    name: str,
    parts: Sequence[Any],
    *,
    single: bool = False,
    route: str | None = None,
) -> TeamResult | None:
    """Bind a name on every target, to a part of its own; returns as `push` does."""
    frames = [objects.dumps({name: part}) for part in parts]
    if not _is_worth_it(link, frames, route):
        return None
    return _send(link, targets, SCATTERV, frames, _Label(f"scatter {name}", single))


def gather(
    link: "Link",
    targets: Sequence[int],
    name: str,
    combine: Callable[[list[Any]], Any],
    *,
    concatenate: bool,
    single: bool = False,
) -> TeamResult:
    """Fetch what a name means on every target.

    With ``concatenate``, arrays that are alike are put one after the other along their first axis, by the ranks
    themselves; everything else is given to ``combine``, as the list of values.
    """
    ranks, root = _ranks(link, targets)

    def finish(values: list[Any]) -> Any:
        kind, value = values[root]
        return value if kind == "whole" else combine([objects.loads([bytes(f[0]), *f[1:]]) for f in value])

    result = TeamResult(link, f"gather {name}", list(targets), finish, single)
    _submit(link, result, GATHERV, (ranks, root, name, concatenate))
    return result


def reduce(
    link: "Link", targets: Sequence[int], name: str, op: str | Callable[[Any, Any], Any], *, single: bool = False
) -> TeamResult:
    """Return what a name means on all targets, combined by an operation: its name, or a function of two objects."""
    ranks, root = _ranks(link, targets)
    # As frames, because an operation that a rank cannot load must not keep it from meeting the others.
    frames = [bytes(frame) for frame in objects.dumps(op)]
    result = TeamResult(link, f"reduce {name}", list(targets), lambda values: values[root], single)
    _submit(link, result, REDUCE, (ranks, root, name, frames))
    return result


def _is_worth_it(link: "Link", frames: list[list[Any]], route: str | None) -> bool:
    if (route or link.freight.forced) == "mpi":
        return True
    return sum(_nbytes(buffer) for _, *buffers in frames for buffer in buffers) >= chooser.SHARED_NBYTES


def _ranks(link: "Link", targets: Sequence[int]) -> tuple[list[int], int]:
    """Return the ranks of the targets, and which of them is the nearest."""
    rows = [link.roster.engines[target] for target in targets]
    here = hostname()
    return [row.rank for row in rows], next((i for i, row in enumerate(rows) if row.host == here), 0)


def _submit(link: "Link", result: GroupResult, digest: bytes, args: tuple[Any, ...]) -> None:
    """Have all targets of a result make a call: one message, so that it has one place in the order of all work."""
    part = Part(result, len(result.targets))
    link.outbox.submit_each(Placement(result.targets), digest, dump_call(args, {}), part)


class _Label(NamedTuple):
    name: str
    single: bool


def _send(link: "Link", targets: Sequence[int], digest: bytes, frames: list[list[Any]], label: _Label) -> TeamResult:
    name = label.name
    ranks, root = _ranks(link, targets)
    buffers = [frame for each in frames for frame in each]
    sizes = [list(map(_nbytes, each)) for each in frames]
    total = sum(map(_nbytes, buffers))
    # On this host memory is shared, and a copy at the root would cost more than pieces gain.
    is_near = link.roster.engines[targets[root]].host == hostname() and link.route == "unix"
    step = total if is_near else PIECE_NBYTES
    starts = range(0, total, step)
    token = os.urandom(8) + next(_tokens).to_bytes(8, "little")
    moves: list[TeamResult] = []
    marks = []
    try:
        for number, start in enumerate(starts):
            stop, last = min(start + step, total), number == len(starts) - 1
            if number >= N_PIECES:
                moves[number - N_PIECES].wait()
            staged = GroupResult(link, f"stage {name}", [targets[root]])
            pieces = list(_cut(buffers, start, stop))
            is_shared = is_near and stop - start >= chooser.SHARED_NBYTES
            # Memory that the root has mapped already, by which it gets round the page faults of mapping it anew.
            warm = link.freight.outgoing.share_warm(pieces) if is_shared else None
            body: list[Any] = [_stage_call(token, number, len(pieces)), *(warm or pieces)]
            link.outbox.submit_each(Placement(staged.targets), STAGE, body, Part(staged, 1))
            marks += staged._marks()
            moves.append(TeamResult(link, name, list(targets), None, label.single))
            _submit(link, moves[-1], digest, (token, ranks, root, (number, start, stop, last), [] if number else sizes))
    except BaseException:
        _submit(link, GroupResult(link, f"forget {name}", list(targets)), FORGET, (token,))
        raise
    moves[-1]._sending += marks
    return moves[-1]


def _nbytes(buffer: Any) -> int:
    return memoryview(buffer).nbytes


def _stage_call(token: bytes, number: int, n: int) -> bytes:
    """Return the pickle of the arguments of `STAGE`, in which the ``n`` frames of the body take the pieces' places."""
    places = [pickle.PickleBuffer(bytearray(1)) for _ in range(n)]
    return pickle.dumps(((token, number, places), {}), 5, buffer_callback=lambda _: None)


def _cut(buffers: Sequence[Any], start: int, stop: int) -> Iterator[memoryview]:
    """Yield what lies at [start, stop) of the stream that the buffers form."""
    base = 0
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        begin, end = max(start - base, 0), min(stop - base, view.nbytes)
        if begin < end:
            yield view[begin:end]
        base += view.nbytes
