"""What the runner does with what only one scheduler has: archives, histories, arrays without words of their own."""

from dataclasses import replace
from pathlib import Path

from jobscripts_harness import Clock, Fakes, write_ending
from recordings import FLAVOURS, OPENPBS, SLURM, errors, torque_data

from jobscripts import Job, JobSpec, JobStatus, Output, Runner, State
from jobscripts.runner import run_command

SPEC = JobSpec(command=("true",), walltime="0:10:00")


def test_the_environment_of_a_surrounding_job_stays_behind(fakes, tmp_path):
    seen: list[dict[str, str]] = []

    def run(command, *, cwd=None, env=None):
        seen.append(dict(env))
        return Output(0, "12\n")

    nested = {
        "SLURM_NTASKS": "2",
        "SLURM_CONF": "/c",
        "SBATCH_ACCOUNT": "a",
        "PMI_RANK": "0",
        "HOME": "/h",
        "PBS_JOBID": "1",
    }
    Runner(FLAVOURS["slurm"]().scheduler, run=run, environ=nested).submit(SPEC, tmp_path)
    assert seen == [{"SLURM_CONF": "/c", "HOME": "/h"}]


def test_a_command_that_hangs_or_is_missing_is_an_output_too(tmp_path, monkeypatch):
    monkeypatch.setattr("jobscripts.runner.COMMAND_TIMEOUT_S", 0.2)
    assert run_command(["sleep", "60"]).code == -1
    assert run_command([str(tmp_path / "nothing")]).code == -1
    assert run_command(["sh", "-c", "echo a; echo b >&2; exit 3"]) == Output(3, "a\n", "b\n")


def slurm_runner(fakes: Fakes, clock: Clock, tmp_path: Path) -> tuple[Runner, Job]:
    runner = Runner(FLAVOURS["slurm"]().scheduler, clock=clock, sleep=clock.sleep, environ=fakes.environ)
    fakes.answer("sbatch", Output(0, "4;cluster\n"))
    fakes.answer("squeue", Output(0, ""))
    return runner, runner.submit(SPEC, tmp_path)


def test_the_archive_of_slurm_is_evidence(fakes, clock, tmp_path):
    runner, job = slurm_runner(fakes, clock, tmp_path)
    assert job.id == "4"
    lines = (SLURM / "sacct.txt").read_text().splitlines()[1:]
    rows = [line.split("|") for line in lines]
    text = "".join("|".join([row[0], row[1], row[2], row[5], row[6], row[7], row[8]]) + "\n" for row in rows)
    fakes.answer("sacct", Output(0, ""), Output(0, text))
    assert runner.poll([job])[job.id].state is State.UNKNOWN  # rows come seconds after the end
    clock.now += 60
    assert runner.poll([job])["4"] == replace(
        runner.poll([job])["4"], state=State.FAILED, exit_code=7, reason="", nodes=("n1", "n2"), raw="FAILED"
    )


def test_a_slurm_without_archive_is_asked_for_it_once(fakes, clock, tmp_path):
    runner, job = slurm_runner(fakes, clock, tmp_path)
    fakes.answer("sacct", Output(1, "", "Slurm accounting storage is disabled\n"))
    for _ in range(5):
        runner.poll([job])
        clock.now += 1000
    assert len(fakes.calls("sacct")) == 1


def test_a_pbs_without_history_is_asked_for_what_it_has(fakes, clock, tmp_path):
    flavour = FLAVOURS["pbs"]()
    runner = Runner(flavour.scheduler, clock=clock, environ=fakes.environ)
    fakes.answer("qsub", flavour.submitted)
    off = Output(1, "", "qstat: PBS is not configured to maintain job history\n")
    fakes.answer("qstat", off, flavour.states["active"][1])
    job = runner.submit(SPEC, tmp_path)
    assert runner.poll([job])[job.id].state is State.ACTIVE
    assert [("-x" in call) for call in fakes.calls("qstat")] == [True, False]
    fakes.answer("qstat", errors(OPENPBS)["qstat -f -F json 0.b1"])  # finished, and no history of it
    clock.now += 100
    assert runner.poll([job])[job.id].state is State.UNKNOWN


def test_an_array_ends_by_the_files_of_its_elements(fakes, clock, tmp_path):
    runner = Runner(FLAVOURS["torque"]().scheduler, clock=clock, environ=fakes.environ)
    fakes.answer("qsub", Output(0, "5[].head\n"))
    job = runner.submit(SPEC.replace(array="0-2"), tmp_path)
    fakes.answer("qstat", torque_data())
    for index in range(3):
        status: JobStatus = runner.poll([job], now=True)[job.id]
        assert status.state is State.UNKNOWN
        write_ending(job.exit_file.with_name(f"{job.exit_file.name}.{index}"), code=index)
    status = runner.poll([job], now=True)[job.id]
    assert (status.state, status.exit_code) == (State.FAILED, 2)
    assert [element.exit_code for element in status.elements.values()] == [0, 1, 2]
