"""The Torque dialect by Debian's qsub, which hands scripts to Slurm: are they taken, and run in the shape asked for?

It is no stand-in for the real thing: its qstat knows no XML, jobs have no PBS_JOBID, output goes where it likes.
"""

import os
from pathlib import Path

import pytest

from jobscripts import JobSpec, get_scheduler
from jobscripts.exits import read_ending
from jobscripts.runner import run_command

from .conftest import NODES, Slurm, wait_until

# Where slurm-wlm-torque and its Perl modules were unpacked: installed, its qsub would be taken for that of a PBS.
ROOT = Path(os.environ.get("HPC_TEST_TORQUE", "/nowhere"))
SLURM_COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun", "salloc")

pytestmark = pytest.mark.skipif(
    not (ROOT / "usr/bin/qsub").exists(), reason="no slurm-wlm-torque in $HPC_TEST_TORQUE: scripts/test unpacks it"
)


@pytest.fixture(autouse=True)
def wrappers(slurm: Slurm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Put the wrappers on PATH, with the commands that they expect beside them."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for path in (ROOT / "usr/bin").iterdir():
        (commands / path.name).write_bytes(path.read_bytes())
        (commands / path.name).chmod(0o755)
    for name in SLURM_COMMANDS:
        (commands / name).symlink_to(f"/usr/bin/{name}")
    modules = [*ROOT.glob("usr/lib/*/perl5/*"), ROOT / "usr/share/perl5"]
    monkeypatch.setenv("PERL5LIB", os.pathsep.join(map(str, modules)))
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)


def test_a_script_is_taken_and_runs_in_its_shape(tmp_path: Path) -> None:
    torque = get_scheduler("torque")
    spec = JobSpec(
        command="srun sh -c 'echo $SLURMD_NODENAME $SLURM_JOB_NAME' >shape; exit 3",
        name="shape",
        nodes=2,
        ranks_per_node=2,
        walltime="5m",
        exit_file=str(tmp_path / "exit"),
    )
    script = tmp_path / "job.pbs"
    script.write_text(torque.script(spec))
    job_id = torque.parse_submit(run_command(torque.submit_command(str(script), spec)))
    ending = wait_until(lambda: read_ending(tmp_path / "exit"), "the exit file")
    assert ending.code == 3
    words = (tmp_path / "shape").read_text().split()
    assert words.count("shape") == 4
    assert set(words) == {"n1", "n2", "shape"}
    assert job_id in run_command(["qstat", job_id]).stdout


def test_a_job_is_cancelled(slurm: Slurm, tmp_path: Path) -> None:
    torque = get_scheduler("torque")
    spec = JobSpec(command=("sleep", "600"), walltime="5m", exit_file=str(tmp_path / "exit"))
    script = tmp_path / "job.pbs"
    script.write_text(torque.script(spec))
    job_id = torque.parse_submit(run_command(torque.submit_command(str(script), spec)))
    wait_until(lambda: slurm.run("squeue", "-h", "-j", job_id, "-o", "%T") == "RUNNING", "the job to run")
    torque.parse_cancel(run_command(torque.cancel_command([job_id])))
    wait_until(lambda: slurm.idle() == set(NODES), "the end of the job")
