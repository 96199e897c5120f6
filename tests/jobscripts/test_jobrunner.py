"""Submit, follow, end: one body for all schedulers, whose programs replay what real ones have said."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from jobscripts_harness import Clock, Fakes, write_ending
from recordings import FLAVOURS, OPENPBS, Flavour, errors

from jobscripts import Job, JobSpec, Output, Runner, SchedulerError, SpecError, State

SITUATIONS = ("queued", "held", "active", "completed", "failed", "canceled", "timeout", "node_fail")
SPEC = JobSpec(command=("true",), walltime="0:10:00")


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    return FLAVOURS[request.param]()


@pytest.fixture
def runner(flavour: Flavour, fakes: Fakes, clock: Clock) -> Runner:
    return Runner(flavour.scheduler, clock=clock, sleep=clock.sleep, environ=fakes.environ)


@pytest.fixture
def submit(flavour: Flavour, fakes: Fakes, runner: Runner, tmp_path: Path) -> Callable[..., Job]:
    def submit_one(job_id: str = "", spec: JobSpec = SPEC) -> Job:
        fakes.answer(flavour.submit, replace_id(flavour, job_id or flavour.job_id))
        return runner.submit(spec, tmp_path)

    return submit_one


def replace_id(flavour: Flavour, job_id: str) -> Output:
    return flavour.submitted._replace(stdout=f"{job_id}\n")


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_state_is_understood(situation, flavour, fakes, runner, submit):
    job_id, output = flavour.states[situation]
    job = submit(job_id)
    fakes.answer(flavour.query, output)
    status = runner.poll([job])[job.id]
    assert status.state is State(situation), status
    assert status.id == job_id
    if situation == "active":
        assert len(status.nodes) == 2
        assert status.start_s is not None
    if situation == "queued":
        assert status.reason
    if situation == "completed":
        assert status.exit_code == 0
    if situation in ("canceled", "timeout", "node_fail"):
        assert status.exit_code != 0


def test_a_script_is_submitted_from_the_directory_that_it_is_written_to(flavour, fakes, submit, tmp_path):
    job = submit()
    assert job.id == flavour.job_id
    assert job.script.parent == tmp_path
    assert job.script.read_text().startswith("#!/bin/bash\n")
    assert b"\r" not in job.script.read_bytes()
    assert os.access(job.script, os.X_OK)
    [call] = fakes.calls(flavour.submit)
    assert call[-1] == str(job.script)


def test_submitting_twice_writes_two_scripts(submit):
    assert submit().script != submit().script


def test_text_around_the_id_does_not_matter(flavour, fakes, runner, tmp_path):
    output = flavour.submitted._replace(stdout=f"Welcome to the machine\n{flavour.job_id}\nHave a nice day 7\n")
    fakes.answer(flavour.submit, output)
    assert runner.submit(SPEC, tmp_path).id == flavour.job_id


def test_an_answer_without_an_id_is_an_error_that_says_what_may_have_happened(flavour, fakes, runner, tmp_path):
    fakes.answer(flavour.submit, Output(0, "your job is very welcome\n"))
    with pytest.raises(SchedulerError, match="may have accepted the job.*very welcome"):
        runner.submit(SPEC, tmp_path)
    assert len(fakes.calls(flavour.submit)) == 1


def test_what_is_refused_says_what_to_do(flavour, fakes, runner, tmp_path):
    for word, output in flavour.refused.items():
        fakes.answer(flavour.submit, output)
        with pytest.raises(SchedulerError, match=word) as caught:
            runner.submit(SPEC, tmp_path)
        assert not caught.value.transient


def test_a_missing_program_is_named(flavour, tmp_path):
    runner = Runner(flavour.scheduler, environ={"PATH": str(tmp_path)})
    with pytest.raises(SchedulerError, match=f"{flavour.submit} is not on PATH"):
        runner.submit(SPEC, tmp_path)
    assert flavour.scheduler.missing({"PATH": str(tmp_path)}) == list(flavour.scheduler.programs)


def test_one_query_for_all_jobs(flavour, fakes, runner, submit):
    jobs = [
        submit(f"{number}.head" if flavour.scheduler.name != "slurm" else str(number)) for number in range(200, 220)
    ]
    fakes.answer(flavour.query, flavour.nothing)
    statuses = runner.poll(jobs)
    assert len(statuses) == 20
    assert len(fakes.calls(flavour.query)) == 1


def test_polls_in_a_row_ask_no_more_than_the_pace_allows(flavour, fakes, clock, runner, submit):
    job_id, output = flavour.states["active"]
    job = submit(job_id)
    fakes.answer(flavour.query, output)
    for _ in range(6000):  # ten minutes of impatience
        runner.poll([job])
        clock.now += 0.1
    asked = len(fakes.calls(flavour.query))
    assert 20 <= asked <= 30, asked
    assert runner.next_poll_s <= 30


def test_nothing_is_asked_of_jobs_that_have_ended(flavour, fakes, clock, runner, submit):
    job_id, output = flavour.states["completed"]
    job = submit(job_id)
    fakes.answer(flavour.query, output)
    runner.poll([job])
    clock.now += 1000
    assert runner.poll([job])[job.id].state is State.COMPLETED
    assert len(fakes.calls(flavour.query)) == 1
    runner.cancel([job])
    assert not fakes.calls(flavour.cancel)


def test_a_job_that_has_vanished_is_unknown(flavour, fakes, runner, submit):
    job = submit()
    fakes.answer(flavour.query, flavour.nothing)
    fakes.answer("sacct", Output(1, "", "Slurm accounting storage is disabled\n"))
    status = runner.poll([job])[job.id]
    assert status.state is State.UNKNOWN
    assert not status.state.final
    assert not runner.trouble


@pytest.mark.parametrize(
    ("ending", "state"),
    [
        ({"code": 0}, State.COMPLETED),
        ({"code": 7}, State.FAILED),
        ({"code": 143, "reason": "terminated"}, State.CANCELED),
        ({"code": 0, "reason": "walltime"}, State.TIMEOUT),
    ],
)
def test_a_job_that_has_vanished_ended_as_its_exit_file_says(ending, state, flavour, fakes, runner, submit):
    job = submit()
    write_ending(job.exit_file, **ending)
    fakes.answer(flavour.query, flavour.nothing)
    status = runner.poll([job])[job.id]
    assert (status.state, status.exit_code) == (state, ending["code"])
    assert status.end_s == 200


def test_an_exit_file_does_not_end_a_job_that_the_scheduler_runs(flavour, fakes, runner, submit):
    job_id, output = flavour.states["active"]
    job = submit(job_id)
    write_ending(job.exit_file)  # of an earlier run: it was started again
    fakes.answer(flavour.query, output)
    assert runner.poll([job])[job.id].state is State.ACTIVE


def test_the_exit_file_has_the_code_that_the_scheduler_leaves_out(flavour, fakes, runner, submit):
    job_id, output = flavour.states["failed"]
    job = submit(job_id)
    write_ending(job.exit_file, code=7)
    fakes.answer(flavour.query, output)
    assert runner.poll([job])[job.id].exit_code == 7


@pytest.mark.parametrize("text", ["", "code=", "code=x\nstarted=1\n", "\0\xff", "code=1"])
def test_a_broken_exit_file_is_no_evidence(text, flavour, fakes, runner, submit):
    job = submit()
    job.exit_file.write_text(text)
    fakes.answer(flavour.query, flavour.nothing)
    assert runner.poll([job])[job.id].state is State.UNKNOWN


def test_a_query_that_fails_once_is_survived(flavour, fakes, clock, runner, submit):
    job_id, output = flavour.states["active"]
    job = submit(job_id)
    fakes.answer(flavour.query, output, flavour.down, flavour.down, output)
    assert runner.poll([job])[job.id].state is State.ACTIVE
    for _ in range(2):
        clock.now += 200
        status = runner.poll([job])[job.id]
        assert status.state is State.ACTIVE
        assert status.stale
        assert flavour.query in runner.trouble
        assert "trouble" in repr(runner)
    clock.now += 200
    status = runner.poll([job])[job.id]
    assert not status.stale
    assert not runner.trouble


def test_a_scheduler_in_trouble_is_asked_less_and_less(flavour, fakes, clock, runner, submit):
    job = submit()
    fakes.answer(flavour.query, flavour.down)
    for _ in range(6000):
        runner.poll([job])
        clock.now += 0.1
    assert 6 <= len(fakes.calls(flavour.query)) <= 15


@pytest.mark.parametrize("garbage", ["", "Segmentation fault\n", "<html>", '{"Jobs":', "\0"])
def test_garbage_is_never_taken_for_an_end(garbage, flavour, fakes, runner, submit):
    job = submit()
    fakes.answer(flavour.query, Output(0, garbage))
    fakes.answer("sacct", Output(0, garbage))
    assert runner.poll([job])[job.id].state in (State.NEW, State.UNKNOWN)


def test_waiting_tells_each_change_and_ends_with_the_job(flavour, fakes, clock, runner, submit):
    for situation in ("active", "completed"):
        if flavour.states[situation][0] != flavour.job_id:
            return  # the recording has two jobs for it; the states themselves are tested above
    job = submit()
    active, completed = (flavour.states[name][1] for name in ("active", "completed"))
    fakes.answer(flavour.query, active, flavour.down, active, completed)
    seen = []
    runner.wait([job], on_change=lambda status: seen.append((status.state, status.stale)))
    assert seen == [(State.ACTIVE, False), (State.ACTIVE, True), (State.ACTIVE, False), (State.COMPLETED, False)]
    assert clock.slept


def test_waiting_too_long_says_where_the_jobs_stand(flavour, fakes, clock, runner, submit):
    job_id, output = flavour.states["queued"]
    job = submit(job_id)
    fakes.answer(flavour.query, output)
    reason = runner.poll([job])[job.id].reason
    with pytest.raises(TimeoutError) as caught:
        runner.wait([job], timeout_s=100)
    assert reason in str(caught.value)
    assert clock.now == pytest.approx(1_000_100, abs=1)


def test_cancelling_is_one_command_and_those_that_have_ended_are_no_error(flavour, fakes, runner, submit):
    job = submit()
    ended = errors(OPENPBS)["qdel 0.b1"] if flavour.cancel == "qdel" else Output(0)
    fakes.answer(flavour.cancel, ended)
    runner.cancel([job])
    [call] = fakes.calls(flavour.cancel)
    assert call[-1] == job.id


def test_a_cancel_that_fails_is_told(flavour, fakes, runner, submit):
    job = submit()
    fakes.answer(flavour.cancel, replace_program(flavour.down, flavour))
    with pytest.raises(SchedulerError) as caught:
        runner.cancel([job])
    assert caught.value.transient


def replace_program(output: Output, flavour: Flavour) -> Output:
    return output._replace(stderr=output.stderr.replace(flavour.query, flavour.cancel))


def test_a_job_that_is_gone_after_its_cancellation_was_cancelled(flavour, fakes, clock, runner, submit):
    job, other = submit(), submit("77.head" if flavour.submit == "qsub" else "77")
    fakes.answer(flavour.cancel, Output(0))
    fakes.answer(flavour.query, flavour.nothing)
    fakes.answer("sacct", Output(0))
    runner.cancel([job])
    assert {job_id: status.state for job_id, status in runner.poll([job, other]).items()} == {
        job.id: State.CANCELED,
        other.id: State.UNKNOWN,
    }


def test_a_notice_reaches_the_script(flavour, fakes, runner, submit):
    job = submit()
    for program in ("scancel", "qsig"):
        fakes.answer(program, Output(0))
    runner.cancel([job], "USR1")
    [call] = fakes.calls("scancel", "qsig")
    assert "USR1" in " ".join(call)
    assert call[-1] == job.id


def test_a_dry_run_leaves_nothing_behind(flavour, fakes, runner, tmp_path):
    fakes.answer("sbatch", errors_of_slurm()["sbatch --test-only job.sh"])
    fakes.answer("qsub", Output(0, "99.b1\n"))
    fakes.answer("qdel", Output(0))
    before = set(tmp_path.iterdir())
    answer = runner.dry_run(SPEC, tmp_path)
    assert answer.accepted
    assert set(tmp_path.iterdir()) == before
    if flavour.submit == "qsub":
        assert fakes.calls("qsub")[0][1] == "-h"
        assert fakes.calls("qdel") == [["qdel", "99.b1"]]
    else:
        assert answer.start_s is not None


def errors_of_slurm() -> dict[str, Output]:
    from recordings import SLURM

    return errors(SLURM)


def test_a_dry_run_says_what_is_wrong(flavour, fakes, runner, tmp_path):
    for word, output in flavour.refused.items():
        fakes.answer(flavour.submit, output)
        answer = runner.dry_run(SPEC, tmp_path)
        assert not answer.accepted
        assert word in answer.message


def test_a_job_is_found_again_in_another_session(flavour, fakes, clock, submit):
    job_id, output = flavour.states["active"]
    job = Job.from_dict(json.loads(json.dumps(submit(job_id).as_dict())))
    fakes.answer(flavour.query, output)
    another = Runner(flavour.scheduler, clock=clock, environ=fakes.environ)
    assert another.poll([job])[job.id].state is State.ACTIVE


def test_a_spec_that_cannot_be_expressed_submits_nothing(flavour, fakes, runner, tmp_path):
    with pytest.raises(SpecError):
        runner.submit(SPEC.replace(name="two\nlines"), tmp_path)
    with pytest.raises(SpecError):
        runner.submit(SPEC.replace(stdout="a\nb"), tmp_path)
    assert not fakes.calls()
