"""The engine's own operations that all ranks of a team do together (docs/decisions/0008-mpi-route.md).

They run as direct tasks of all members. The controller's one order of direct work makes them match, whatever number of
clients ask for them.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple

from hpc import reduction
from hpc.dataplane import memory
from hpc.engine.mappings import Mappings
from hpc.engine.namespace import Namespace
from hpc.errors import HpcError
from hpc.transport.shared import SharedFrame, is_mapped
from hpc.wire import objects

# What a client that vanished has left half done is forgotten when it has not grown for so long.
FORGOTTEN_S: Final = 600.0


class Span(NamedTuple):
    """A piece of a transfer: its number, where it begins and ends in the stream, and whether it is the last one."""

    number: int
    start: int
    stop: int
    last: bool


@dataclass(slots=True)
class Transfer:
    """Names on their way to this rank, in pieces.

    The pieces are those of one stream of bytes: the frames that all ranks share or, of a scatter, the frames of one
    rank after the other. ``sizes`` are those of all these frames, by rank; ``base`` is where this rank's ``frames``
    begin. ``staged`` is what the client has sent to the root: memory, or frames of its own segment. ``failure`` says
    why it came to nothing.
    """

    staged: dict[int, list[Any]] = field(default_factory=dict)
    sizes: list[list[int]] = field(default_factory=list)
    base: int = 0
    frames: list[Any] = field(default_factory=list)
    touched: float = 0.0
    failure: str = ""


class GroupWork:
    """Operations of a team of ranks on names of the namespace.

    Parameters
    ----------
    namespace : Namespace
        Of this engine.
    collectives : hpc.mpi.collectives.Collectives or None
        None without MPI: then the operations say so.
    """

    def __init__(self, namespace: Namespace, collectives: Any) -> None:
        self._namespace = namespace
        self._collectives = collectives
        self._mappings = Mappings()
        self._transfers: OrderedDict[bytes, Transfer] = OrderedDict()
        self.builtins: Mapping[bytes, Callable[..., Any]] = {
            b"!stage": self.stage,
            b"!bcast": self.bcast,
            b"!scatterv": self.scatterv,
            b"!gatherv": self.gatherv,
            b"!reduce": self.reduce,
            b"!forget": self.forget,
        }

    def __repr__(self) -> str:
        return f"<GroupWork of {self._namespace.identity}, {len(self._transfers)} transfers under way>"

    # ------------------------------------------------------------ in

    def stage(self, token: bytes, number: int, pieces: list[Any]) -> None:
        """Keep a piece of a transfer for `bcast` or `scatterv`; the root does this."""
        self._transfer(token).staged[number] = pieces

    def forget(self, token: bytes) -> None:
        """Forget a transfer that will not be completed."""
        self._transfers.pop(token, None)

    def bcast(
        self, token: bytes, ranks: list[int], root: int, span: tuple[int, int, int, bool], sizes: list[list[int]]
    ) -> None:
        """Move a piece of a transfer from the root to all; with the last one bind the names.

        ``span`` is a `Span`. With the first piece come the sizes of the frames: their list, alone in a list.
        """
        with self._piece(token, ranks, root, Span(*span), sizes, shared=True) as (transfer, team):
            transfer.staged.pop(span[0], None)
            team.bcast(_views(transfer, Span(*span)), root)

    def scatterv(
        self, token: bytes, ranks: list[int], root: int, span: tuple[int, int, int, bool], sizes: list[list[int]]
    ) -> None:
        """Move a piece of a transfer from the root to those whose it is; see `bcast`. ``sizes`` has a list for each."""
        start, stop = span[1:3]
        with self._piece(token, ranks, root, Span(*span), sizes, shared=False) as (transfer, team):
            pieces = transfer.staged.pop(span[0], None)
            outgoing: list[list[Any]] | None = None
            if pieces is not None:
                outgoing, left, base = [], map(self._readable, pieces), 0
                for each in transfer.sizes:
                    outgoing.append(list(islice(left, len(segments(each, start - base, stop - base)))))
                    base += sum(each)
            team.scatterv(outgoing, _views(transfer, Span(*span)), root)

    @contextmanager
    def _piece(
        self, token: bytes, ranks: list[int], root: int, span: Span, sizes: list[list[int]], *, shared: bool
    ) -> Iterator[tuple[Transfer, Any]]:
        """Give transfer and team when all ranks are ready to move a piece; bind the names when that was the last one.

        ``shared`` says that all ranks get the same.
        """
        with self._team(ranks) as team:
            transfer, problem = self._transfer(token), None
            try:
                try:
                    self._prepare(transfer, team, span, sizes, is_root=team.rank == root, shared=shared)
                except Exception as error:
                    problem = error
                team.agree(problem)
                yield transfer, team
            except BaseException as error:
                # Kept until the last piece: every one of them is to say why.
                self._transfers[token] = Transfer(failure=str(error), touched=time.monotonic())
                if span.last:
                    self.forget(token)
                raise
        transfer.touched = time.monotonic()
        if span.last:
            self.forget(token)
            if transfer.frames:
                payload, *buffers = transfer.frames
                self._namespace.push(objects.loads([bytes(payload), *buffers]))

    def _prepare(
        self, transfer: Transfer, team: Any, span: Span, sizes: list[list[int]], *, is_root: bool, shared: bool
    ) -> None:
        """Make room for what comes, so that nothing is left to do but to move it."""
        if transfer.failure:
            raise HpcError(transfer.failure)
        # Of pieces whose sender was killed in between there is nothing.
        is_there = not is_root or sum(map(len, transfer.staged.get(span.number, ()))) == span.stop - span.start
        if not is_there or not (sizes or transfer.sizes):
            raise HpcError("the data, or a part of them, did not arrive")
        if sizes:
            mine = 0 if shared else team.rank
            transfer.sizes, transfer.base = sizes, sum(map(sum, sizes[:mine]))
            if is_root and shared and span.last:
                left = iter(transfer.staged[span.number])
                transfer.frames = [self._own(next(left)) if size else _room(0) for size in sizes[mine]]
                return
            transfer.frames = [_room(size) for size in sizes[mine]]
        if is_root and shared:
            # Its own copy, before the others wait for it in MPI.
            for target, source in zip(_views(transfer, span), transfer.staged[span.number], strict=True):
                memory.copy(memoryview(target), self._readable(source))

    def _own(self, piece: Any) -> Any:
        """Return a staged piece as memory of this process, which is copied if it is shared.

        MPI reads it once for each rank or so, and may write to it, too. Pages of shared memory are small, which makes
        that cost more than the copy.
        """
        if type(piece) is not SharedFrame and not is_mapped(piece) and not memoryview(piece).readonly:
            return piece
        room = _room(len(piece))
        memory.copy(memoryview(room), self._readable(piece))
        return room

    def _readable(self, piece: Any) -> Any:
        """Return the memory of a staged piece; what stands in the client's segment is read there."""
        return self._mappings.memory(piece) if type(piece) is SharedFrame else piece

    def _transfer(self, token: bytes) -> Transfer:
        now = time.monotonic()
        transfer = self._transfers.get(token)
        if transfer is None:
            while self._transfers and next(iter(self._transfers.values())).touched < now - FORGOTTEN_S:
                self._transfers.popitem(last=False)
            transfer = self._transfers[token] = Transfer()
        self._transfers.move_to_end(token)
        transfer.touched = now
        return transfer

    # ------------------------------------------------------------ out

    def gatherv(self, ranks: list[int], root: int, name: str, join: bool) -> tuple[str, Any] | None:
        """Return on the root what a name means on all ranks; None elsewhere.

        Returns
        -------
        tuple of (str, object)
            ``"whole"`` and one array: what ``numpy.concatenate`` makes of those of the ranks, if ``join`` and they are
            arrays that are contiguous and alike. Otherwise ``"parts"`` and the frames of each rank's object.
        """
        with self._team(ranks) as team:
            value, frames, problem = None, [], None
            shape: tuple[Any, ...] | None = None
            try:
                value = self._namespace.lookup(name)
                shape = _joinable(value) if join else None
                frames = [] if shape else objects.dumps(value)
            except Exception as error:
                problem = error
            team.agree(problem)
            shapes = team.exchange(shape)
            if all(other is not None and other[:2] == shapes[0][:2] for other in shapes):
                return self._gather_whole(team, root, value, shapes)
            try:
                frames = frames or objects.dumps(value)
            except Exception as error:
                problem = error
            team.agree(problem)
            return self._gather_parts(team, root, frames)

    def _gather_whole(self, team: Any, root: int, value: Any, shapes: list[Any]) -> tuple[str, Any] | None:
        whole, problem, incoming = None, None, None
        dtype, inner, _ = shapes[0]
        lengths = [length for *_, length in shapes]
        if team.rank == root:
            try:
                whole = _numpy().empty((sum(lengths), *inner), dtype)
            except MemoryError as error:
                problem = error
        team.agree(problem)
        if whole is not None:
            incoming, begin = [], 0
            for length in lengths:
                incoming.append([_memory(whole[begin : begin + length])])
                begin += length
        team.gatherv([_memory(value)], incoming, root)
        return None if whole is None else ("whole", whole)

    def _gather_parts(self, team: Any, root: int, frames: list[Any]) -> tuple[str, Any] | None:
        sizes = team.exchange([memoryview(frame).nbytes for frame in frames])
        incoming, problem = None, None
        if team.rank == root:
            try:
                incoming = [[_room(nbytes) for nbytes in each] for each in sizes]
            except MemoryError as error:
                problem = error
        team.agree(problem)
        team.gatherv(frames, incoming, root)
        return None if incoming is None else ("parts", incoming)

    def reduce(self, ranks: list[int], root: int, name: str, op: list[Any]) -> Any:
        """Return on the root what a name means on all ranks, combined; None elsewhere.

        ``op`` holds the frames of an operation's name or of a function of two objects. Arrays of all ranks must be of
        one dtype and shape if it is a name.
        """
        from hpc.mpi import operations

        with self._team(ranks) as team:
            function, value, kind, problem = None, None, None, None
            try:
                function = objects.loads([bytes(op[0]), *op[1:]])
                reduction.check(function)
                value = self._namespace.lookup(name)
                if isinstance(function, str):
                    value, kind = operations.prepare(function, value)
            except Exception as error:
                problem = error
            team.agree(problem)
            kinds = team.exchange(kind)
            if function is None or all(other is None for other in kinds):
                return self._reduce_objects(team, root, value, function)
            if any(other != kinds[0] for other in kinds):
                raise operations.unlike(name, ranks, kinds)
            total = team.reduce(value, operations.ufunc_of(function), root)
            return total[()] if total is not None and not total.shape else total

    def _reduce_objects(self, team: Any, root: int, value: Any, op: Any) -> Any:
        def combine(left: Any, right: Any) -> Any:
            return reduction.combine(left, right, op, spare=right)  # which was received, and is nobody else's

        if team.size == 1 and op in reduction.LOGICAL:  # truth values also of one
            return reduction.combine(value, value, op)
        return team.reduce_objects(value, combine, root)

    def _team(self, ranks: list[int]) -> Any:
        if self._collectives is None:
            raise HpcError(f"{self._namespace.identity} was started without MPI")
        return self._collectives.team(ranks)


