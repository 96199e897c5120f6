"""Collective operations of the runtime, for some or all ranks of a group, on memory of any kind and size.

Every operation is agreed upon before data move: a rank that cannot take part makes all of them raise, where MPI by
itself would let the others wait for ever. Ranks that are early wait without using the processor.
"""

import os
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

from hpc.errors import CollectiveStalled, HpcError
from hpc.wire import objects

# Anything with the buffer protocol, contiguous, of bytes.
Memory: TypeAlias = Any

# How many subsets of ranks keep a communicator: libraries have some 2000 of them, most of which are the user's.
MAX_TEAMS: Final = 64
_TAG: Final = 7
# A rank that waits asks again and again for so long, as others may be late by microseconds; then less and less often.
# What delays the others may need this core, above all the root's copy of what it is about to send.
_SPIN_S: Final = 0.0005
_LONGEST_NAP_S: Final = 0.001


class Collectives:
    """The teams of one rank. Everything here is for the thread that runs tasks.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        A communicator that nobody else uses.
    leaving : callable, optional
        Returns why this process is about to end, ``""`` if it is not: waiting ends then, with `CollectiveStalled`.

    Attributes
    ----------
    block_nbytes : int
        The most that one MPI call moves. Counts in MPI are C ints.
    """

    def __init__(self, comm: Any, leaving: Callable[[], str] = str) -> None:
        self.comm = comm
        self.leaving = leaving
        self.block_nbytes = 1 << 30
        self._teams: dict[tuple[int, ...], Team] = {}
        self._given_up: list[tuple[Any, Memory]] = []

    def __repr__(self) -> str:
        return f"<Collectives of rank {self.comm.rank} of {self.comm.size}, {len(self._teams)} teams>"

    @contextmanager
    def team(self, ranks: Sequence[int]) -> Iterator["Team"]:
        """Give the team of these ranks, which are numbered in this order in it. Collective for them."""
        team = self._teams.get(tuple(ranks)) or self._make(tuple(ranks))
        yield team
        # Not after an error: it may be that others did not get here.
        if not team.is_kept:
            team.comm.Free()

    def _make(self, key: tuple[int, ...]) -> "Team":
        if self.comm.rank not in key or len(set(key)) != len(key):
            raise ValueError(f"rank {self.comm.rank} cannot be of the team {list(key)}")
        if key == tuple(range(self.comm.size)):
            team = self._teams[key] = Team(self, self.comm, key)
            return team
        self._meet(key)
        everybody = self.comm.Get_group()
        some = everybody.Incl(key)
        team = Team(self, self.comm.Create_group(some, _TAG), key)
        some.Free()
        everybody.Free()
        # Whether it is kept must be agreed: who has it in store does not take part in making it again.
        if team.all(len(self._teams) < MAX_TEAMS):
            self._teams[key] = team
        else:
            team.is_kept = False
        return team

    def _meet(self, ranks: tuple[int, ...]) -> None:
        """Wait until all of them are here: making a communicator would wait with all of a processor's power."""
        from mpi4py import MPI

        comm, first, nothing = self.comm, ranks[0], bytearray(0)
        if comm.rank == first:
            there = [comm.Irecv([nothing, MPI.BYTE], rank, _TAG) for rank in ranks[1:]]
            self.wait(MPI.Request.Testall, there, nothing)
            here = [comm.Isend([nothing, MPI.BYTE], rank, _TAG) for rank in ranks[1:]]
            MPI.Request.Waitall(here)
        else:
            comm.Send([nothing, MPI.BYTE], first, _TAG)
            self.wait(MPI.Request.Test, comm.Irecv([nothing, MPI.BYTE], first, _TAG), nothing)

    def wait(self, test: Callable[[Any], bool], request: Any, memory: Memory) -> None:
        """Wait for others without using the processor for long; ``memory`` is what the request writes to."""
        started, nap_s = time.monotonic(), 0.00001
        while not test(request):
            if time.monotonic() - started < _SPIN_S:
                os.sched_yield()
                continue
            if reason := self.leaving():
                self._given_up.append((request, memory))  # requests do not hold it, and MPI may still write there
                raise CollectiveStalled(f"this rank leaves while it waits for others of its group: {reason}")
            time.sleep(nap_s)
            nap_s = min(nap_s * 1.2, _LONGEST_NAP_S)


