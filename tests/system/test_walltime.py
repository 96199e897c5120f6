"""Allocations that end under the work: what is done of it, where the rest goes, and what clients hear."""

import collections
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import hpc
from hpc.errors import EngineLost, NoEngines

from .by_hand import ENGINE, START_S, controller, where
from .conftest import Processes, wait_until
from .mpi_flavours import FLAVOURS, OWN, Flavour, environment

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def rc(processes: Processes) -> Iterator[hpc.RemoteController]:
    """Start a controller and connect to it."""
    with controller(processes, "ending") as rc:
        yield rc


@pytest.fixture
def start(processes: Processes, rc: hpc.RemoteController, tmp_path: Path) -> Start:
    """Give a function that starts engines, whose allocation ends in ``left_s``."""
    place = where("ending")

    def engines(left_s: float = 0.0, notice_s: float = 1.0, flavour: Flavour | None = None) -> "subprocess.Popen[str]":
        variables = {"HPC_NOTICE_S": str(notice_s)}
        if left_s:
            variables["HPC_WALLTIME_END"] = str(time.time() + left_s)
        if flavour is None:
            return processes.spawn(*ENGINE, *place, env=environment(**variables))
        command = flavour.start(2, *ENGINE, *place)
        return processes.spawn(*command, env=environment(**flavour.load(tmp_path), **variables))

    return engines


def test_a_map_loses_nothing_when_engines_go(rc: hpc.RemoteController, start: Start, tmp_path: Path) -> None:
    """Each task runs once, on the engines that end or on the one that does not; nothing counts as a crash."""
    ending = [start(), start()]
    rc.wait_for_engines(2, timeout=START_S)
    log = tmp_path / "log"

    def work(i: int) -> int:
        time.sleep(0.005)
        with open(log, "a") as file:
            file.write(f"{i}\n")
        return i * i

    rc[:].execute(f"import hpc, time; hpc.on_walltime(lambda: open({str(tmp_path)!r} + f'/saved{{id}}', 'w').close())")
    result = rc.load_balanced_view().map_async(work, range(600))
    wait_until(lambda: log.exists() and log.stat().st_size > 200, "some work to be done")
    start()
    rc.wait_for_engines(3, timeout=START_S)
    for engine in ending:
        engine.send_signal(signal.SIGUSR1)  # as the job script's notice does
    assert [engine.wait(START_S) for engine in ending] == [0, 0]
    assert result.get(START_S) == [i * i for i in range(600)]
    counts = collections.Counter(map(int, log.read_text().split()))
    assert counts == dict.fromkeys(range(600), 1), "each task ran once"
    wait_until(lambda: len(rc.ids) == 1, "the news")
    assert rc.lost == [], "nobody calls this a crash"
    assert sorted(path.name for path in tmp_path.glob("saved*")) == ["saved0", "saved1"]


def test_an_engine_leaves_by_its_own_clock(rc: hpc.RemoteController, start: Start) -> None:
    engine = start(left_s=7.0, notice_s=4.0)
    rc.wait_for_engines(1, timeout=START_S)
    (row,) = rc.status()["engines"]
    assert 0 < row["deadline"] - time.time() < 7
    view = rc[0]
    begun = view.apply_async(time.sleep, 60)  # longer than there is time
    with pytest.raises(EngineLost, match="left at the end of its allocation") as caught:
        begun.get(START_S)
    assert caught.value.reason == "walltime"
    assert engine.wait(START_S) == 0
    with pytest.raises(EngineLost, match="left at the end of its allocation"):
        view.apply(os.getpid)


def test_work_that_takes_longer_than_anyone_has_waits_for_others(rc: hpc.RemoteController, start: Start) -> None:
    start(left_s=1000, notice_s=10)
    rc.wait_for_engines(1, timeout=START_S)
    lv = rc.load_balanced_view(expected_s=3600)
    long = lv.apply_async(os.getpid)
    short = rc.load_balanced_view(expected_s=1).apply_async(os.getpid)
    assert short.get(START_S) == rc[0].apply(os.getpid)
    ((waits),) = rc.queue_status()["short_of_time"]
    assert waits["tasks"] == 1
    assert waits["longest_s"] < 1000 < 3600 <= waits["expected_s"]
    with pytest.raises(NoEngines, match="will be there for the"):
        rc.load_balanced_view([0], expected_s=3600).apply(os.getpid)
    start()
    assert long.get(START_S) == rc.wait_for_engines(2)[1].apply(os.getpid)
    assert rc.queue_status()["short_of_time"] == []


@pytest.mark.needs_mpi
def test_what_rank_0_knows_of_the_end_all_ranks_know(
    rc: hpc.RemoteController, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An mpirun may start ranks on other hosts without the variables of the job script."""
    forgetful = tmp_path / "forgetful"
    forgetful.write_text(
        '#!/bin/sh\n[ "${PMI_RANK:-$OMPI_COMM_WORLD_RANK}" = 0 ] || unset HPC_WALLTIME_END HPC_NOTICE_S\nexec "$@"\n'
    )
    forgetful.chmod(0o755)
    monkeypatch.setattr(sys.modules[__name__], "ENGINE", [str(forgetful), *ENGINE])
    start(left_s=7200, notice_s=60, flavour=OWN)
    rc.wait_for_engines(2, timeout=START_S)
    first, second = (row["deadline"] for row in rc.status()["engines"])
    assert first == second
    assert 7000 < first - time.time() < 7200


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_group_saves_its_work_together(
    rc: hpc.RemoteController, start: Start, tmp_path: Path, flavour: Flavour
) -> None:
    """Hooks of all ranks run, and may communicate; mpirun passes the job script's signal on, and ends well."""
    mpirun = start(notice_s=10.0, flavour=flavour)
    rc.wait_for_engines(2, timeout=START_S)
    rc[:].execute(
        "import hpc\n"
        "@hpc.on_walltime\n"
        "def save():\n"
        "    total = comm.allreduce(rank + 1)\n"
        f"    open({str(tmp_path)!r} + f'/saved{{rank}}-{{total}}', 'w').close()\n"
    )
    mpirun.send_signal(signal.SIGUSR1)
    assert mpirun.wait(START_S) == 0, mpirun.communicate()[0]
    assert sorted(path.name for path in tmp_path.glob("saved*")) == ["saved0-3", "saved1-3"]
    wait_until(lambda: not rc.ids, "the news")
    assert rc.lost == []