def _views(transfer: Transfer, span: Span) -> list[Any]:
    """Return the memory of a rank's frames that a piece goes to."""
    sizes = [len(frame) for frame in transfer.frames]
    found = segments(sizes, span.start - transfer.base, span.stop - transfer.base)
    return [transfer.frames[i][begin:end] for i, begin, end in found]


def segments(sizes: Sequence[int], start: int, stop: int) -> list[tuple[int, int, int]]:
    """Return which parts (index, begin, end) of buffers lie at [start, stop) of the stream that they form.

    >>> segments([4, 0, 6], 2, 7)
    [(0, 2, 4), (2, 0, 3)]
    """
    found, base = [], 0
    for i, size in enumerate(sizes):
        begin, end = max(start - base, 0), min(stop - base, size)
        if begin < end:
            found.append((i, begin, end))
        base += size
    return found


def _numpy() -> Any:
    import numpy

    return numpy


def _room(nbytes: int) -> Any:
    return _numpy().empty(nbytes, "u1")  # which asks for huge pages where it is worth it


def _memory(array: Any) -> Any:
    from hpc.mpi.collectives import memory_of

    return memory_of(array)


def _joinable(value: Any) -> tuple[Any, ...] | None:
    """Return dtype, inner shape and length of an array that can be sent as it lies in memory; None for all else."""
    if type(value).__module__ != "numpy" or type(value).__name__ != "ndarray":
        return None
    if value.dtype.hasobject or not value.shape or not value.flags.c_contiguous:
        return None
    return value.dtype, value.shape[1:], value.shape[0]