class Team:
    """Ranks that do something together; all methods are collective. Roots and ranks are numbered within the team."""

    def __init__(self, owner: Collectives, comm: Any, ranks: tuple[int, ...]) -> None:
        self.comm = comm
        self.ranks = ranks
        self.rank: int = comm.rank
        self.size: int = comm.size
        self.is_kept = True
        self._owner = owner

    def __repr__(self) -> str:
        return f"<Team of ranks {list(self.ranks)}, this is number {self.rank}>"

    # ------------------------------------------------------------ agreement

    def all(self, ready: bool) -> bool:
        """Say whether all ranks are ready."""
        from mpi4py import MPI

        flag = array("i", [ready])
        request = self.comm.Iallreduce(MPI.IN_PLACE, [flag, MPI.INT], op=MPI.LAND)
        self._owner.wait(MPI.Request.Test, request, flag)
        return bool(flag[0])

    def agree(self, problem: BaseException | None = None) -> None:
        """Go on together or not at all: raises, on all ranks, if one has a problem; on that rank, the problem."""
        if self.all(problem is None):
            return
        texts = self.comm.allgather(None if problem is None else f"{type(problem).__name__}: {problem}")
        if problem is not None:
            raise problem
        said = [f"rank {self.ranks[i]}: {text}" for i, text in enumerate(texts) if text is not None]
        more = f" (and {len(said) - 3} others)" if len(said) > 3 else ""
        raise HpcError(f"not done, because it cannot be done on all ranks. {'; '.join(said[:3])}{more}")

    def exchange(self, item: Any) -> list[Any]:
        """Return what each rank gave; for small things."""
        items: list[Any] = self.comm.allgather(item)
        return items

    # ------------------------------------------------------------ memory

    def bcast(self, memory: Iterable[Memory], root: int) -> None:
        """Fill pieces of memory with what the root has in its own, which are of the same sizes."""
        from mpi4py import MPI

        for piece in memory:
            for block in self._blocks(piece):
                self.comm.Bcast([block, MPI.BYTE], root)

    def scatterv(self, outgoing: Sequence[Sequence[Memory]] | None, incoming: Sequence[Memory], root: int) -> None:
        """Fill ``incoming`` with what the root has for this rank, ``outgoing[rank]``: pieces of the same sizes."""
        if outgoing is None:
            self._wait_all(self._start(False, incoming, root))
            return
        requests = [r for rank, pieces in enumerate(outgoing) if rank != root for r in self._start(True, pieces, rank)]
        for source, target in zip(outgoing[root], incoming, strict=True):
            _copy(source, target)
        self._wait_all(requests)

    def gatherv(self, outgoing: Sequence[Memory], incoming: Sequence[Sequence[Memory]] | None, root: int) -> None:
        """Fill ``incoming[rank]`` on the root with what that rank has: pieces of the same sizes."""
        if incoming is None:
            self._wait_all(self._start(True, outgoing, root))
            return
        requests = [r for rank, pieces in enumerate(incoming) if rank != root for r in self._start(False, pieces, rank)]
        for source, target in zip(outgoing, incoming[root], strict=True):
            _copy(source, target)
        self._wait_all(requests)

    def send(self, frames: Sequence[Memory], to: int) -> None:
        """Send frames to one rank, which calls `receive`."""
        self.comm.send([memoryview(frame).nbytes for frame in frames], to, _TAG)
        self._wait_all(self._start(True, frames, to))

    def receive(self, source: int) -> list[Memory]:
        """Return the frames that a rank sends."""
        frames = [bytearray(nbytes) for nbytes in self.comm.recv(source=source, tag=_TAG)]
        self._wait_all(self._start(False, frames, source))
        return frames

    def _start(self, out: bool, pieces: Iterable[Memory], peer: int) -> list[Any]:
        from mpi4py import MPI

        call = self.comm.Isend if out else self.comm.Irecv
        return [call([block, MPI.BYTE], peer, _TAG) for piece in pieces for block in self._blocks(piece)]

    def _wait_all(self, requests: list[Any]) -> None:
        from mpi4py import MPI

        MPI.Request.Waitall(requests)

    def _blocks(self, piece: Memory) -> Iterable[memoryview]:
        view = memoryview(piece)
        n = self._owner.block_nbytes
        if view.nbytes <= n:
            return [view] if view.nbytes else []
        return [view[start : start + n] for start in range(0, view.nbytes, n)]

    # ------------------------------------------------------------ reduction

    def reduce(self, mine: Any, ufunc: Any, root: int) -> Any:
        """Return on the root the arrays of all ranks combined by a numpy function of two arguments; None elsewhere.

        Parameters
        ----------
        mine : numpy.ndarray
            Contiguous, of the same dtype and shape on all ranks, without objects.
        ufunc : numpy.ufunc
            Associative and commutative, with a result of the same dtype, and known to take this one: what it raises
            here ends the group.
        """
        import numpy as np
        from mpi4py import MPI

        total = np.empty_like(mine) if self.rank == root else None
        if not mine.nbytes:
            return total
        # MPI calls back with parts of the arrays. So dtypes that MPI does not know are combined too, and those that it
        # knows as numpy does it: NaN is the largest number, for instance.
        dtype, flat = mine.dtype, mine.reshape(-1, order="A")

        def combine(left: Any, right: Any, _datatype: Any) -> None:
            out = np.frombuffer(right, np.uint8).view(dtype)
            with np.errstate(all="ignore"):  # an exception in here would end the group
                ufunc(np.frombuffer(left, np.uint8).view(dtype), out, out=out)

        datatype = MPI.BYTE.Create_contiguous(dtype.itemsize).Commit()
        op = MPI.Op.Create(combine, commute=True)
        try:
            into = None if total is None else memory_of(total)
            step = max(1, self._owner.block_nbytes // dtype.itemsize)
            source = memory_of(flat)
            for start in range(0, flat.size, step):
                n = min(step, flat.size - start)
                here = slice(start * dtype.itemsize, (start + n) * dtype.itemsize)
                receive = None if into is None else [into[here], n, datatype]
                self.comm.Reduce([source[here], n, datatype], receive, op=op, root=root)
        finally:
            op.Free()
            datatype.Free()
        return total

    def reduce_objects(self, value: Any, combine: Callable[[Any, Any], Any], root: int) -> Any:
        """Return on the root ``combine`` of all values, in the order of the ranks; None elsewhere.

        ``combine`` must be associative. What it raises is raised where it happened, and on the root.
        """
        problem: BaseException | None = None
        distance = 1
        # Rank r has combined [r, r + distance); each sends once, whatever happened, so that nobody waits for ever.
        while distance < self.size:
            if self.rank % (2 * distance):
                break
            if self.rank + distance < self.size:
                value, problem = self._take_in(value, problem, combine, self.rank + distance)
            distance *= 2
        if self.rank:
            self.send(self._packed(value, problem), self.rank - distance)
        if root:
            if self.rank == 0:
                self.send(self._packed(value, problem), root)
            elif self.rank == root:
                total, failure = self._unpacked(self.receive(0))
                value, problem = total, problem or failure
        if problem is not None and (self.rank == root or not isinstance(problem, _Elsewhere)):
            raise problem
        return value if self.rank == root else None

    def _take_in(
        self, value: Any, problem: BaseException | None, combine: Callable[[Any, Any], Any], source: int
    ) -> tuple[Any, BaseException | None]:
        other, failure = self._unpacked(self.receive(source))
        if problem is not None or failure is not None:
            return None, problem or failure
        try:
            return combine(value, other), None
        except Exception as error:
            return None, error

    def _packed(self, value: Any, problem: BaseException | None) -> list[Memory]:
        if problem is None:
            try:
                return [b"\1", *objects.dumps(value)]
            except Exception as error:
                problem = error
        known = isinstance(problem, _Elsewhere)
        text = str(problem) if known else f"on rank {self.ranks[self.rank]}: {type(problem).__name__}: {problem}"
        return [b"\0", text.encode()]

    def _unpacked(self, frames: list[Memory]) -> tuple[Any, BaseException | None]:
        if frames[0] == b"\0":
            return None, _Elsewhere(frames[1].decode())
        try:
            return objects.loads([bytes(frames[1]), *frames[2:]]), None
        except Exception as error:
            return None, error


class _Elsewhere(HpcError):  # noqa: N818 - never seen by that name
    """What another rank raised."""


_Elsewhere.__name__ = "HpcError"


def memory_of(array: Any) -> Any:
    """Return the memory of a contiguous array, in whatever order, as one of bytes; for dtypes without buffers too."""
    import numpy as np

    flat = array.reshape(-1, order="A")
    return flat.view(np.uint8) if flat.dtype.itemsize else np.empty(0, np.uint8)


def _copy(source: Memory, target: Memory) -> None:
    import numpy as np

    into, what = np.frombuffer(target, np.uint8), np.frombuffer(source, np.uint8)
    if into.size and into.ctypes.data != what.ctypes.data:
        into[:] = what
