"""Groups of engines started by mpirun, with each MPI of the machine: ``mpirun -n 4 ipengine``, literally."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import hpc
from hpc.errors import NoCommunicator

from .by_hand import ENGINE, START_S, controller, where
from .conftest import Processes
from .mpi_flavours import FLAVOURS, OWN, Flavour, environment

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def rc(processes: Processes) -> Iterator[hpc.RemoteController]:
    """Start a controller and connect to it."""
    with controller(processes, "groups") as rc:
        yield rc


@pytest.fixture
def start(processes: Processes, rc: hpc.RemoteController, tmp_path: Path) -> Start:
    """Give a function that starts engines as on the command line."""
    place = where("groups")

    def engines(flavour: Flavour | None, n: int, *options: str, **variables: str) -> "subprocess.Popen[str]":
        command = [*ENGINE, *place, *options]
        if flavour is None:
            return processes.spawn(*command, env=environment(**variables))
        return processes.spawn(*flavour.start(n, *command), env=environment(**flavour.load(tmp_path), **variables))

    return engines


def end_of(process: "subprocess.Popen[str]") -> str:
    """Return all that a process has said, once it has ended."""
    output, _ = process.communicate(timeout=START_S)
    return output


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_four_ranks_are_four_engines(rc: hpc.RemoteController, start: Start, flavour: Flavour) -> None:
    mpirun = start(flavour, 4)
    rc.wait_for_engines(4, timeout=START_S)
    assert rc.getIDs() == [0, 1, 2, 3]
    (group,) = rc.groups
    assert (group.ids, group.size, group.root) == ([0, 1, 2, 3], 4, 0)
    assert group.mpi.startswith({"debian-mpich": "MPICH 4", "debian-openmpi": "Open MPI 4"}.get(flavour.name, ""))
    assert group.mpi.startswith(("MPICH ", "Open MPI "))

    v = rc[:]
    assert v["rank"] == [0, 1, 2, 3]
    assert v["size"] == [4] * 4
    assert v["id"] == [0, 1, 2, 3]
    v.execute(
        "import numpy as np\n"
        "from mpi4py import MPI\n"
        "total = np.empty(3)\n"
        "comm.Allreduce(np.arange(3.0) * (rank + 1), total, op=MPI.SUM)\n"
        "import hpc\n"
        "same = hpc.comm() is comm and comm == MPI.COMM_WORLD\n"
    )
    assert [total.tolist() for total in v["total"]] == [[0.0, 10.0, 20.0]] * 4
    assert v["same"] == [True] * 4
    assert v.apply(lambda: hpc.comm().allreduce(hpc.comm().rank)) == [6] * 4

    rc.shutdown()
    mpirun.wait(START_S)
    assert mpirun.returncode == 0, "all ranks have finalised MPI"


@pytest.mark.needs_mpi
def test_several_groups_join_one_controller(rc: hpc.RemoteController, start: Start) -> None:
    start(OWN, 3)
    start(OWN, 2)
    start(None, 1)
    rc.wait_for_engines(6, timeout=START_S)
    assert sorted(group.size for group in rc.groups) == [1, 2, 3]
    assert sorted(i for group in rc.groups for i in group.ids) == rc.ids == list(range(6))
    results = []
    for group in rc.groups:
        assert group.ids == list(range(group.root, group.root + group.size)), "id == base + rank"
        assert group.view["rank"] == list(range(group.size))
        if group.mpi:
            results.append((group.size, group.view.apply_async(lambda: hpc.comm().allgather(hpc.comm().rank))))
    assert len(results) == 2
    for size, result in results:
        assert result.get(START_S) == [list(range(size))] * size


@pytest.mark.needs_mpi
def test_no_mpi_leaves_mpi_untouched(rc: hpc.RemoteController, start: Start) -> None:
    start(OWN, 2, "--no-mpi")
    rc.wait_for_engines(2, timeout=START_S)
    v = rc[:]
    v.execute("import sys; found = sorted(name for name in sys.modules if name.startswith('mpi4py'))")
    assert v["found"] == [[], []]
    assert v["comm"] == [None, None]
    assert (v["rank"], v["size"]) == ([0, 0], [1, 1])
    assert len(rc.groups) == 2
    with pytest.raises(NoCommunicator):
        rc[0].apply(hpc.comm)


@pytest.mark.needs_mpi
def test_mpi_without_launcher_is_a_group_of_one(rc: hpc.RemoteController, start: Start) -> None:
    start(None, 1, "--mpi")
    rc.wait_for_engines(1, timeout=START_S)
    assert rc[0].apply(lambda: (hpc.comm().rank, hpc.comm().size)) == (0, 1)
    assert rc.groups[0].mpi


@pytest.mark.needs_mpi
def test_engine_without_launcher_leaves_mpi_untouched(rc: hpc.RemoteController, start: Start) -> None:
    start(None, 1)
    rc.wait_for_engines(1, timeout=START_S)
    assert rc[0].apply(lambda: [name for name in __import__("sys").modules if name.startswith("mpi4py")]) == []


@pytest.mark.needs_mpi
def test_singletons_are_refused_with_the_remedy(rc: hpc.RemoteController, start: Start) -> None:
    refused = start(None, 1, SLURM_STEP_ID="0", SLURM_PROCID="0", SLURM_STEP_NUM_TASKS="4")
    said = end_of(refused)
    assert refused.returncode == 1, said
    assert "srun says size 4, COMM_WORLD says size 1" in said
    assert "srun --mpi=" in said
    assert "--no-mpi" in said
    assert rc.ids == []

    start(None, 1, "--no-mpi", SLURM_STEP_ID="0", SLURM_PROCID="0", SLURM_STEP_NUM_TASKS="4")
    rc.wait_for_engines(1, timeout=START_S)


@pytest.mark.needs_mpi
def test_idle_ranks_use_no_cpu(rc: hpc.RemoteController, start: Start) -> None:
    start(OWN, 4)
    rc.wait_for_engines(4, timeout=START_S)
    v = rc[:]
    v.execute("comm.Barrier()")
    ranks = [psutil.Process(pid) for pid in v.apply(__import__("os").getpid)]

    def used_s() -> float:
        return sum(sum(rank.cpu_times()[:2]) for rank in ranks)

    before = used_s()
    time.sleep(1.0)
    assert used_s() - before <= 0.06, "ranks that poll would have used all cores for a second"
