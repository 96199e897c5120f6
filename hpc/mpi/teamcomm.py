"""The communicator that tasks of several ranks get: nobody waits in it for ever for a rank that has raised.

Each blocking operation is its non-blocking counterpart and a wait that looks for news of the others, and that an
interrupt can end. In MPI itself a rank could wait for what will not come, and nothing could end that but its process.
"""

import functools
import os
import time
from collections.abc import Callable
from typing import Any, Final, Literal

from hpc.mpi.worldcomm import world_comm_class

# As for the runtime's own operations (`hpc.mpi.collectives`): first ask again and again, then less and less often.
_SPIN_S: Final = 0.0005
_LONGEST_NAP_S: Final = 0.001

# In MPI the counterpart of X is IX.
_COUNTERPARTS: Final = (
    *("Barrier", "Bcast", "Gather", "Gatherv", "Scatter", "Scatterv", "Allgather", "Allgatherv"),
    *("Alltoall", "Alltoallv", "Alltoallw", "Reduce", "Allreduce", "Reduce_scatter", "Reduce_scatter_block"),
    *("Scan", "Exscan"),
)
# These have none that libraries agree on: all ranks meet before.
_MEETINGS: Final = ("Dup", "Clone", "Split", "Split_type", "Create", "Create_cart", "Create_graph")


