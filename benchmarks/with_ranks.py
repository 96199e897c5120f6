"""Tasks of two ranks: against an MPI job for each, and what serving together costs beyond an ordinary task.

``mpiexec -n 2 python -m benchmarks.with_ranks`` is that job: what people write who have no live ranks.
"""

import subprocess
import sys

import hpc
from benchmarks.harness import Row, at_most, interleave, p50, timed
from hpc.cluster.mpirun import find

N_TASKS = 500


def total(x: int) -> int:
    """Do as little as a task of several ranks can do: add up their numbers."""
    comm = hpc.comm()
    return int(comm.allreduce(x + comm.rank))


def nothing(x: int) -> int:
    """Return the argument."""
    return x


def measure(quick: bool = False) -> list[Row]:
    """Compare single tasks and maps on four live ranks with jobs that are started for each task."""
    rounds = 3 if quick else 9
    with hpc.Cluster(n=4, launcher="mpiexec", name="with-ranks") as rc:
        lv = rc.load_balanced_view()
        pairs = lv.with_ranks(2)
        for view in (lv, pairs):  # functions sent, communicators made, durations known
            view.map(nothing, range(N_TASKS))
        pairs.map(total, range(N_TASKS))
        items = list(range(N_TASKS))
        cases = {
            "job": lambda: timed(job, lambda out: out == b"11\n"),
            "single": lambda: p50(lambda: pairs.apply(total, 5), 20),
            "single no-op": lambda: p50(lambda: pairs.apply(nothing, 5), 50),
            "plain no-op": lambda: p50(lambda: lv.apply(nothing, 5), 50),
            "map": lambda: timed(lambda: pairs.map(total, items), lambda out: out == [2 * x + 1 for x in items]),
            "map no-op": lambda: timed(lambda: pairs.map(nothing, items), lambda out: out == items),
            "plain map": lambda: timed(lambda: lv.map(nothing, items), lambda out: out == items),
        }
        found = interleave(cases, rounds)
        spread = {case: found[case] / N_TASKS for case in ("map", "map no-op", "plain map")}
        size = rc.groups[0].mpi
    us, ms = 1e6, 1e3
    return [
        at_most(
            "a task of 2 ranks, one at a time", "ms", ms * found["single"], "an MPI job", ms * found["job"], 0.1, size
        ),
        at_most("tasks of 2 ranks, a map of 500", "ms each", ms * spread["map"], "an MPI job", ms * found["job"], 0.01),
        Row("no-op of 2 ranks, one at a time", "us", us * found["single no-op"], "lv task", us * found["plain no-op"]),
        Row("no-op of 2 ranks, a map of 500", "us each", us * spread["map no-op"], "lv task", us * spread["plain map"]),
    ]


def job() -> bytes:
    """Start two ranks that do one task; return what they print."""
    command = [find().path, "-n", "2", sys.executable, "-m", "benchmarks.with_ranks"]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60).stdout


def rank() -> None:
    """Be a rank of such a job."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    value = comm.allreduce(5 + comm.rank)
    if comm.rank == 0:
        print(value)


if __name__ == "__main__":
    rank()
