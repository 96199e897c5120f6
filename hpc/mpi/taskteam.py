"""Ranks that run tasks together: what each task gets, and how all of them learn what became of it."""

import time
from array import array
from typing import Any, Final

from hpc.errors import CollectiveStalled, ranges
from hpc.mpi.collectives import Team
from hpc.mpi.teamcomm import team_comm_class
from hpc.wire import objects

# What ranks agree on after a task, bit by bit: that something holds for any of them. Other bits are the caller's.
FAILED: Final = 1
_BROKEN: Final = 1 << 62

# Who has ended says so to the others if these need so much longer. Who waits while others have ended gives up later
# than that: what it waits for may still be under way.
LATE_S: Final = 2.0
STALLED_S: Final = 5.0

_NOTE: Final = 8
_ENDED: Final = 0


class RaisedElsewhere(CollectiveStalled):
    """What ends a wait for a rank that has raised: never the first cause."""


class TaskTeam:
    """One rank's part in a team, over many tasks.

    Parameters
    ----------
    team : Team
        For the runtime's own messages; the tasks get duplicates of its communicator.

    Attributes
    ----------
    comm : mpi4py.MPI.Intracomm or None
        What the running task communicates by. It is kept for the next one unless a task has failed.
    """

    def __init__(self, team: Team) -> None:
        self.comm: Any = None
        self._team = team
        self._serial = 0
        self._heard: dict[int, int] = {}
        self._out: list[tuple[Any, Any]] = []
        self._n_given_up = 0

    def __repr__(self) -> str:
        return f"<TaskTeam {self._team!r}, {self._serial} tasks so far>"

    @property
    def rank(self) -> int:
        """The number of this rank in the team."""
        return self._team.rank

    @property
    def is_root(self) -> bool:
        """Whether this rank says what is begun."""
        return self._team.rank == 0

    # ------------------------------------------------------------ before a task

    def share(self, number: int) -> int:
        """Return the number that the root gives."""
        from mpi4py import MPI

        memory = array("q", [number])
        self._wait(self._team.comm.Ibcast([memory, MPI.INT64_T], 0), memory)
        return memory[0]

    def begin(self) -> None:
        """Make ready for the next task; all ranks have been told of it."""
        self._serial += 1
        self._heard.clear()
        self._out = [(request, memory) for request, memory in self._out if not request.Test()]
        kind = team_comm_class()
        if self.comm is None:
            self.comm = kind(self._team.comm.Dup())
            self.comm.Set_name(f"hpc.team of ranks {', '.join(map(str, self._team.ranks))}")
        self._n_given_up = len(kind.given_up)
        kind.watch = staticmethod(self._watch)

    # ------------------------------------------------------------ while it runs

    def _watch(self, waited_s: float) -> None:
        """Raise if a rank that this one waits for has raised, or ended long ago."""
        self._listen()
        raised = [rank for rank, word in self._heard.items() if word != _ENDED]
        if raised:
            raise RaisedElsewhere(f"rank {raised[0]} of the team has raised an exception while this one waited for it")
        if self._heard and waited_s > STALLED_S:
            ended = ranges(sorted(self._heard))
            raise CollectiveStalled(f"this rank of the team waits for others, but rank {ended} has ended the task")

    def _listen(self) -> None:
        from mpi4py import MPI

        comm, status = self._team.comm, MPI.Status()
        while comm.Iprobe(MPI.ANY_SOURCE, _NOTE, status):
            memory = array("q", [0, 0])
            comm.Recv([memory, MPI.INT64_T], status.source, _NOTE)
            if memory[0] == self._serial:  # others are of tasks that are over
                self._heard[status.source] = memory[1]

    def _say(self, word: int) -> None:
        """Tell the others, whatever they are doing."""
        from mpi4py import MPI

        memory = array("q", [self._serial, word])
        for rank in range(self._team.size):
            if rank != self._team.rank:
                self._out.append((self._team.comm.Isend([memory, MPI.INT64_T], rank, _NOTE), memory))

    # ------------------------------------------------------------ after it

    def agree(self, bits: int) -> int:
        """Return the bits that any rank has: nobody goes on before all have ended the task."""
        from mpi4py import MPI

        kind = team_comm_class()
        if len(kind.given_up) > self._n_given_up:
            bits |= _BROKEN
        if bits & FAILED:
            self._say(FAILED)
        memory = array("q", [bits])
        request = self._team.comm.Iallreduce(MPI.IN_PLACE, [memory, MPI.INT64_T], op=MPI.BOR)
        late_at, told = time.monotonic() + LATE_S, bool(bits & FAILED)

        def test(request: Any) -> bool:
            nonlocal told
            if request.Test():
                return True
            if not told and time.monotonic() > late_at:
                told = True
                self._say(_ENDED)
            return False

        self._team._owner.wait(test, request, memory)
        kind.watch = staticmethod(lambda _waited_s: None)
        agreed = memory[0]
        if agreed & (FAILED | _BROKEN):
            self._renew(is_broken=bool(agreed & _BROKEN))
        return agreed & ~_BROKEN

    def _renew(self, *, is_broken: bool) -> None:
        """Have the next task communicate by a new duplicate: in this one may be messages of the task that failed."""
        comm, self.comm = self.comm, None
        if not is_broken:  # else operations are still under way
            comm.Free()

    def collect(self, item: Any) -> list[Any] | None:
        """Return on the root what each rank gives; for small things."""
        items: list[Any] | None = self._team.comm.gather(item, 0)
        return items

    def gather(self, frames: list[Any]) -> list[Any] | None:
        """Return on the root the objects that the ranks have dumped to frames."""
        team = self._team
        sizes = team.exchange([memoryview(frame).nbytes for frame in frames])
        incoming = [[bytearray(nbytes) for nbytes in each] for each in sizes] if self.is_root else None
        team.gatherv(frames, incoming, 0)
        if incoming is None:
            return None
        return [objects.loads([bytes(payload), *buffers]) for payload, *buffers in incoming]

    def close(self) -> None:
        """Give up what tasks communicate by. Collective."""
        if self.comm is not None:
            self.comm.Free()
            self.comm = None

    def _wait(self, request: Any, memory: Any) -> None:
        self._team._owner.wait(lambda request: bool(request.Test()), request, memory)
