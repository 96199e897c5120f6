"""Joining a group, on as many ranks as mpirun started (scripts/test runs these at 1, 2, 3 and 5, with both MPIs)."""

import pytest
from mpi4py import MPI

from hpc.errors import MpiMismatch
from hpc.mpi.group import Membership, detect, join, leave
from hpc.mpi.launch import Launch

RANK, SIZE = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size


@pytest.fixture(scope="module")
def member() -> Membership:
    return join(detect())


@pytest.mark.mpi
def test_launcher_tells_what_mpi_tells() -> None:
    launch = detect()
    assert launch is not None, "started without a launcher"
    assert (launch.rank, launch.size) == (RANK, SIZE)
    assert launch.fits(SIZE)


@pytest.mark.mpi
def test_member_knows_its_place(member: Membership) -> None:
    assert (member.rank, member.size) == (RANK, SIZE)
    assert member.comm == MPI.COMM_WORLD
    assert member.launcher in {"hydra", "openmpi", "slurm"}
    assert member.thread_level == "multiple"
    assert member.mpi.startswith(("MPICH ", "Open MPI "))
    assert repr(member).startswith(f"<Membership rank {RANK} of {SIZE} in group {member.group[:8]}, {member.mpi}")


@pytest.mark.mpi
def test_group_has_one_name(member: Membership) -> None:
    names = MPI.COMM_WORLD.allgather(member.group)
    assert names == [member.group] * SIZE
    assert len(bytes.fromhex(member.group)) == 16


@pytest.mark.mpi
def test_each_join_makes_a_group_of_its_own(member: Membership) -> None:
    again = join(detect())
    assert again.group != member.group
    assert MPI.Comm.Compare(again.runtime_comm, member.runtime_comm) == MPI.CONGRUENT
    again.runtime_comm.Free()


@pytest.mark.mpi
def test_private_communicator_is_a_duplicate(member: Membership) -> None:
    assert MPI.Comm.Compare(member.comm, member.runtime_comm) == MPI.CONGRUENT
    assert member.runtime_comm.name == "hpc.runtime"
    assert MPI.COMM_WORLD.name == "MPI_COMM_WORLD"


@pytest.mark.mpi
def test_messages_of_user_and_runtime_never_meet(member: Membership) -> None:
    after, before = (RANK + 1) % SIZE, (RANK - 1) % SIZE
    sent = [member.comm.isend("user's", after, tag=7), member.runtime_comm.isend("runtime's", after, tag=7)]
    # In the other order than they were sent, from any source and with any tag: the communicator alone tells them apart.
    assert member.runtime_comm.recv() == "runtime's"
    assert member.comm.recv(source=before) == "user's"
    MPI.Request.waitall(sent)


@pytest.mark.mpi
def test_collectives_interleave(member: Membership) -> None:
    runtime = member.runtime_comm.Ibarrier()
    assert member.comm.allreduce(RANK) == SIZE * (SIZE - 1) // 2
    runtime.Wait()


@pytest.mark.mpi
def test_wrong_size_is_refused_by_all() -> None:
    with pytest.raises(MpiMismatch) as refused:
        join(Launch("hydra", RANK, SIZE + 3, RANK, "pmi", f"PMI_SIZE={SIZE + 3}"), environ={})
    said = f"says size {SIZE + 3}, COMM_WORLD says size {SIZE}"
    assert said in str(refused.value)
    assert ("--no-mpi" in str(refused.value)) == (RANK == 0), "rank 0 speaks for all"
    assert MPI.COMM_WORLD.allreduce(1) == SIZE, "nobody waits in a collective of join"


@pytest.mark.mpi(min_size=2)
def test_what_one_rank_refuses_all_refuse() -> None:
    launch = Launch("hydra", RANK, SIZE + (RANK == SIZE - 1))
    with pytest.raises(MpiMismatch) as refused:
        join(launch, environ={})
    assert ("1 other ranks" in str(refused.value)) == (RANK != SIZE - 1)
    assert MPI.COMM_WORLD.allreduce(1) == SIZE


@pytest.mark.mpi(min_size=2)
def test_true_launcher_vouches_when_another_left_traces() -> None:
    outer = Launch("slurm", 0, SIZE + 1)
    member = join(outer)
    assert (member.rank, member.size) == (RANK, SIZE)
    member.runtime_comm.Free()


@pytest.mark.mpi
def test_without_mpi_an_engine_is_a_group_of_one() -> None:
    alone = Membership()
    assert (alone.comm, alone.runtime_comm, alone.rank, alone.size, alone.mpi) == (None, None, 0, 1, "")
    assert repr(alone).endswith("no MPI>")
    assert len(set(MPI.COMM_WORLD.allgather(alone.group))) == SIZE
    assert leave(alone) is False
    assert not MPI.Is_finalized()
