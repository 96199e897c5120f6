"""Jobs by way of a Runner on a real Slurm: every state that it can bring about, and what pending jobs wait for."""

import dataclasses
from pathlib import Path

import pytest

from jobscripts import Job, JobSpec, JobStatus, SchedulerError, State
from jobscripts.exits import read_ending

from .conftest import NODES, Jobs, Slurm, wait_until

SLEEP = ("sleep", "600")
# Seconds within which slurmctld notices that a node does not answer: SlurmdTimeout, and how often it looks.
NOTICED_S = 90.0


def output(job: Job) -> list[str]:
    return Path(job.stdout).read_text().split()


def test_a_job_completes_and_says_so(jobs: Jobs, slurm: Slurm) -> None:
    job = jobs.submit(
        "srun --ntasks=2 sh -c 'echo $SLURMD_NODENAME'; echo $A", nodes=2, environment={"A": "b"}, name="two nodes"
    )
    status = jobs.wait(job, State.COMPLETED)
    assert status.exit_code == 0
    assert set(status.nodes) == {"n1", "n2"}
    assert status.start_s is not None
    assert status.end_s is not None
    assert status.start_s <= status.end_s
    assert sorted(output(job)) == ["b", "n1", "n2"]
    ending = read_ending(job.exit_file)
    assert ending is not None
    assert (ending.code, ending.reason, ending.job_id) == (0, "", job.id)
    assert slurm.run("squeue", "-h", "-t", "all", "-j", job.id, "-o", "%j") == "two nodes"


def test_a_job_fails_with_its_exit_code(jobs: Jobs) -> None:
    assert jobs.wait(jobs.submit("exit 7"), State.FAILED).exit_code == 7
    assert jobs.wait(jobs.submit("kill -KILL $BASHPID"), State.FAILED).exit_code == 137


def test_odd_names_of_files(jobs: Jobs, tmp_path: Path) -> None:
    jobs.directory = tmp_path / 'it\'s 100% "$HOME" & more'
    job = jobs.submit(("printf", "%s\n", "a  b", "$c", "'"), name='it\'s 5% "off"')
    jobs.wait(job, State.COMPLETED)
    assert Path(job.stdout).read_text() == "a  b\n$c\n'\n"
    assert Path(job.stdout).parent == jobs.directory


def test_what_pending_jobs_wait_for(jobs: Jobs, slurm: Slurm) -> None:
    running = jobs.submit(SLEEP, nodes=4, exclusive=True)
    jobs.wait(running, State.ACTIVE)
    behind = jobs.submit(nodes=4)
    after = jobs.submit(dependency=(f"afterok:{running.id}",))
    waiting = jobs.until(behind, lambda status: status.reason == "Resources" and status.start_s is not None)
    assert waiting.state is State.QUEUED
    end_s = jobs.until(running, lambda status: status.end_s is not None).end_s
    assert abs(waiting.start_s - end_s) < 120, "when the other's walltime is over"
    assert jobs.until(after, lambda status: status.reason == "Dependency").state is State.QUEUED
    slurm.run("scontrol", "uhold", behind.id)
    assert jobs.wait(behind, State.HELD).reason == "JobHeldUser"
    slurm.run("scontrol", "release", behind.id)
    jobs.runner.cancel([running])
    assert jobs.wait(running, State.CANCELED)
    jobs.wait(behind, State.COMPLETED)
    jobs.wait(after, State.CANCELED)  # it can never run, and does not wait for ever


def test_a_running_job_is_cancelled_and_its_command_hears_it(jobs: Jobs) -> None:
    job = jobs.submit("trap 'echo heard; exit 3' TERM; sleep 600 & echo began; wait")
    jobs.wait(job, State.ACTIVE)
    wait_until(lambda: Path(job.stdout).exists() and output(job) == ["began"], "the command to begin")
    jobs.runner.cancel([job])
    jobs.wait(job, State.CANCELED)
    wait_until(lambda: read_ending(job.exit_file), "the exit file")
    assert read_ending(job.exit_file).reason == "terminated"
    assert "heard" in output(job)
    jobs.runner.cancel([job])  # which is no error


def test_a_signal_reaches_the_command(jobs: Jobs) -> None:
    job = jobs.submit("trap 'echo heard; exit 0' USR1; sleep 600 & echo began; wait", notice_s=60)
    wait_until(lambda: Path(job.stdout).exists() and output(job) == ["began"], "the command to begin")
    jobs.runner.cancel([job], signal="USR1")
    jobs.wait(job, State.COMPLETED)
    assert output(job) == ["began", "heard"]


def test_the_walltime_ends_a_job_after_notice(jobs: Jobs, slurm: Slurm) -> None:
    # slurmctld looks at the clock every 30 s, and gives notice up to one such time too early.
    job = jobs.submit("trap 'echo notice' USR1; echo began; while :; do sleep 600 & wait; done", notice_s=10)
    wait_until(lambda: Path(job.stdout).exists() and output(job) == ["began"], "the command to begin")
    slurm.end_soon(job.id, 32)
    wait_until(lambda: "notice" in output(job), "the notice")
    assert jobs.runner.poll([job], now=True)[job.id].state is State.ACTIVE, "not yet at its end"
    assert jobs.wait(job, State.TIMEOUT, timeout_s=90).reason == "TimeLimit"


