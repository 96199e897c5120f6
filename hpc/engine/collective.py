"""The engine's own operations that all ranks of a team do together (docs/decisions/0008-mpi-route.md).

They run as direct tasks of all members. The controller's one order of direct work makes them match, whatever number of
clients ask for them.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from hpc.engine.namespace import Namespace
from hpc.errors import HpcError
from hpc.wire import objects

# What a client that vanished has left half done is forgotten when it has not grown for so long.
FORGOTTEN_S: Final = 600.0


class Head(NamedTuple):
    """What one rank is to get: the pickle of a dict of names, and the sizes of its buffers."""

    payload: bytes
    sizes: list[int]


class Span(NamedTuple):
    """A piece of a transfer: its number, where it begins and ends in the stream, and whether it is the last one."""

    number: int
    start: int
    stop: int
    last: bool


@dataclass(slots=True)
class Transfer:
    """Names on their way to this rank, in pieces.

    The pieces are those of one stream of bytes: the buffers that all ranks share or, of a scatter, the buffers of one
    rank after the other. ``base`` is where this rank's begin. ``staged`` is what the client has sent to the root.
    ``failure`` says why it came to nothing.
    """

    heads: list[Head] = field(default_factory=list)
    staged: dict[int, list[Any]] = field(default_factory=dict)
    head: Head | None = None
    base: int = 0
    buffers: list[Any] = field(default_factory=list)
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

    def stage(self, token: bytes, index: int, heads: list[tuple[bytes, list[int]]], arrays: list[Any]) -> None:
        """Keep a piece of a transfer for `bcast` or `scatterv`; the root does this. Heads come with the first piece."""
        transfer = self._transfer(token)
        transfer.staged[index] = arrays
        if heads:
            transfer.heads = [Head(*head) for head in heads]

    def forget(self, token: bytes) -> None:
        """Forget a transfer that will not be completed."""
        self._transfers.pop(token, None)

    def bcast(self, token: bytes, ranks: list[int], root: int, span: tuple[int, int, int, bool]) -> None:
        """Move a piece of a transfer from the root to all; with the last one bind the names. ``span`` is a `Span`."""
        self._move(token, ranks, root, Span(*span), self._bcast_piece)

    def scatterv(self, token: bytes, ranks: list[int], root: int, span: tuple[int, int, int, bool]) -> None:
        """Move a piece of a transfer from the root to those whose it is; see `bcast`."""
        self._move(token, ranks, root, Span(*span), self._scatter_piece)

    def _move(self, token: bytes, ranks: list[int], root: int, span: Span, move: Callable[..., None]) -> None:
        with self._team(ranks) as team:
            transfer = self._transfer(token)
            try:
                problem = transfer.failure
                missing = team.rank == root and span.number not in transfer.staged
                if not problem and (missing or (span.number > 0 and transfer.head is None)):
                    problem = "the data, or a part of them, did not arrive"
                if transfer.head is not None and not problem:
                    self._copy_own(transfer, span)
                team.agree(HpcError(problem) if problem else None)
                if transfer.head is None:
                    self._prepare(transfer, team, root, span)
                move(transfer, team, root, span)
            except BaseException as error:
                # Kept until the last piece: every one of them is to say why.
                self._transfers[token] = Transfer(failure=str(error), touched=time.monotonic())
                if span.last:
                    self.forget(token)
                raise
        transfer.touched = time.monotonic()
        if span.last:
            self.forget(token)
            if transfer.head is not None:
                self._namespace.push(objects.loads([transfer.head.payload, *transfer.buffers]))

    def _prepare(self, transfer: Transfer, team: Any, root: int, span: Span) -> None:
        """Learn what comes, and make room for it."""
        problem = None
        items = None
        if team.rank == root:
            heads, base = transfer.heads, 0
            items = []
            for number in range(team.size):
                head = heads[number if len(heads) > 1 else 0]
                items.append((head, base))
                base += sum(head.sizes) if len(heads) > 1 else 0
        transfer.head, transfer.base = team.hand_out(items, root)
        try:
            transfer.buffers = [_room(size) for size in transfer.head.sizes]
            self._copy_own(transfer, span)
        except MemoryError as error:
            problem = error
        team.agree(problem)

    def _copy_own(self, transfer: Transfer, span: Span) -> None:
        """On the root, fill its own buffers with a piece of a broadcast, before the others wait for it in MPI.

        What the client sent is in memory that is shared with it: MPI may write to the root's memory too, which would be
        a page fault for every 4 KiB, and it would be kept from being used again for as long as the names live.
        """
        if len(transfer.heads) == 1:
            for target, source in zip(self._views(transfer, span), transfer.staged[span.number], strict=True):
                target[:] = source

    def _bcast_piece(self, transfer: Transfer, team: Any, root: int, span: Span) -> None:
        transfer.staged.pop(span.number, None)
        team.bcast(self._views(transfer, span), root)

    def _scatter_piece(self, transfer: Transfer, team: Any, root: int, span: Span) -> None:
        arrays = transfer.staged.pop(span.number, None)
        outgoing: list[list[Any]] | None = None
        if arrays is not None:
            outgoing, left, base = [], list(reversed(arrays)), 0
            for head in transfer.heads:
                n = len(segments(head.sizes, span.start - base, span.stop - base))
                outgoing.append([left.pop() for _ in range(n)])
                base += sum(head.sizes)
        team.scatterv(outgoing, self._views(transfer, span), root)

    def _views(self, transfer: Transfer, span: Span) -> list[Any]:
        sizes = [len(buffer) for buffer in transfer.buffers]
        found = segments(sizes, span.start - transfer.base, span.stop - transfer.base)
        return [transfer.buffers[i][begin:end] for i, begin, end in found]

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
            value, kind, problem, combine = None, None, None, None
            try:
                function = objects.loads([bytes(op[0]), *op[1:]])
                value = self._namespace.lookup(name)
                combine = operations.find(function)
                if isinstance(function, str):
                    value, kind = operations.prepare(function, value)
            except Exception as error:
                problem = error
            team.agree(problem)
            kinds = team.exchange(kind)
            if all(other is None for other in kinds) or combine is None:
                return team.reduce_objects(value, combine, root)
            if any(other != kinds[0] for other in kinds):
                raise operations.unlike(name, ranks, kinds)
            if combine.ufunc is None:
                return team.reduce_objects(value, combine, root)
            total = team.reduce(value, combine.ufunc, root)
            return total[()] if total is not None and not total.shape else total

    def _team(self, ranks: list[int]) -> Any:
        if self._collectives is None:
            raise HpcError(f"{self._namespace.identity} was started without MPI")
        return self._collectives.team(ranks)


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
