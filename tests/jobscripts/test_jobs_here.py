"""Jobs without a scheduler: the whole way, with real processes on this machine."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobscripts import Job, JobSpec, Output, Runner, State, get_scheduler
from jobscripts.mpiexec import Mpiexec
from jobscripts.pace import Pace

SLEEP = ("sleep", "600")
DEADLINE_S = 30.0


class Here:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.runner = Runner(get_scheduler("mpiexec"), pace=Pace(least_s=0.02, most_s=0.1))
        self.jobs: list[Job] = []

    def submit(self, **fields: object) -> Job:
        self.jobs.append(self.runner.submit(JobSpec(**fields), self.directory))
        return self.jobs[-1]

    def end(self, job: Job) -> object:
        return self.runner.wait([job], timeout_s=DEADLINE_S)[job.id]

    def active(self, job: Job) -> None:
        status = self.runner.wait([job], lambda status: status.state is State.ACTIVE, timeout_s=DEADLINE_S)[job.id]
        assert status.state is State.ACTIVE


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    made = Here(tmp_path)
    yield made
    made.runner.cancel(made.jobs)
    made.runner.wait(
        [job for job in made.jobs if made.runner.poll([job])[job.id].state is not State.UNKNOWN], timeout_s=DEADLINE_S
    )


def test_a_job_runs_at_once_and_its_output_is_kept(here):
    job = here.submit(command="echo out; echo err >&2; echo more; exit 3", name="my job")
    status = here.end(job)
    assert (status.state, status.exit_code) == (State.FAILED, 3)
    assert Path(job.stdout).read_text() == "out\nerr\nmore\n"
    assert job.script.name.startswith("my-job-")


def test_errors_may_go_elsewhere(here, tmp_path):
    job = here.submit(command="echo out; echo err >&2", stderr=str(tmp_path / "the errors"))
    assert here.end(job).state is State.COMPLETED
    assert Path(job.stdout).read_text() == "out\n"
    assert (tmp_path / "the errors").read_text() == "err\n"


def test_it_works_in_directories_of_any_name(weird_path):
    here = Here(weird_path)
    job = here.submit(command=("pwd",))
    assert here.end(job).state is State.COMPLETED
    assert Path(job.stdout).read_text() == f"{weird_path}\n"


def test_a_job_is_cancelled(here):
    job = here.submit(command="echo begun; sleep 600")
    deadline = time.monotonic() + DEADLINE_S
    # Before the script has set its trap nothing tells of an exit status.
    while Path(job.stdout).read_text() != "begun\n" and time.monotonic() < deadline:
        time.sleep(0.01)
    here.runner.cancel([job])
    status = here.end(job)
    assert (status.state, status.exit_code, status.reason) == (State.CANCELED, 143, "terminated")


def test_a_job_gets_a_notice(here, tmp_path):
    text = "trap 'exit 4' USR1; echo >ready; for ((i = 0; i < 600; i++)); do sleep 0.05; done"
    job = here.submit(command=text, walltime=1000, notice_s=1)
    deadline = time.monotonic() + DEADLINE_S
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    here.runner.cancel([job], "USR1")
    assert here.end(job).exit_code == 4


def test_a_script_that_was_killed_is_unknown(here, tmp_path):
    job = here.submit(command="while [[ ! -e stop ]]; do sleep 0.05; done")
    here.active(job)
    os.kill(int(job.id.partition(".")[0]), signal.SIGKILL)
    status = here.runner.wait([job], lambda status: status.state is State.UNKNOWN, timeout_s=DEADLINE_S)[job.id]
    assert status.reason == "its process is gone"
    (tmp_path / "stop").touch()


def test_another_process_is_not_taken_for_a_job(here):
    job = here.submit(command=("true",))
    assert here.end(job).state is State.COMPLETED
    mine = f"{os.getpid()}.{Mpiexec().host}"
    runner = Runner(get_scheduler("mpiexec"))
    fields = job.as_dict() | {"id": mine, "exit_file": str(job.exit_file) + ".no"}
    impostor = Job.from_dict(fields)
    assert runner.poll([impostor])[mine].state is State.UNKNOWN
    runner.cancel([impostor])  # and this process lives on


def test_jobs_of_another_machine_are_asked_for_there():
    scheduler = Mpiexec(host="login1")
    [status] = scheduler.parse_status(Output(0), ["12.login2"]).values()
    assert status.state is State.UNKNOWN
    assert "login2" in status.reason
    assert scheduler.cancel_command(["12.login2", "13.login1"])[-1] == "13"


def test_a_dry_run_has_bash_read_it(here, tmp_path):
    assert here.runner.dry_run(JobSpec(command=("true",)), tmp_path).accepted
    answer = here.runner.dry_run(JobSpec(command="if then"), tmp_path)
    assert not answer.accepted
    assert "syntax error" in answer.message