def test_a_requeued_job_runs_again(jobs: Jobs, slurm: Slurm) -> None:
    command = "echo run${SLURM_RESTART_COUNT:-0}; [[ $SLURM_RESTART_COUNT ]] || sleep 600"
    job = jobs.submit(command, requeue=True)
    wait_until(lambda: Path(job.stdout).exists() and output(job) == ["run0"], "the first run")
    slurm.run("scontrol", "requeue", job.id)
    jobs.until(job, lambda status: status.state is State.QUEUED or output(job)[-1] == "run1")
    jobs.wait(job, State.COMPLETED)
    assert output(job)[0] == "run0", "what the first run said is kept"
    assert output(job)[-1] == "run1"


def test_a_killed_node_ends_a_job(jobs: Jobs, slurm: Slurm) -> None:
    stays = jobs.submit(SLEEP, nodes=2, requeue=False, constraint="cpu")
    node = jobs.until(stays, lambda status: bool(status.nodes)).nodes[0]
    moves = jobs.submit(
        "echo $SLURMD_NODENAME; [[ $SLURM_RESTART_COUNT ]] || sleep 600", requeue=True, extra=(f"--nodelist={node}",)
    )
    wait_until(lambda: Path(moves.stdout).exists() and output(moves) == [node], "the second job to begin")
    slurm.dev_cluster("kill", node)
    try:
        assert jobs.wait(stays, State.NODE_FAIL, timeout_s=NOTICED_S).nodes[0] == node
        jobs.wait(moves, State.QUEUED, timeout_s=NOTICED_S)
        assert not read_ending(moves.exit_file)
    finally:
        slurm.dev_cluster("revive", node)
    jobs.wait(moves, State.COMPLETED)
    assert output(moves) == [node, node]


def test_a_preempted_job_says_so(jobs: Jobs) -> None:
    gives_way = jobs.submit(SLEEP, nodes=4, exclusive=True, queue="scavenge", requeue=False)
    jobs.wait(gives_way, State.ACTIVE)
    jobs.wait(jobs.submit(nodes=4, exclusive=True), State.COMPLETED)
    jobs.wait(gives_way, State.PREEMPTED)


def test_an_array_by_its_elements(jobs: Jobs, slurm: Slurm) -> None:
    job = jobs.submit("((SLURM_ARRAY_TASK_ID == 4)) && exit 3; exec sleep 600", array="1-4%3")
    assert job.indices == (1, 2, 3, 4)

    def states(status: JobStatus) -> list[State]:
        return [status.elements[index].state for index in sorted(status.elements)]

    active, queued = State.ACTIVE, State.QUEUED
    assert jobs.until(job, lambda status: states(status) == [active, active, active, queued]).state is State.ACTIVE
    element = dataclasses.replace(job, id=f"{job.id}_2")
    jobs.runner.cancel([element])
    ended = jobs.until(job, lambda status: states(status) == [active, State.CANCELED, active, State.FAILED])
    assert ended.state is State.ACTIVE
    assert read_ending(job.exit_file.with_name(f"{job.exit_file.name}.4")).code == 3
    jobs.runner.cancel([job])
    assert jobs.wait(job, State.FAILED).exit_code == 3, "of all ends that is the worst"


def test_a_heterogeneous_job(jobs: Jobs) -> None:
    parts = (JobSpec(nodes=2, ranks_per_node=2, constraint="cpu"), JobSpec(nodes=1, gpus_per_node=2, constraint="gpu"))
    command = "srun --het-group=0,1 sh -c 'echo $SLURMD_NODENAME:$CUDA_VISIBLE_DEVICES'"
    job = jobs.submit(command, components=parts)
    status = jobs.wait(job, State.COMPLETED)
    assert len(status.elements) == 2
    assert sorted(output(job)) == ["n1:", "n1:", "n2:", "n2:", f"{NODES[-1]}:0,1"]


def test_the_scheduler_is_away_for_a_while(jobs: Jobs, slurm: Slurm) -> None:
    job = jobs.submit(SLEEP)
    jobs.wait(job, State.ACTIVE)
    slurm.dev_cluster("kill", "slurmctld")
    try:
        status = jobs.runner.poll([job], now=True)[job.id]
        assert (status.state, status.stale) == (State.ACTIVE, True)
        assert jobs.runner.trouble
    finally:
        slurm.dev_cluster("revive", "slurmctld")
    assert not jobs.until(job, lambda status: not status.stale).stale
    assert jobs.runner.trouble == ""


def test_a_dry_run_tells_and_leaves_nothing(jobs: Jobs, slurm: Slurm, tmp_path: Path) -> None:
    fine = jobs.runner.dry_run(JobSpec(command="true", nodes=4), tmp_path)
    assert fine.accepted
    assert fine.start_s is not None
    refused = jobs.runner.dry_run(JobSpec(command="true", queue="nosuch"), tmp_path)
    assert not refused.accepted
    assert "sinfo -s" in refused.message
    assert slurm.jobs() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"queue": "nosuch"}, "lists the partitions"),
        ({"constraint": "nosuch"}, "lists the features"),
        ({"array": "0-20000"}, "MaxArraySize"),
        ({"memory_mib": 10**6}, "no node is like that"),
        ({"gpus_per_node": 9}, "no node is like that"),
    ],
)
def test_what_the_site_does_not_have_is_refused(jobs: Jobs, fields: dict[str, object], words: str) -> None:
    with pytest.raises(SchedulerError, match=words):
        jobs.submit(**fields)
