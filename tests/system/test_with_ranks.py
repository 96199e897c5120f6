"""Tasks that several ranks run together, with each MPI of the machine."""

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hpc
from hpc.errors import CollectiveStalled, EngineLost, NoCommunicator, NoEngines, RemoteError
from hpc.security.connection import ConnectionInfo, cluster_dir

from .conftest import Processes, wait_until
from .mpi_flavours import FLAVOURS, Flavour, environment

np = pytest.importorskip("numpy")
START_S = 30.0
NAME = "ranks"


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    found: Flavour = request.param
    return found


@pytest.fixture
def rc(processes: Processes, flavour: Flavour, tmp_path: Path) -> Iterator[hpc.RemoteController]:
    """Start a controller and four engines as on the command line."""
    controller = [sys.executable, "-m", "hpc.cli.ipcontroller", "--ip", "127.0.0.1", "--port", "0", "--name", NAME]
    started = processes.spawn(*controller)
    file = cluster_dir(NAME) / "client.json"
    wait_until(lambda: file.exists() or started.poll() is not None, "the controller")
    port = ConnectionInfo.load(file).addresses[0].rpartition(":")[2]
    engine = [sys.executable, "-m", "hpc.cli.ipengine", f"--controller-port={port}", "--controller-ip=127.0.0.1"]
    processes.spawn(*flavour.start(4, *engine), env=environment(**flavour.load(tmp_path)))
    client = hpc.connect(NAME)
    client.wait_for_engines(4, timeout=START_S)
    yield client
    client.shutdown(controller=True)
    client.close()
    wait_until(lambda: not processes.pids(), f"the end of {processes.pids()}", START_S)


def where(x: int) -> tuple[int, int, int, list[int]]:
    comm = hpc.comm()
    return x, comm.rank, comm.size, comm.allgather(os.getpid())


def total(x: float) -> Any:
    comm = hpc.comm()
    mine, everything = np.full(3, float(x + comm.rank)), np.empty(3)
    comm.Allreduce(mine, everything)
    return everything


def test_a_sweep_over_pairs(rc: hpc.RemoteController) -> None:
    lv = rc.load_balanced_view()
    pairs = lv.with_ranks(2)
    assert isinstance(pairs, hpc.LoadBalancedView)
    assert repr(pairs) == "<LoadBalancedView of all engines, 2 ranks for each task>"
    assert (pairs.ranks, len(pairs), lv.ranks) == (2, 2, 0)
    pids = rc[:].apply(os.getpid)

    values = pairs.map(where, range(40))
    assert [value[:3] for value in values] == [(x, 0, 2) for x in range(40)]
    teams = Counter(tuple(sorted(pids.index(pid) for pid in value[3])) for value in values)
    assert set(teams) <= {(0, 1), (2, 3)}, "others would need a communicator more"

    assert [v.tolist() for v in pairs.imap(total, range(3))] == [[1.0] * 3, [3.0] * 3, [5.0] * 3]
    assert pairs.map_async(total, [1.0, 2.0]).get(START_S)[1].tolist() == [5.0] * 3
    assert pairs.apply_sync(where, 7)[:3] == (7, 0, 2)
    result = pairs.apply_async(where, 8)
    assert result.get(START_S)[0] == 8
    assert result.metadata["rank"] in (0, 2)
    assert pairs.map(where, []) == []
    with pairs.executor as executor:
        assert executor.submit(where, 9).result()[0] == 9

    # Sizes that overlap, and ordinary tasks in between.
    results = [lv.with_ranks(n).map_async(where, range(5)) for n in (4, 3, 1, 2)]
    small = lv.map_async(lambda x: x + 1, range(1000))
    direct = rc[:].apply_async(os.getpid)
    assert [{value[2] for value in result.get(START_S)} for result in results] == [{4}, {3}, {1}, {2}]
    assert small.get(START_S) == list(range(1, 1001))
    assert direct.get(START_S) == pids


def test_what_comes_back(rc: hpc.RemoteController, monkeypatch: pytest.MonkeyPatch) -> None:
    everyone = rc.load_balanced_view().with_ranks(3, results="all")
    assert [value[:3] for value in everyone.apply(where, 5)] == [(5, 0, 3), (5, 1, 3), (5, 2, 3)]

    large = lambda: np.full((1000, 400), hpc.comm().rank, order="F")  # noqa: E731
    arrays = everyone.apply(large)
    assert [(int(a[0, 0]), a.flags.writeable, a.flags.f_contiguous) for a in arrays] == [
        (n, True, True) for n in range(3)
    ]
    one = rc.load_balanced_view().with_ranks(2).apply_async(lambda a: a * hpc.comm().size, np.ones(500_000))
    assert one.get(START_S).sum() == 1_000_000
    assert one.metadata["route"] == "shm"

    # The names that engines have mean the team, unless somebody has bound them otherwise.
    rc[:].execute("def names(): return rank, size, comm.size")

    def names() -> Any:
        return sys.modules["__main__"].names()

    assert everyone.apply(names) == [(0, 3, 3), (1, 3, 3), (2, 3, 3)]
    monkeypatch.setattr("hpc.client.inbox.HOLD_S", 10 * START_S)
    assert rc[:].apply_async(lambda: 1).get(START_S) == [1] * 4, "nobody waits for output that there is not"
    rc[:]["size"] = "mine"
    assert everyone.apply(names) == [(0, "mine", 3), (1, "mine", 3), (2, "mine", 3)]
    assert rc[:]["rank"] == [0, 1, 2, 3]

    def talk() -> None:
        print(f"this is {hpc.comm().rank}")

    spoken = everyone.apply_async(talk)
    spoken.get(START_S)
    assert sorted(spoken.stdout.splitlines()) == ["this is 0", "this is 1", "this is 2"]


