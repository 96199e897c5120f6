"""Clusters whose engines run in jobs, by schedulers that are none; tests/live has the same with a real Slurm."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

import hpc
from hpc.cluster import submitted

from .conftest import IPCLUSTER, Processes, cli, engines_of, needs_mpi, read_until, status, wait_until
from .fake_schedulers import FakeScheduler

pytestmark = needs_mpi

SCRIPT = """
import hpc, sys
rc = hpc.connect(timeout=30)
rc.wait_for_engines(2, timeout=30)
print("sizes", rc[:]["size"], flush=True)
sys.exit(7)
"""


def test_engines_in_a_job_come_and_go_with_the_cluster(scheduler: FakeScheduler, processes: Processes) -> None:
    cluster = hpc.Cluster(n=2, launcher=scheduler.name, walltime="10m")
    with cluster as rc:
        assert rc.ids == [0, 1]
        assert (rc[:]["rank"], rc[:]["size"]) == ([0, 1], [2, 2])
        # The engines say that they are there before the queue is asked again, and tells their nodes.
        wait_until(lambda: cluster.groups[0].nodes, "the nodes of the job")
        (group,) = cluster.groups
        assert (group.state, group.job.partition(".")[0], group.n, group.nodes) == ("running", "1", 2, ("node1",))
        assert rc.groups[0].id.startswith(f"{group.label}-")
        assert "running" in cli("list").stdout
        assert "(engines): running, on node1, until" in cli("status").stdout
    processes.assert_none_left(files=False)
    assert scheduler.state("1") == "COMPLETED", "engines that go home end their job by themselves"


def test_another_total_is_another_job(scheduler: FakeScheduler, processes: Processes) -> None:
    cluster = hpc.Cluster(n=1, launcher=scheduler.name)
    with cluster as rc:
        cluster.scale(3, timeout=20)
        assert [group.size for group in rc.groups] == [1, 2]
        cluster.scale(1, timeout=20)
        assert rc.ids == [0]
        wait_until(lambda: len(cluster.groups) == 1, "the end of the second job")
    processes.assert_none_left(files=False)


def test_new_processes_are_another_job(scheduler: FakeScheduler, processes: Processes) -> None:
    with hpc.Cluster(n=2, launcher=scheduler.name, walltime="10m") as rc:
        before = rc[:].apply_sync(os.getpid)
        rc.restart_engines(timeout=40)
        assert rc.ids == [0, 1]
        assert set(rc[:].apply_sync(os.getpid)).isdisjoint(before)
    processes.assert_none_left(files=False)


def test_waiting_shows_why_and_until_when(scheduler: FakeScheduler, processes: Processes) -> None:
    scheduler.hold = True
    command = processes.spawn(*IPCLUSTER, "start", "-n", "2", "--launcher", scheduler.name, "--timeout", "20")
    seen = read_until(command, "Resources")
    assert "(2 engines): pending, Resources, expected to start at" in seen
    assert "Resources" in cli("list").stdout
    assert status()["jobs"][0]["state"] == "pending"
    scheduler.hold = False
    assert "ipcluster stop" in read_until(command, "End it")
    assert command.wait(10) == 0
    assert len(engines_of()) == 2
    cli("stop")
    processes.assert_none_left()


def test_ctrl_c_while_waiting_cancels_the_job(scheduler: FakeScheduler, processes: Processes) -> None:
    scheduler.hold = True
    command = processes.spawn(*IPCLUSTER, "start", "-n", "2", "--launcher", scheduler.name)
    read_until(command, "Resources")
    command.send_signal(signal.SIGINT)
    assert command.wait(15) == 130
    assert scheduler.state("1") == "CANCELLED"
    processes.assert_none_left()


def test_the_start_need_not_be_waited_for(scheduler: FakeScheduler, processes: Processes) -> None:
    scheduler.hold = True
    assert "waits for its engines" in cli("start", "-n", "2", "--launcher", scheduler.name, "--no-wait").stdout
    scheduler.hold = False
    with hpc.connect(timeout=10) as rc:  # as from another session
        rc.wait_for_engines(2, timeout=20)
    hpc.Cluster.from_name("default").stop()
    processes.assert_none_left()


def test_a_job_that_fails_at_once_is_the_reason(scheduler: FakeScheduler, processes: Processes) -> None:
    done = cli(
        "start", "-n", "2", "--launcher", scheduler.name, "--prologue", "echo no such module >&2; exit 3", check=False
    )
    assert done.returncode == 1
    assert "with 2 engines has ended: failed" in done.stderr
    assert "no such module" in done.stderr
    processes.assert_none_left(files=False)


def test_a_killed_supervisor_takes_the_jobs_along(scheduler: FakeScheduler, processes: Processes) -> None:
    cli("start", "-n", "2", "--launcher", scheduler.name)
    os.kill(status()["controller"]["supervisor_pid"], signal.SIGKILL)
    wait_until(lambda: scheduler.state("1") != "RUNNING", "the end of the job")
    processes.assert_none_left(files=False)


def test_another_job_follows_one_out_of_time(scheduler: FakeScheduler, processes: Processes) -> None:
    cli("start", "-n", "1", "--launcher", scheduler.name, "--keep")
    scheduler.time_is_over("1")
    wait_until(lambda: scheduler.state("2") == "RUNNING", "a second job")
    with hpc.connect() as rc:
        wait_until(lambda: 1 in rc.ids, "its engine")
    cli("stop")
    assert scheduler.calls(scheduler.programs[0]) == 2
    processes.assert_none_left(files=False)


def test_a_scheduler_that_does_not_answer_is_survived(scheduler: FakeScheduler, processes: Processes) -> None:
    cluster = hpc.Cluster(n=1, launcher=scheduler.name)
    with cluster as rc:
        before = scheduler.calls(scheduler.programs[1])
        scheduler.down(True)
        wait_until(lambda: scheduler.calls(scheduler.programs[1]) > before, "a query")
        scheduler.down(False)
        assert rc[0].apply_sync(lambda: 1) == 1
        assert cluster.groups[0].state == "running"
    processes.assert_none_left(files=False)


@pytest.mark.parametrize("where", ["first-node", "job"])
def test_a_controller_in_a_job(scheduler: FakeScheduler, processes: Processes, where: str) -> None:
    started = cli("start", "-n", "2", "--launcher", scheduler.name, "--controller", where, "--walltime", "10m")
    assert "hpc.connect('default')" in started.stdout
    assert len(status()["jobs"]) == (1 if where == "first-node" else 2)
    with hpc.connect() as rc:
        assert rc[:]["size"] == [2, 2]
    assert "ended" in cli("stop").stdout
    assert not submitted.entries()
    processes.assert_none_left()


def test_a_batch_job_has_the_exit_status_of_its_script(scheduler: FakeScheduler, processes: Processes) -> None:
    Path("analysis.py").write_text(SCRIPT)
    done = cli("submit", scheduler.name, "batch", "--ranks-per-node", "2", "--wait", "--", "analysis.py", check=False)
    assert done.returncode == 7, done.stderr
    (output,) = Path().glob("*.out")
    assert "sizes [2, 2]" in output.read_text()
    processes.assert_none_left()


def test_a_submitted_job_is_found_again_and_ended(scheduler: FakeScheduler, processes: Processes) -> None:
    scheduler.hold = True
    number = cli("submit", scheduler.name, "together", "--nodes", "1", "--name", "heat").stdout.strip()
    assert "submitted" in cli("list").stdout
    shown = status("--name", "heat")
    assert (shown["jobs"][0]["job"], shown["jobs"][0]["state"]) == (number, "queued")
    assert "(together): queued, Resources" in cli("status", "--name", "heat", check=False).stderr
    assert f"job {number} ended" in cli("stop", "--name", "heat").stdout
    assert scheduler.state(number) == "CANCELLED"
    processes.assert_none_left()


def test_engines_join_a_cluster_that_runs(scheduler: FakeScheduler, processes: Processes) -> None:
    with hpc.Cluster(n=0, name="mine", ip="*") as rc:
        cli("submit", scheduler.name, "engines", "--name", "mine", "--ranks-per-node", "2")
        rc.wait_for_engines(2, timeout=20)
        assert [group.size for group in rc.groups] == [2]
    processes.assert_none_left(files=False)


def test_jobs_that_bring_no_controller_take_no_name(scheduler: FakeScheduler, processes: Processes) -> None:
    cli("submit", scheduler.name, "engines", "--name", "late", "--ranks-per-node", "2")
    with hpc.Cluster(n=0, name="late", ip="*") as rc:  # engines wait for their controller
        rc.wait_for_engines(2, timeout=20)
        cli("submit", scheduler.name, "together", "--name", "other")
        done = cli("start", "-n", "0", "--name", "other", check=False)
        assert done.returncode == 1
        assert "ipcluster stop --name other" in done.stderr
        cli("stop", "--name", "other")
    processes.assert_none_left(files=False)


def test_wrong_jobs_are_refused_by_name(scheduler: FakeScheduler) -> None:
    for arguments, said in (
        (("-n", "2", "--walltime", "10m"), "walltime is for jobs"),
        (("--launcher", scheduler.name), "n is not given"),
        (("--launcher", scheduler.name, "-n", "2", "--walltime", "10"), "walltime: '10' is no duration"),
        (("--launcher", scheduler.name, "-n", "3", "--nodes", "2", "--ranks-per-node", "2"), "n is 3, but 2 nodes"),
        (("--launcher", scheduler.name, "-n", "1", "--keep", "--controller", "job"), "--keep needs"),
        (("-n", "1", "--controller", "job"), "launchers that are schedulers"),
        (("-n", "1", "--hostfile", "/no/such"), "hostfile"),
    ):
        done = cli("start", *arguments, check=False)
        assert done.returncode == 2, (arguments, done.stderr)
        assert said in done.stderr
    with pytest.raises(ValueError, match="no such field"):
        hpc.Cluster(n=1, launcher=scheduler.name, wall_time="1:00:00")


def test_a_python_of_the_person_runs_the_engines(scheduler: FakeScheduler, processes: Processes) -> None:
    with hpc.Cluster(n=1, launcher=scheduler.name) as rc:
        assert rc[0].apply_sync(lambda: __import__("sys").executable) == sys.executable
    processes.assert_none_left(files=False)


def test_a_controller_in_a_job_from_python(scheduler: FakeScheduler, processes: Processes) -> None:
    with hpc.Cluster(n=2, launcher=scheduler.name, controller="first-node") as rc:
        assert rc[:]["size"] == [2, 2]
    assert not submitted.entries()
    processes.assert_none_left()
    with pytest.raises(ValueError, match="controller is"):
        hpc.Cluster(n=2, controller="job")


NOTICED = """
import hpc, os, signal, time
rc = hpc.connect()
rc.wait_for_engines(2)
rc[:].execute("import hpc\\n@hpc.on_walltime\\ndef save(): open(f'saved{rank}', 'w').close()")
os.kill(os.getppid(), signal.SIGUSR1)
while len(rc):
    time.sleep(0.01)
print("lost", rc.lost)
"""


def test_a_notice_of_the_job_script_reaches_the_engines(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPC_WALLTIME_END", str(int(time.time()) + 60))
    Path("analysis.py").write_text(NOTICED)
    done = cli("run", "-n", "2", "--mpi", "--", "analysis.py")
    assert "lost []" in done.stdout
    assert sorted(path.name for path in Path().glob("saved*")) == ["saved0", "saved1"]
    processes.assert_none_left()
