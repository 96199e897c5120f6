"""What tasks of several ranks communicate by does what mpi4py's own does, and no wait in it is for ever."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI
from ranks import EVERYBODY, LAST, RANK, SIZE

from hpc.errors import CollectiveStalled
from hpc.mpi import taskteam
from hpc.mpi.collectives import Collectives
from hpc.mpi.taskteam import FAILED, RaisedElsewhere, TaskTeam

pytestmark = pytest.mark.mpi


@pytest.fixture
def team(collectives: Collectives) -> Iterator[TaskTeam]:
    with collectives.team(EVERYBODY) as ranks:
        made = TaskTeam(ranks)
        made.begin()
        yield made
        made.agree(0)
        made.close()


NEXT, BEFORE = (RANK + 1) % SIZE, (RANK - 1) % SIZE
COUNTS = [rank + 1 for rank in range(SIZE)]


def _recv(comm: Any) -> Any:
    request = comm.isend({"from": RANK}, NEXT, tag=4)
    status = MPI.Status()
    got = comm.recv(source=BEFORE, tag=4, status=status)
    request.wait()
    return got, status.source, status.tag


def _ring(comm: Any) -> Any:
    out, into = np.full(3, float(RANK)), np.empty(3)
    comm.Sendrecv(out, NEXT, 2, into, BEFORE, 2)
    return into


def _blocking(comm: Any) -> Any:
    into = np.empty(2)
    status = MPI.Status()
    if SIZE == 1:
        return None
    if RANK == 0:
        for rank in range(1, SIZE):
            comm.Probe(rank, 3, status)
            comm.Recv(into, rank, 3, status)
            comm.ssend(status.source, rank, 9)
        return into
    (comm.Send if RANK % 2 else comm.Ssend)(np.full(2, 1.0 * RANK), 0, 3)
    return comm.recv(source=0, tag=9)


def _into(name: str, out: Any, *shape: int) -> Callable[[Any], Any]:
    def call(comm: Any) -> Any:
        into = np.zeros(shape)
        getattr(comm, name)(out, into)
        return into

    return call


def _gatherv(comm: Any) -> Any:
    into = np.zeros(sum(COUNTS)) if RANK == LAST else None
    comm.Gatherv(np.full(RANK + 1, 1.0 * RANK), None if into is None else [into, COUNTS], LAST)
    return into


MINE = np.arange(3.0) + RANK
OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "barrier": lambda comm: comm.barrier(),
    "bcast": lambda comm: comm.bcast({"root": RANK}, LAST),
    "gather": lambda comm: comm.gather("x" * RANK, LAST),
    "allgather": lambda comm: comm.allgather(list(range(RANK))),
    "scatter": lambda comm: comm.scatter([{n: "y" * n} for n in range(SIZE)] if RANK == LAST else None, LAST),
    "alltoall": lambda comm: comm.alltoall([(RANK, n) for n in range(SIZE)]),
    "reduce": lambda comm: comm.reduce([RANK], root=LAST),
    "reduce max": lambda comm: comm.reduce(-RANK, MPI.MAX, 0),
    "allreduce": lambda comm: comm.allreduce(RANK + 0.5),
    "allreduce maxloc": lambda comm: comm.allreduce((RANK % 2, RANK), op=MPI.MAXLOC),
    "scan": lambda comm: comm.scan([RANK]),
    "exscan": lambda comm: comm.exscan(RANK),
    "recv": _recv,
    "sendrecv": lambda comm: comm.sendrecv(RANK, NEXT, 1, None, BEFORE, 1),
    "Sendrecv": _ring,
    "blocking": _blocking,
    "Allreduce": _into("Allreduce", MINE, 3),
    "Allgather": _into("Allgather", MINE, SIZE, 3),
    "Alltoall": _into("Alltoall", np.arange(1.0 * SIZE) + RANK, SIZE),
    "Scan": _into("Scan", MINE, 3),
    "Reduce": _into("Reduce", MINE, 3),
    "Gatherv": _gatherv,
    "Split": lambda comm: comm.Split(RANK % 2, -RANK).allgather(RANK),
    "Dup": lambda comm: comm.Dup().allreduce(RANK),
    "Get_size": lambda comm: (comm.size, comm.rank, MPI.Comm.Compare(comm, comm)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_it_does_what_mpi4py_does(team: TaskTeam, comm: Any, name: str) -> None:
    operation = OPERATIONS[name]
    expected = operation(comm)
    assert isinstance(team.comm, MPI.Intracomm)
    for _ in range(2):
        assert repr(operation(team.comm)) == repr(expected)


@pytest.mark.parametrize("wait", ["barrier", "recv", "Allreduce", "Split"])
def test_waiting_ends_when_another_rank_raises(team: TaskTeam, wait: str) -> None:
    if RANK == LAST:
        time.sleep(0.05)
    elif wait == "recv":
        with pytest.raises(RaisedElsewhere, match=f"rank {LAST} of the team has raised"):
            team.comm.recv(source=LAST, tag=77)
    else:
        with pytest.raises(RaisedElsewhere, match=f"rank {LAST} of the team has raised"):
            OPERATIONS[wait](team.comm)
    assert team.agree(FAILED if RANK == LAST else 0) == FAILED
    team.begin()
    assert team.comm.allreduce(1) == SIZE, "the next task has a communicator that works"
    assert team.agree(4 << RANK) == sum(4 << rank for rank in EVERYBODY)


@pytest.mark.mpi(min_size=2)
def test_waiting_ends_some_time_after_others_have_ended(team: TaskTeam, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taskteam, "LATE_S", 0.05)
    monkeypatch.setattr(taskteam, "STALLED_S", 0.2)
    if RANK:
        with pytest.raises(CollectiveStalled, match="rank 0 has ended the task"):
            team.comm.barrier()
    team.agree(0)
    team.begin()
    assert team.comm.allreduce(1) == SIZE


def test_the_root_gives_numbers_and_gets_what_the_others_have(team: TaskTeam) -> None:
    assert [team.share(n if team.is_root else -5) for n in (3, 0, -1)] == [3, 0, -1]
    assert team.collect(RANK) == (EVERYBODY if team.is_root else None)
    values = team.gather([b"\x80\x05K" + bytes([RANK]) + b"."])
    assert values == (EVERYBODY if team.is_root else None)
