"""Engines that fail, stop or die, alone and as ranks of a group."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

import hpc
from hpc.errors import CompositeError, EngineLost, RemoteError, SerializationError
from tests.system.conftest import Processes, cli, engines_of, needs_mpi, status, wait_until

from .table import fault


@pytest.fixture
def rc(processes: Processes) -> Iterator[hpc.RemoteController]:
    """Start three engines without MPI and connect to them."""
    cli("start", "-n", "3", "--port", "0")
    controller = hpc.connect()
    yield controller
    controller.close()
    cli("stop")
    processes.assert_none_left(files=False)


@pytest.fixture
def ranks(processes: Processes) -> Iterator[hpc.RemoteController]:
    """Start a group of three ranks and connect to it."""
    cli("start", "-n", "3", "--mpi", "--port", "0", timeout_s=60)
    controller = hpc.connect()
    yield controller
    controller.close()
    cli("stop")
    processes.assert_none_left(files=False)


def busy(rc: hpc.RemoteController, engine: int) -> Any:
    """Return the result of a task that runs, and does not end."""
    result = rc[engine].apply_async(time.sleep, 600)
    wait_until(lambda: engines_of()[engine]["state"] == "busy", "the task to begin")
    return result


def goes_on(rc: hpc.RemoteController, *engines: int) -> None:
    assert rc[list(engines)].apply_sync(abs, -1) == [1] * len(engines)


@fault("a task raises", "the client gets its exception as what it is, with the engine's traceback")
def test_raises(rc: hpc.RemoteController) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        rc[1].apply_sync(lambda: 1 / 0)
    assert caught.value.engine_id == 1
    with pytest.raises(CompositeError) as several:
        rc[:].execute("1 / 0")
    assert sorted(several.value.errors) == [0, 1, 2]
    goes_on(rc, 0, 1, 2)


@needs_mpi
@fault("a task raises on one rank", "the others go on: nothing that hpc does together waits for it")
def test_raises_on_one_rank(ranks: hpc.RemoteController) -> None:
    v = ranks[:]
    with pytest.raises(CompositeError) as caught:
        v.execute("if rank == 1: raise ValueError('rank 1 says no')")
    assert list(caught.value.errors) == [1]
    v.scatter("x", list(range(30)))
    assert v.gather("x") == list(range(30))
    assert v.apply_sync(lambda: hpc.comm().allreduce(1)) == [3, 3, 3]


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT], ids=lambda s: s.name)
@fault(
    "an engine dies by a signal", "within a second its task ends as EngineLost, which names the signal; others go on"
)
def test_killed(rc: hpc.RemoteController, signum: signal.Signals) -> None:
    result = busy(rc, 1)
    killed = time.monotonic()
    os.kill(engines_of()[1]["pid"], signum)
    with pytest.raises(EngineLost) as caught:
        result.get(5)
    assert time.monotonic() - killed < 2
    assert (caught.value.engine_id, caught.value.signal) == (1, signum)
    goes_on(rc, 0, 2)


@fault("load-balanced tasks are on an engine that dies", "those that had not begun go elsewhere; each ends once")
def test_balanced_work_of_the_dead(rc: hpc.RemoteController) -> None:
    result = rc.load_balanced_view().map_async(
        lambda n: __import__("time").sleep(0.01) or n, range(300), return_exceptions=True
    )
    wait_until(lambda: result.progress > 20, "some results")
    os.kill(engines_of()[1]["pid"], signal.SIGKILL)
    values = result.get(30)
    lost = [value for value in values if isinstance(value, EngineLost)]
    assert len(lost) <= 1
    assert sum(value == n for n, value in enumerate(values)) == 300 - len(lost)


@fault(
    "an engine is stopped (SIGSTOP)", "it is not taken for dead: its work goes on when it does, others go on meanwhile"
)
def test_stopped(rc: hpc.RemoteController) -> None:
    pid = engines_of()[1]["pid"]
    os.kill(pid, signal.SIGSTOP)
    result = rc[1].apply_async(os.getpid)
    goes_on(rc, 0, 2)
    assert not result.done()
    os.kill(pid, signal.SIGCONT)
    assert result.get(10) == pid


@fault("a task calls os._exit", "it ends as EngineLost, which names the exit code")
def test_exits(rc: hpc.RemoteController) -> None:
    with pytest.raises(EngineLost, match="status 3"):
        rc[2].apply_sync(os._exit, 3)
    goes_on(rc, 0, 1)


@fault("a task calls sys.exit", "it fails as what it is; the engine goes on")
def test_sys_exit(rc: hpc.RemoteController) -> None:
    with pytest.raises(RemoteError) as caught:
        rc[2].apply_sync(sys.exit, 3)
    assert caught.value.ename == "SystemExit"
    goes_on(rc, 0, 1, 2)


def monster() -> Any:
    """Return what refuses to be pickled in the rudest way."""

    class Monster:
        def __reduce__(self) -> "Any":
            raise SystemExit("not me")

    return Monster()


def abyss() -> Any:
    """Return what is nested too deeply to be pickled."""
    nested: list[Any] = []
    for _ in range(1_000_000):
        nested = [nested]
    return nested


@fault("a result is a monster", "so deep, or so rude, that pickling breaks: the task fails; the engine goes on")
def test_monster(rc: hpc.RemoteController) -> None:
    with pytest.raises(RemoteError, match="not me"):
        rc[0].apply_sync(monster)
    with pytest.raises(SerializationError):
        rc[0].apply_sync(abyss)
    goes_on(rc, 0)


@fault("a result cannot be pickled", "the task fails with an error that names it; the engine goes on")
def test_unpicklable(rc: hpc.RemoteController) -> None:
    with pytest.raises(SerializationError):
        rc[0].apply_sync(lambda: (n for n in range(3)))
    goes_on(rc, 0)


@needs_mpi
@fault("a rank is killed", "the end of its group is reported within seconds; the controller and other groups go on")
def test_killed_rank(ranks: hpc.RemoteController) -> None:
    result = busy(ranks, 0)
    os.kill(engines_of()[1]["pid"], signal.SIGKILL)
    with pytest.raises(EngineLost):
        result.get(15)
    wait_until(lambda: not ranks.ids, "the end of the group", 15)


@needs_mpi
@fault("a rank calls MPI_Abort", "as when it is killed")
def test_mpi_abort(ranks: hpc.RemoteController) -> None:
    # MPICH's returns, and the rank goes on until mpirun has heard of it.
    result = ranks[1].apply_async(lambda: (hpc.comm().Abort(5), time.sleep(60)))
    with pytest.raises(EngineLost):
        result.get(15)
    wait_until(lambda: not ranks.ids, "the end of the group", 15)


GATHER = """
import hpc, numpy
rc = hpc.connect()
rc[:].execute("import numpy; x = numpy.ones(1 << 24)")
print("up", flush=True)
while True:
    rc[:].gather("x")
