"""Processes that die: what is left, and what list and status say about it."""

import json
import os
import re
import signal
from pathlib import Path

import pytest

import hpc

from .conftest import Processes, cli, engines_of, needs_mpi, status, wait_until


def start(n: int = 2) -> "dict[str, int]":
    """Start a cluster and return the pids of its supervisor and controller."""
    cli("start", "-n", str(n), "--port", "0")
    controller = status()["controller"]
    return {"supervisor": controller["supervisor_pid"], "controller": controller["pid"]}


def test_killed_supervisor_leaves_no_orphans(processes: Processes) -> None:
    os.kill(start()["supervisor"], signal.SIGKILL)
    wait_until(lambda: not processes.pids(), "the end of controller and engines", 5.0)
    answer = status()
    assert answer["engines"] == []
    assert answer["controller"]["state"] == "gone"
    assert answer["controller"]["reason"]
    (row,) = json.loads(cli("list", "--json").stdout)
    assert row["state"] == "gone"
    assert json.loads(cli("list", "--json").stdout) == [], "what is gone is shown once"
    assert [path for path in processes.files() if not path.endswith(".log")] == []


def test_killed_controller_ends_the_cluster(processes: Processes) -> None:
    os.kill(start()["controller"], signal.SIGKILL)
    wait_until(lambda: not processes.pids(), "the end of supervisor and engines", 5.0)
    done = cli("status", check=False)
    assert done.returncode == 1
    assert "SIGKILL" in done.stderr
    listed = cli("list").stdout
    assert "gone" in listed
    assert "SIGKILL" in listed
    assert "logs" in listed, "something failed: the logs stay, and it says where"
    assert [path for path in processes.files() if not path.endswith(".log")] == []


def test_killed_engine_is_reported_and_the_others_go_on(processes: Processes) -> None:
    start(3)
    rc = hpc.connect()
    lost = engines_of()[1]
    waiting = rc[1].apply_async(__import__("time").sleep, 600)
    wait_until(lambda: engines_of()[1]["state"] == "busy", "the task to begin")
    os.kill(lost["pid"], signal.SIGKILL)
    with pytest.raises(hpc.errors.EngineLost) as caught:
        waiting.get(5)
    assert (caught.value.engine_id, caught.value.pid, caught.value.signal) == (1, lost["pid"], signal.SIGKILL)
    assert rc[[0, 2]].apply_sync(os.getpid) == [engine["pid"] for engine in engines_of()]
    assert rc.ids == [0, 2]
    rc.close()
    cli("stop")
    processes.assert_none_left()


def test_crashed_engine_leaves_its_log(processes: Processes) -> None:
    start(1)
    rc = hpc.connect()
    crash = rc[0].apply_async(os.abort)
    with pytest.raises(hpc.errors.EngineLost) as caught:
        crash.get(5)
    assert caught.value.signal == signal.SIGABRT
    rc.close()
    assert "logs stay" in cli("stop").stdout
    processes.assert_none_left(files=False)
    assert any(path.endswith("engine-0.log") for path in processes.files())


def test_stopped_engines_end_too(processes: Processes) -> None:
    start(2)
    for engine in engines_of():
        os.kill(engine["pid"], signal.SIGSTOP)
    cli("stop")
    processes.assert_none_left()


def test_stop_of_what_is_gone_removes_all_of_it(processes: Processes) -> None:
    pids = start(1)
    os.kill(pids["controller"], signal.SIGKILL)
    wait_until(lambda: not processes.pids(), "the end of the cluster", 5.0)
    assert "gone already" in cli("stop").stdout
    processes.assert_none_left()


def test_a_new_cluster_takes_the_name_of_one_that_is_gone(processes: Processes) -> None:
    os.kill(start(1)["controller"], signal.SIGKILL)
    wait_until(lambda: not processes.pids(), "the end of the cluster", 5.0)
    assert start(1)
    assert status()["controller"]["name"] == "default"
    cli("stop")
    processes.assert_none_left()


@needs_mpi
def test_killed_rank_ends_its_group_only(processes: Processes) -> None:
    cli("start", "-n", "2", "--mpi", "--port", "0")
    os.kill(engines_of()[1]["pid"], signal.SIGKILL)
    wait_until(lambda: not engines_of(), "the end of the group", 10.0)
    assert status()["controller"]["state"] == "running"
    assert cli("status").returncode == 0
    cli("stop")
    processes.assert_none_left(files=False)


@needs_mpi
def test_killed_mpirun_leaves_no_ranks(processes: Processes) -> None:
    cli("start", "-n", "2", "--mpi", "--port", "0")
    mpirun = [pid for pid, text in processes.pids().items() if re.search(r"run\S* -n 2 ", text)]
    assert len(mpirun) == 1
    os.kill(mpirun[0], signal.SIGKILL)
    cli("stop")
    processes.assert_none_left()


@needs_mpi
def test_mpi_that_fails_to_start_says_why(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mpi4py.py").write_text("raise ImportError('libmpi.so.99 is nowhere to be found')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = cli("start", "-n", "2", "--mpi", "--port", "0", check=False)
    assert done.returncode == 1
    assert "libmpi.so.99" in done.stderr
    assert "mpirun" in done.stderr
    processes.assert_none_left(files=False)
