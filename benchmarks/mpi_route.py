"""Arrays to and from the ranks of a group, against plain MPI between the same ranks and the one transfer in or out.

``python -m benchmarks.mpi_route NAME`` does the same with the engines of a cluster that runs, over several hosts too.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import hpc
from benchmarks.harness import Row, at_most, interleave, machine, table

LIMIT = 1.3
# Receive buffers are new ones each time, as they are when an array arrives under a name.
PLAIN = """
import time
import numpy as np
from mpi4py import MPI

def plain(op, n):
    counts = [n // size + (r < n % size) for r in range(size)]
    whole = np.ones(n) if rank == 0 or op in ("bcast", "reduce") else None
    mine = np.ones(counts[rank])
    comm.Barrier()
    started = time.perf_counter()
    if op == "scatter":
        mine = np.empty(counts[rank])
        comm.Scatterv([whole, counts], mine)
    elif op == "gather":
        whole = np.empty(n) if rank == 0 else None
        comm.Gatherv(mine, [whole, counts])
    elif op == "bcast":
        whole = whole if rank == 0 else np.empty(n)
        comm.Bcast(whole)
    else:
        total = np.empty(n) if rank == 0 else None
        comm.Reduce(whole, total)
    comm.Barrier()
    return time.perf_counter() - started
"""


def measure(quick: bool = False) -> list[Row]:
    """Start four ranks on this machine and measure."""
    with hpc.Cluster(n=4, launcher="mpiexec", name="mpi-route") as rc:
        return compare(rc, (64,) if quick else (64, 256), 3 if quick else 7)


def compare(rc: hpc.RemoteController, sizes_mib: tuple[int, ...], rounds: int) -> list[Row]:
    """Measure with the engines of the first group that has several ranks."""
    import numpy as np

    group = next(group for group in rc.groups if len(group) > 1)
    v, root = group.view, rc[group.root]
    v.route = "mpi"
    v.execute(PLAIN)
    rows = []
    for mib in sizes_mib:
        n = (mib << 20) // 8
        whole = np.random.default_rng(1).random(n)
        v.push({"full": whole})
        v.scatter("part", whole)
        root.push({"out": whole})

        def plain(op: str, n: int = n) -> float:
            v.execute(f"seconds = plain({op!r}, {n})")
            return float(max(v["seconds"]))

        cases: dict[str, Callable[[], float]] = {
            "scatter": lambda whole=whole: seconds(lambda: v.scatter("x", whole)),
            "bcast": lambda whole=whole: seconds(lambda: v.push({"y": whole})),
            "gather": lambda: seconds(lambda: v.gather("part")),
            "reduce": lambda: seconds(lambda: v.reduce("full", "sum")),
            "in": lambda whole=whole: seconds(lambda: root.push({"one": whole})),
            "out": lambda: seconds(lambda: root["out"]),
        }
        cases |= {f"plain {op}": lambda op=op: plain(op) for op in ("scatter", "bcast", "gather", "reduce")}
        found = interleave(cases, rounds)
        for op, way in (("scatter", "in"), ("bcast", "in"), ("gather", "out"), ("reduce", "out")):
            alone = found[f"plain {op}"]
            note = f"MPI {1e3 * alone:.0f} ms, {way} {1e3 * found[way]:.0f} ms, {len(group.hosts)} hosts"
            workload = f"{op} {mib} MiB, {len(group)} ranks"
            rows.append(at_most(workload, "s", found[op], f"MPI + {way}", alone + found[way], LIMIT, note))
    return rows


def seconds(call: Callable[[], Any]) -> float:
    """Return how long a call took."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> int:
    """Measure with a cluster that runs."""
    with hpc.connect(sys.argv[1]) as rc:
        rc.wait_for_engines(2, timeout=60)
        print(machine(), table(compare(rc, (64, 256), 5)), sep="\n\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
