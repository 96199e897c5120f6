"""Schedulers that fail, babble, are not there for a while, or forget a job."""

import hpc
from tests.system.conftest import Processes, cli, wait_until
from tests.system.fake_schedulers import FakeScheduler

from .table import fault


def wrap(scheduler: FakeScheduler, program: str, before: str, after: str = "") -> None:
    """Have a command of the scheduler do something before and after its work."""
    path = scheduler.bin / program
    hidden = scheduler.bin / "hidden" / program
    hidden.parent.mkdir()
    path.rename(hidden)
    path.write_text(f'#!/bin/sh\n{before}\n"{hidden}" "$@"\nstatus=$?\n{after}\nexit $status\n')
    path.chmod(0o755)


@fault("submitting a job fails", "the start ends at once with what the scheduler said; nothing is left behind")
def test_submission_fails(scheduler: FakeScheduler, processes: Processes) -> None:
    scheduler.down(True)
    done = cli("start", "-n", "1", "--launcher", scheduler.name, check=False)
    assert done.returncode == 1
    assert "nable to contact slurm controller" in done.stderr
    processes.assert_none_left(files=False)


@fault("submitting a job succeeds with odd text around its id", "the id is found")
def test_odd_text(scheduler: FakeScheduler, processes: Processes) -> None:
    wrap(scheduler, scheduler.programs[0], "echo; echo 'Welcome to 3 new nodes!' >&2", "echo 'have a nice day' >&2")
    with hpc.Cluster(n=1, launcher=scheduler.name) as rc:
        assert rc[0].apply_sync(abs, -1) == 1
    processes.assert_none_left(files=False)


@fault("asking for the jobs fails for a while", "that is no end of a job: engines and cluster go on")
def test_query_fails(scheduler: FakeScheduler, processes: Processes) -> None:
    cluster = hpc.Cluster(n=1, launcher=scheduler.name)
    with cluster as rc:
        before = scheduler.calls(scheduler.programs[1])
        scheduler.down(True)
        wait_until(lambda: scheduler.calls(scheduler.programs[1]) > before, "a query")
        scheduler.down(False)
        assert rc[0].apply_sync(abs, -1) == 1
        assert cluster.groups[0].state == "running"
    processes.assert_none_left(files=False)


@fault("a job comes to the end of its time", "its engines are reported lost; what was kept goes on in another job")
def test_out_of_time(scheduler: FakeScheduler, processes: Processes) -> None:
    cli("start", "-n", "1", "--launcher", scheduler.name, "--keep")
    scheduler.time_is_over("1")
    wait_until(lambda: scheduler.state("2") == "RUNNING", "a second job")
    with hpc.connect() as rc:
        wait_until(lambda: 1 in rc.ids, "its engine")
    cli("stop")
    processes.assert_none_left(files=False)
