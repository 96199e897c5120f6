"""A real Slurm for these tests: `slurm/dev-cluster`, started once, and for each test the proof that it left no job."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from system.conftest import Processes, processes  # noqa: F401 - for all tests here: a private HPC_DIR, and no process left
from system.conftest import wait_until as sooner

from jobscripts import Job, JobSpec, JobStatus, Runner, State
from jobscripts.pace import Pace
from jobscripts.slurm import Slurm as Dialect

DEV_CLUSTER = Path(__file__).parents[2] / "slurm" / "dev-cluster"
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue")
NODES = ("n1", "n2", "n3", "n4")
# Two cores do the work of four nodes, and of whatever else runs beside the tests.
DEADLINE_S = 60.0


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slurm: needs Slurm's daemons on this machine, starts its own")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.slurm)
            if missing:
                item.add_marker(pytest.mark.skip(reason=f"no Slurm here ({', '.join(missing)}): see slurm/README.md"))


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = DEADLINE_S) -> object:
    """Return the first true value of a condition; fail, saying what was waited for, after the deadline."""
    return sooner(condition, what, timeout_s, pause_s=0.1)


class Slurm:
    """A Slurm that `slurm/dev-cluster` runs: its commands, and what the tests do to its nodes."""

    def __init__(self, directory: Path, nodes: int = len(NODES)) -> None:
        self.directory = directory
        self.said = self.dev_cluster("up", str(nodes)).stdout.strip()
        self.configuration = str(directory / "slurm.conf")

    def __repr__(self) -> str:
        return f"<Slurm {self.directory}>"

    def dev_cluster(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        command = [str(DEV_CLUSTER), *arguments, "--directory", str(self.directory)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=check)

    def run(self, *command: str, check: bool = True, **keywords: object) -> str:
        """Return what a command of Slurm prints."""
        environment = os.environ | {"SLURM_CONF": self.configuration}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=DEADLINE_S, env=environment, check=False, **keywords
        )
        if check:
            assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def jobs(self) -> list[str]:
        """Return the jobs that wait or run; a node may still be busy with the end of others."""
        return self.run("squeue", "-h", "-r", "-t", "PENDING,CONFIGURING,RUNNING,SUSPENDED", "-o", "%i").split()

    def idle(self) -> set[str]:
        """Return the nodes that wait for jobs."""
        lines = self.run("sinfo", "-h", "-N", "-p", "debug", "-o", "%N %t").splitlines()
        return {name for name, state in map(str.split, lines) if state == "idle"}

    def end_soon(self, job_id: str, seconds: int = 5) -> None:
        """Let the time limit of a running job be over in a moment."""
        self.run("scontrol", "update", f"jobid={job_id}", f"EndTime=now+{seconds}")

    def down(self) -> None:
        self.dev_cluster("down")


def directory() -> Path:
    """Return a new directory whose path is short enough for Slurm."""
    return Path(tempfile.mkdtemp(prefix="hpc-slurm-", dir="/tmp"))


@pytest.fixture(scope="session")
def dev_slurm() -> Iterator[Slurm]:
    """The Slurm of all tests; not for them: `slurm` is."""
    cluster = Slurm(directory())
    yield cluster
    cluster.down()


@pytest.fixture
def slurm(dev_slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """A Slurm of four idle nodes, that `sbatch` and the others mean; every job has ended when the test has."""
    wait_until(lambda: len(dev_slurm.idle()) == len(NODES), f"{NODES} to be idle")
    for name in list(os.environ):
        # Told to put more ranks than slots on a node, Open MPI puts all ranks of an allocation on its first one.
        if name.startswith(("SLURM_", "SBATCH_", "PRTE_MCA_rmaps_", "OMPI_MCA_rmaps_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_CONF", dev_slurm.configuration)
    yield dev_slurm
    left = dev_slurm.jobs()
    if left:
        dev_slurm.run("scancel", *left)
        wait_until(lambda: not dev_slurm.jobs(), f"the end of {left}")
    assert not left, f"jobs left behind: {left}"


class Jobs:
    """A Runner that asks as often as a test may, and ends what the test has left."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.runner = Runner(Dialect(), pace=Pace(least_s=0.3, most_s=0.5))
        self.submitted: list[Job] = []

    def submit(self, command: tuple[str, ...] | str = "true", **fields: object) -> Job:
        spec = JobSpec(command=command, **({"walltime": "0:05:00"} | fields))
        job = self.runner.submit(spec, self.directory)
        self.submitted.append(job)
        return job

    def wait(self, job: Job, *states: State, timeout_s: float = DEADLINE_S) -> JobStatus:
        """Wait until a job is in one of these states."""
        status = self.runner.wait([job], lambda status: status.state in states, timeout_s=timeout_s)[job.id]
        assert status.state in states, status
        return status

    def until(self, job: Job, holds: Callable[[JobStatus], bool]) -> JobStatus:
        status = self.runner.wait([job], holds, timeout_s=DEADLINE_S)[job.id]
        assert holds(status), status
        return status

    def cancel_all(self) -> None:
        self.runner.cancel(self.submitted)
        self.runner.wait(self.submitted, timeout_s=DEADLINE_S)


@pytest.fixture
def jobs(slurm: Slurm, processes: Processes, tmp_path: Path) -> Iterator[Jobs]:  # noqa: F811 - a fixture
    helper = Jobs(tmp_path)
    yield helper
    helper.cancel_all()
    processes.assert_none_left(files=False)  # a job may be over while slurmstepd still ends its processes