def raises_on_one(how: str) -> Any:
    comm = hpc.comm()
    if comm.rank == 1:
        raise ZeroDivisionError(f"on one, {how}")
    if how == "barrier":
        comm.barrier()
    elif how == "Allreduce":
        return total(1.0)
    elif how == "recv":
        return comm.recv(source=1)
    elif how == "duplicate":
        comm.Dup().Barrier()
    return None


def test_an_exception_on_one_rank_ends_the_task_on_all(rc: hpc.RemoteController) -> None:
    four = rc.load_balanced_view().with_ranks(4)
    for how in ("nothing", "barrier", "Allreduce", "recv", "duplicate"):
        with pytest.raises(ZeroDivisionError, match=f"on one, {how}") as caught:
            four.apply_async(raises_on_one, how).get(START_S)
        assert isinstance(caught.value, RemoteError)
        assert (caught.value.engine_id, caught.value.rank) == (1, 1)
        assert "raises_on_one" in caught.value.traceback
        assert four.apply_async(total, 1.0).get(START_S).tolist() == [10.0] * 3, (
            "the next one has a communicator that works"
        )

    mixed = four.map_async(lambda x: 1 / x + hpc.comm().allreduce(0), [1, 0, 2], return_exceptions=True)
    values = mixed.get(START_S)
    assert (values[0], values[2]) == (1.0, 0.5)
    assert isinstance(values[1], ZeroDivisionError)
    assert "Rank 3 raised, too: ZeroDivisionError" in values[1].traceback

    def unpicklable() -> Any:
        return threading.Lock() if hpc.comm().rank == 1 else 0

    with pytest.raises(RemoteError, match="pickle"):
        rc.load_balanced_view().with_ranks(2, results="all").apply_async(unpicklable).get(START_S)

    def leaves_early() -> None:
        if hpc.comm().rank:
            hpc.comm().barrier()

    with pytest.raises(CollectiveStalled, match="rank 0 has ended the task"):
        four.apply_async(leaves_early).get(START_S)


def test_what_cannot_be(rc: hpc.RemoteController) -> None:
    lv = rc.load_balanced_view()
    with pytest.raises(NoEngines, match="5 ranks needs as many engines of one MPI group, and the largest has 4"):
        lv.with_ranks(5).apply_async(where, 1).get(START_S)
    with pytest.raises(NoEngines, match="that may run it, and the largest has 1"):
        rc.load_balanced_view([2]).with_ranks(2).apply_async(where, 1).get(START_S)
    for wrong in (0, -1, True, 1.5, "2"):
        with pytest.raises(ValueError, match="positive number of ranks"):
            lv.with_ranks(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'root' or 'all'"):
        lv.with_ranks(2, results="both")


def test_an_interrupt_ends_what_waits(rc: hpc.RemoteController) -> None:
    four = rc.load_balanced_view().with_ranks(4)

    def waits_for_ever() -> None:
        if hpc.comm().rank == 0:
            hpc.comm().recv(source=3)
        hpc.comm().barrier()

    result = four.apply_async(waits_for_ever)
    wait_until(lambda: all(n["tasks"] for i, n in rc.queue_status().items() if i == 0), "the task")
    wait_until(lambda: rc[:].interrupt() or result.done(), "its end")
    with pytest.raises(KeyboardInterrupt):
        result.get(START_S)
    assert four.apply_async(total, 0.0).get(START_S).tolist() == [6.0] * 3


def test_a_rank_that_dies_takes_the_task_along(rc: hpc.RemoteController) -> None:
    four = rc.load_balanced_view().with_ranks(4)
    four.apply(where, 1)

    def dies(x: int) -> int:
        comm = hpc.comm()
        if x == 3 and comm.rank == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        comm.barrier()
        return x

    # With tasks after it the map would not be over: they wait for other engines.
    result = four.map_async(dies, range(4), chunksize=4, return_exceptions=True)
    started = time.monotonic()
    with pytest.raises(EngineLost):
        raise result.get(START_S)[3]
    assert time.monotonic() - started < START_S
    assert result.get()[:3] == [0, 1, 2]


@pytest.mark.needs_mpi
def test_without_mpi_a_task_of_one_rank_is_an_ordinary_one() -> None:
    with hpc.Cluster(n=2, name="plain") as rc:
        lv = rc.load_balanced_view()
        assert lv.with_ranks(1).map(lambda x: x * 2, range(5)) == [0, 2, 4, 6, 8]
        assert lv.with_ranks(1, "all").apply(lambda: 1) == [1]
        with pytest.raises(NoCommunicator):
            lv.with_ranks(1).apply(lambda: hpc.comm())
        with pytest.raises(NoEngines, match="the largest has 1"):
            lv.with_ranks(2).apply(lambda: 1)
