"""Clusters in jobs of a real Slurm of this machine's own: how long after the scheduler, and how often it is asked."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import Row, at_most, interleave, p50
from jobscripts import JobSpec, Output, Runner, State, get_scheduler
from jobscripts.runner import run_command

DEV_CLUSTER = Path(__file__).parents[1] / "slurm" / "dev-cluster"
ENGINES, JOBS = 4, 200
HOUR_S = 3600.0
# Two processes that import nothing but MPI, by the launcher that the engines get.
BARE = "from mpi4py import MPI; MPI.COMM_WORLD.Barrier()"


def measure(quick: bool = False) -> list[Row]:
    """Start clusters in jobs, against what sbatch alone takes; then follow many jobs, and count what that asks."""
    if shutil.which("sbatch") is None:
        return [Row("cluster in a job", "", None, note="no Slurm here: slurm/README.md")]
    with slurm(), tempfile.TemporaryDirectory(prefix="hpc-bench-jobs-") as directory:
        return [*starting(Path(directory), 3 if quick else 7), *following(Path(directory))]


@contextmanager
def slurm() -> Iterator[None]:
    """Run a Slurm of two nodes, and have it meant by its commands."""
    directory = tempfile.mkdtemp(prefix="hpc-slurm-")
    command = [str(DEV_CLUSTER), "up", "2", "--directory", directory, "--cpus", "8"]
    subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=120)
    os.environ["SLURM_CONF"] = f"{directory}/slurm.conf"
    try:
        yield
    finally:
        del os.environ["SLURM_CONF"]
        subprocess.run([str(DEV_CLUSTER), "down", "--directory", directory], check=True, timeout=120)


def starting(directory: Path, rounds: int) -> list[Row]:
    """Compare a cluster in a job with the first line of a script, and with ranks that do nothing, in the same job."""
    from hpc.cluster.probe import find_launch

    launch = find_launch("slurm")
    bare = JobSpec(
        command=(sys.executable, "-c", BARE), launch=launch, ranks=ENGINES, walltime="5m", epilogue=("touch ended",)
    )
    found = interleave(
        {
            "ours": start_ours,
            "scheduler": lambda: until_written(JobSpec(command="touch ended", walltime="5m"), directory),
            "ranks": lambda: until_written(bare, directory),
        },
        rounds,
    )
    workload = f"cluster of {ENGINES} engines in a job"
    over = found["ours"] - found["scheduler"]
    return [
        Row(
            workload, "s", found["ours"], "sbatch until the script runs", found["scheduler"], note=f"{over:.2f} s more"
        ),
        Row(workload, "s", found["ours"], "sbatch until bare ranks have met", found["ranks"]),
    ]


def start_ours() -> float:
    """Start a cluster by a job; the time ends with a result of each engine."""
    import hpc

    begun = time.perf_counter()
    with hpc.Cluster(n=ENGINES, launcher="slurm", walltime="5m") as rc:
        pids = rc[:].apply_sync(os.getpid)
        duration = time.perf_counter() - begun
    if len(set(pids)) != ENGINES:
        raise AssertionError(f"{pids} are not {ENGINES} engines")
    return duration


def until_written(spec: JobSpec, directory: Path) -> float:
    """Submit a job that touches a file, and wait for that."""
    written = directory / "ended"
    written.unlink(missing_ok=True)
    begun = time.perf_counter()
    Runner(get_scheduler("slurm")).submit(spec, directory)
    while not written.exists():
        time.sleep(0.002)
    return time.perf_counter() - begun


class Hour:
    """Time that passes when somebody waits, and the commands that are run in it."""

    def __init__(self) -> None:
        self.now_s = 1e9
        self.commands: list[str] = []

    def clock(self) -> float:
        """Return the seconds since the epoch."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds

    def run(self, command: Sequence[str], **keywords: object) -> Output:
        """Run a command, now."""
        self.commands.append(command[0])
        return run_command(command, **keywords)


def following(directory: Path) -> list[Row]:
    """Follow many jobs for an hour, most of which wait, and count what the scheduler is asked."""
    hour = Hour()
    runner = Runner(get_scheduler("slurm"), run=hour.run, clock=hour.clock, sleep=hour.sleep)
    begun = time.perf_counter()
    spec = JobSpec(command="exec sleep 600", walltime="30m", memory_mib=10)
    jobs = [runner.submit(spec, directory) for _ in range(JOBS)]
    submitting_s = time.perf_counter() - begun
    asked = len(hour.commands)
    started_s, polls = hour.now_s, 0
    while hour.now_s < started_s + HOUR_S:
        statuses = runner.poll(jobs)
        polls += 1
        hour.sleep(runner.next_poll_s)
    states = {status.state for status in statuses.values()}
    if not states <= {State.QUEUED, State.ACTIVE} or runner.trouble:
        raise AssertionError(f"the jobs are {states}, {runner.trouble}")
    calls = len(hour.commands) - asked
    query_s = p50(lambda: runner.poll(jobs, now=True), 5)
    runner.cancel(jobs)
    workload = f"{JOBS} jobs followed for an hour"
    return [
        at_most(workload, "calls", calls, "polls", polls, 1.0, f"{calls / 60:.1f} calls a minute"),
        Row(f"one query for {JOBS} jobs", "ms", 1e3 * query_s),
        Row("one submission", "ms", 1e3 * submitting_s / JOBS),
    ]
