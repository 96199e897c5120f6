"""A map over 100,000 items without a chunksize, against the peers with the best chunksize that a search finds."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks import ours, peers
from benchmarks.harness import Row, at_least, interleave, timed
from benchmarks.work import increment

WORKERS = 4
ITEMS = 100_000
CHUNKSIZES = (250, 500, 1000, 2500, 5000, 12500, 25000)
PYTHON = "HPC_BENCH_OPENMPI_PYTHON"


def measure(quick: bool = False) -> list[Row]:
    """Compare ours with mpi4py.futures under Open MPI (a fresh start every round, not in the time) and the pools."""
    items = list(range(ITEMS))
    expected = [increment(x) for x in items]

    def seconds(call: Callable[[], object]) -> float:
        return timed(call, lambda results: results == expected)

    rounds = 3 if quick else 7
    best: dict[str, int] = {}
    python = open_mpi_python()
    with ExitStack() as stack:
        cases: dict[str, Callable[[], float]] = {}
        for name, pool in stack.enter_context(peers.pools(WORKERS)).items():
            runs = {
                size: lambda pool=pool, size=size: seconds(lambda: list(pool.map(increment, items, chunksize=size)))
                for size in CHUNKSIZES
            }
            found = interleave(runs, 3)
            best[name] = min(found, key=found.__getitem__)
            cases[name] = runs[best[name]]
        if python:
            found = open_mpi(python, CHUNKSIZES, 3)
            best["mpi"] = min(found, key=found.__getitem__)
            cases["mpi"] = lambda: open_mpi(python, (best["mpi"],), 5)[best["mpi"]]
        view = stack.enter_context(ours.cluster(WORKERS)).load_balanced_view()
        cases["ours"] = lambda: seconds(lambda: view.map(increment, items))
        cases["range"] = lambda: seconds(lambda: view.map(increment, range(ITEMS)))
        for name in ("ours", "range"):
            cases[name]()
        durations = interleave(cases, rounds)
    rates = {name: ITEMS / duration for name, duration in durations.items()}
    workload = f"map over {ITEMS:,} items"
    label = "mpi4py.futures, Open MPI"
    if "mpi" in rates:
        note = f"its best chunksize: {best['mpi']}"
        rows = [at_least(workload, "items/s", rates["ours"], label, rates["mpi"], 1, note)]
    else:
        rows = [
            Row(workload, "items/s", rates["ours"], label, note=f"no Open MPI here: {PYTHON} names a Python with one")
        ]
    for name in ("stdlib", "loky"):
        if name in rates:
            note = f"its best chunksize: {best[name]}"
            rows.append(at_least(workload, "items/s", rates["ours"], name, rates[name], 1, note))
    rows.append(Row("the same over a range", "items/s", rates["range"], "stdlib", rates["stdlib"]))
    return rows


def open_mpi_python() -> str:
    """Find a Python whose mpi4py is Open MPI's, or return ''. Asking loads MPI: not in this process."""
    probe = "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; print(MPI.Get_library_version())"
    for python in filter(None, (os.environ.get(PYTHON, ""), sys.executable)):
        answer = subprocess.run([python, "-c", probe], capture_output=True, text=True, check=False)
        if answer.returncode == 0 and "Open MPI" in answer.stdout:
            return python
    return ""


def open_mpi(python: str, chunksizes: tuple[int, ...], repeats: int) -> dict[int, float]:
    """Run the peer with its own mpiexec: one master, as many workers as we have engines."""
    beside = Path(python).parent / "mpiexec"  # not resolved: a venv's bin directory, not the system's
    mpiexec = str(beside) if beside.exists() else "mpiexec"
    command = [mpiexec, "-n", str(WORKERS + 1), python, "-m", "mpi4py.futures", "-m", "benchmarks.mpi_pool"]
    environment = {
        **os.environ,
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    arguments = [str(ITEMS), str(repeats), *map(str, chunksizes)]
    answer = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=120)
    if answer.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {answer.returncode}:\n{answer.stderr[-2000:]}")
    report = json.loads(answer.stdout.splitlines()[-1])
    if report["workers"] != WORKERS or "Open MPI" not in report["library"]:
        raise RuntimeError(f"not the peer that was asked for: {report}")
    return {int(size): duration for size, duration in report["seconds"].items()}