@functools.cache
def team_comm_class() -> Any:
    """Return `TeamComm`, a class of mpi4py's kind: mpi4py is imported by those who have it loaded anyway."""
    from mpi4py import MPI

    class TeamComm(world_comm_class()):  # type: ignore[misc]
        """The ranks that run a task together.

        Attributes
        ----------
        watch : callable
            Called again and again while an operation waits, with the seconds so far; raises what is to end the wait.
        given_up : list
            Operations that were ended so, with their memory, which MPI may still write to.
        """

        watch: Callable[[float], None] = staticmethod(lambda _waited_s: None)
        given_up: list[Any] = []  # of all communicators: duplicates of one have it too

        def _finish(self, request: Any, *memory: Any, status: Any = None) -> Any:
            """Wait for a request; return what it has received, if it is of objects."""
            try:
                return _poll(lambda: request.Test(status) or None, TeamComm.watch)
            except BaseException:
                TeamComm.given_up.append((request, memory))
                raise

        # -------------------------------------------------------- memory

        def Send(self, buf: Any, dest: int, tag: int = 0) -> None:  # noqa: N802
            self._finish(self.Isend(buf, dest, tag), buf)

        def Ssend(self, buf: Any, dest: int, tag: int = 0) -> None:  # noqa: N802
            self._finish(self.Issend(buf, dest, tag), buf)

        def Recv(  # noqa: N802
            self, buf: Any, source: int = MPI.ANY_SOURCE, tag: int = MPI.ANY_TAG, status: Any = None
        ) -> None:
            self._finish(self.Irecv(buf, source, tag), buf, status=status)

        def Sendrecv(  # noqa: N802, PLR0917 - as in mpi4py
            self,
            sendbuf: Any,
            dest: int,
            sendtag: int = 0,
            recvbuf: Any = None,
            source: int = MPI.ANY_SOURCE,
            recvtag: int = MPI.ANY_TAG,
            status: Any = None,
        ) -> None:
            incoming = self.Irecv(recvbuf, source, recvtag)
            self._finish(self.Isend(sendbuf, dest, sendtag), sendbuf, incoming, recvbuf)
            self._finish(incoming, recvbuf, status=status)

        def Probe(  # noqa: N802
            self, source: int = MPI.ANY_SOURCE, tag: int = MPI.ANY_TAG, status: Any = None
        ) -> Literal[True]:
            _poll(lambda: self.Iprobe(source, tag, status) or None, TeamComm.watch)
            return True

        # -------------------------------------------------------- objects

        def barrier(self) -> None:
            self.Barrier()

        def send(self, obj: Any, dest: int, tag: int = 0) -> None:
            data = MPI.pickle.dumps(obj)
            self.Send([data, MPI.BYTE], dest, tag)

        def ssend(self, obj: Any, dest: int, tag: int = 0) -> None:
            data = MPI.pickle.dumps(obj)
            self.Ssend([data, MPI.BYTE], dest, tag)

        def recv(
            self, buf: Any = None, source: int = MPI.ANY_SOURCE, tag: int = MPI.ANY_TAG, status: Any = None
        ) -> Any:
            message = _poll(lambda: self.improbe(source, tag, status), TeamComm.watch)
            return message.recv(status)

        def sendrecv(  # noqa: PLR0917 - as in mpi4py
            self,
            sendobj: Any,
            dest: int,
            sendtag: int = 0,
            recvbuf: Any = None,
            source: int = MPI.ANY_SOURCE,
            recvtag: int = MPI.ANY_TAG,
            status: Any = None,
        ) -> Any:
            data = MPI.pickle.dumps(sendobj)
            outgoing = self.Isend([data, MPI.BYTE], dest, sendtag)
            try:
                received = self.recv(recvbuf, source, recvtag, status)
            finally:
                self._finish(outgoing, data)
            return received

        def probe(self, source: int = MPI.ANY_SOURCE, tag: int = MPI.ANY_TAG, status: Any = None) -> Literal[True]:
            return self.Probe(source, tag, status)

        def bcast(self, obj: Any, root: int = 0) -> Any:
            data = MPI.pickle.dumps(obj) if self.rank == root else b""
            size = _longs([len(data)])
            self.Bcast(size, root)
            whole = data if self.rank == root else bytearray(size[0])
            self.Bcast([whole, MPI.BYTE], root)
            return obj if self.rank == root else MPI.pickle.loads(whole)

        def gather(self, sendobj: Any, root: int = 0) -> list[Any] | None:
            data = MPI.pickle.dumps(sendobj)
            sizes = _longs([0] * self.size) if self.rank == root else None
            self.Gather(_longs([len(data)]), sizes, root)
            if sizes is None:
                self.Gatherv([data, MPI.BYTE], None, root)
                return None
            whole = bytearray(sum(sizes))
            self.Gatherv([data, MPI.BYTE], [whole, (list(sizes), None), MPI.BYTE], root)
            return _loads(whole, sizes)

        def allgather(self, sendobj: Any) -> list[Any]:
            data, sizes = MPI.pickle.dumps(sendobj), _longs([0] * self.size)
            self.Allgather(_longs([len(data)]), sizes)
            whole = bytearray(sum(sizes))
            self.Allgatherv([data, MPI.BYTE], [whole, (list(sizes), None), MPI.BYTE])
            return _loads(whole, sizes)

        def scatter(self, sendobj: Any = None, root: int = 0) -> Any:
            mine, pieces = _longs([0]), None
            if self.rank == root:
                pieces = _dumps(sendobj, self.size)
            self.Scatter(None if pieces is None else _longs(list(map(len, pieces))), mine, root)
            data = bytearray(mine[0])
            outgoing = None
            if pieces is not None:
                outgoing = [b"".join(pieces), (list(map(len, pieces)), None), MPI.BYTE]
            self.Scatterv(outgoing, [data, MPI.BYTE], root)
            return MPI.pickle.loads(data)

        def alltoall(self, sendobj: Any) -> list[Any]:
            pieces, sizes = _dumps(sendobj, self.size), _longs([0] * self.size)
            lengths = list(map(len, pieces))
            self.Alltoall(_longs(lengths), sizes)
            whole = bytearray(sum(sizes))
            self.Alltoallv([b"".join(pieces), (lengths, None), MPI.BYTE], [whole, (list(sizes), None), MPI.BYTE])
            return _loads(whole, sizes)

        def reduce(self, sendobj: Any, op: Any = MPI.SUM, root: int = 0) -> Any:
            values = self.gather(sendobj, root)
            return None if values is None else functools.reduce(op, values)

        def allreduce(self, sendobj: Any, op: Any = MPI.SUM) -> Any:
            return self.bcast(self.reduce(sendobj, op))

        def scan(self, sendobj: Any, op: Any = MPI.SUM) -> Any:
            return functools.reduce(op, self.allgather(sendobj)[: self.rank + 1])

        def exscan(self, sendobj: Any, op: Any = MPI.SUM) -> Any:
            before = self.allgather(sendobj)[: self.rank]
            return functools.reduce(op, before) if before else None

    def polite(name: str) -> Any:
        start = getattr(MPI.Intracomm, f"I{name.lower()}")

        def call(self: Any, *args: Any, **kwargs: Any) -> None:
            self._finish(start(self, *args, **kwargs), args, kwargs)

        return functools.wraps(getattr(MPI.Intracomm, name))(call)

    def after_meeting(name: str) -> Any:
        function = getattr(MPI.Intracomm, name)

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            self.Barrier()
            return function(self, *args, **kwargs)

        return functools.wraps(function)(call)

    for name in _COUNTERPARTS:
        setattr(TeamComm, name, polite(name))
    for name in _MEETINGS:
        setattr(TeamComm, name, after_meeting(name))
    TeamComm.__qualname__ = "TeamComm"
    return TeamComm


def _poll(test: Callable[[], Any], watch: Callable[[float], None]) -> Any:
    """Call ``test`` until it returns something else than None."""
    started, nap_s = time.monotonic(), 0.00001
    while (found := test()) is None:
        waited_s = time.monotonic() - started
        if waited_s < _SPIN_S:
            os.sched_yield()
            continue
        watch(waited_s)
        time.sleep(nap_s)
        nap_s = min(nap_s * 1.2, _LONGEST_NAP_S)
    return found


def _longs(numbers: list[int]) -> Any:
    from array import array

    return array("q", numbers)


def _dumps(objects: Any, n: int) -> list[bytes]:
    from mpi4py import MPI

    pieces = [MPI.pickle.dumps(item) for item in objects]
    if len(pieces) != n:
        raise ValueError(f"expecting {n} items, got {len(pieces)}")
    return pieces


def _loads(whole: bytearray, sizes: Any) -> list[Any]:
    from mpi4py import MPI

    values, at, view = [], 0, memoryview(whole)
    for size in sizes:
        values.append(MPI.pickle.loads(view[at : at + size]))
        at += size
    return values