"""


@fault("a client is killed in the middle of a gather", "nothing is stuck: others use the same engines at once")
def test_client_killed(rc: hpc.RemoteController, processes: Processes) -> None:
    victim = processes.spawn(sys.executable, "-c", GATHER)
    assert victim.stdout is not None
    assert victim.stdout.readline() == "up\n"
    time.sleep(0.3)
    victim.kill()
    victim.wait(5)
    rc[:].scatter("y", list(range(10)))
    assert rc[:].gather("y") == list(range(10))


@fault("a client's connection breaks", "it connects anew by itself; what was under way comes")
def test_client_cut(rc: hpc.RemoteController) -> None:
    result = rc.load_balanced_view().map_async(lambda n: __import__("time").sleep(0.01) or n, range(200))
    wait_until(lambda: result.progress > 20, "some results")
    link = rc._link
    link.doubt(link.conn)
    assert result.get(20) == list(range(200))


@fault("the supervisor of a cluster is killed", "controller and engines end too: nothing is left behind")
def test_supervisor_killed(processes: Processes) -> None:
    cli("start", "-n", "2", "--port", "0")
    os.kill(status()["controller"]["supervisor_pid"], signal.SIGKILL)
    wait_until(lambda: not processes.pids(), "the end of controller and engines", 5.0)
