"""More and fewer engines while a cluster runs, from Python and from the command line; clusters in asyncio."""

import asyncio
import time
from pathlib import Path

import pytest

import hpc
from hpc.errors import HpcError

from .conftest import Processes, cli, engines_of, needs_mpi, wait_until


def test_a_total_is_brought_about(processes: Processes) -> None:
    cluster = hpc.Cluster(n=2)
    with cluster as rc:
        rc[:].push({"mine": 1})
        cluster.scale(4, timeout=20)
        assert rc.ids == [0, 1, 2, 3]
        running = rc[3].apply_async(time.sleep, 1.0)
        wait_until(lambda: rc.queue_status()[3]["tasks"], "the task")
        cluster.scale(2, timeout=20)
        assert len(rc.ids) == 2
        assert 3 in rc.ids, "the idle ones leave first"
        assert rc[rc.ids[0]]["mine"] == 1, "and of these the newest"
        running.get(10)
        wait_until(lambda: len(cluster.groups) == 2, "the end of the others")
        cluster.scale(0, timeout=20)
        assert rc.ids == []
        cluster.scale(1, timeout=20)
        assert rc.ids == [4]
    processes.assert_none_left()


@needs_mpi
def test_groups_of_ranks_end_together(processes: Processes) -> None:
    cluster = hpc.Cluster(n=2, mpi=True)
    with cluster as rc:
        cluster.scale(5, timeout=20)
        assert [group.size for group in rc.groups] == [2, 3]
        with pytest.raises(HpcError, match="the totals to be had are 0, 2, 3, 5, not 4"):
            cluster.scale(4)
        cluster.scale(3, timeout=20)
        assert rc[:]["size"] == [3, 3, 3]
    processes.assert_none_left()


def test_from_the_command_line_after_logging_in_again(processes: Processes) -> None:
    cli("start", "-n", "1", "--port", "0", "--name", "heat")
    assert "has 3 engines" in cli("scale", "3", "--name", "heat").stdout
    assert len(engines_of("heat")) == 3
    cluster = hpc.Cluster.from_name("heat")
    assert [group.n for group in cluster.groups] == [1, 1, 1]
    cluster.scale(2, timeout=20)
    assert len(engines_of("heat")) == 2
    assert "between 0 and 3" in cli("scale", "--adapt", "0", "3", "--name", "heat").stdout
    assert cli("scale", "--name", "heat", check=False).returncode == 2
    cli("stop", "--name", "heat")
    processes.assert_none_left()


def test_engines_follow_the_load(processes: Processes) -> None:
    cluster = hpc.Cluster(n=1)
    with cluster as rc:
        cluster.adapt(1, 3, interval_s=0.1, idle_s=0.3)
        result = rc.load_balanced_view().map_async(time.sleep, [0.2] * 20)
        wait_until(lambda: len(rc) == 3, "more engines")
        result.get(20)
        wait_until(lambda: len(rc) == 1, "fewer engines")
        with pytest.raises(HpcError, match="minimum"):
            cluster.adapt(3, 1)
        cluster.scale(2, timeout=20)  # ends the adapting
        assert rc.ids[0] == 0
    processes.assert_none_left()


def test_a_controller_without_supervisor_says_so(processes: Processes) -> None:
    controller = processes.spawn("ipcontroller", "--port", "0", "--ip", "127.0.0.1")
    with hpc.connect(timeout=20) as rc, pytest.raises(HpcError, match="no supervisor"):
        rc.order("scale", n=2)
    controller.terminate()
    assert controller.wait(10) == 0


def test_async_with(processes: Processes) -> None:
    async def main() -> list[int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.005)

        ticking = asyncio.create_task(tick())
        async with hpc.Cluster(n=2) as rc:
            ids = rc.ids
        ticking.cancel()
        assert ticks > 5, "the loop went on meanwhile"
        return ids

    assert asyncio.run(main()) == [0, 1]
    processes.assert_none_left()


def test_a_cancelled_start_leaves_nothing(processes: Processes) -> None:
    async def main() -> None:
        start = asyncio.create_task(hpc.Cluster(n=2).start_async())
        while not processes.pids():
            await asyncio.sleep(0.001)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start

    asyncio.run(main())
    processes.assert_none_left()


@needs_mpi
def test_a_hostfile_names_the_machines(processes: Processes, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("localhost\n")
    with hpc.Cluster(n=1, mpi=True, hostfile=str(hosts)) as rc:
        assert rc[:]["size"] == [1]
    processes.assert_none_left()
