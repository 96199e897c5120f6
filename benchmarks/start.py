"""From nothing imported to a first result from every engine; and what `import hpc` costs.

Every measurement is a fresh interpreter: ``python -m benchmarks.start SYSTEM N`` prints its own seconds, counted from
before the first import of the system under test.
"""

import statistics
import subprocess
import sys
import time

from benchmarks.harness import Row, at_most, interleave, under

# Most of hpc is imported when it is used: the second line imports all that a client needs.
IMPORTS = ("import hpc", "import hpc; hpc.RemoteController; hpc.Cluster", "import zmq")


def measure(quick: bool = False) -> list[Row]:
    """Compare ours with loky and with a raw broker and its workers, for 4 and 32; then the imports."""
    rows = []
    for n, limit, rounds in ((4, 1.25, 3 if quick else 7), (32, 1.0, 1 if quick else 3)):
        found = interleave({name: lambda name=name, n=n: fresh(name, n) for name in SYSTEMS}, rounds)
        workload = f"start {n} engines"
        rows.append(at_most(workload, "s", found["ours"], "loky", found["loky"], limit))
        rows.append(Row(workload, "s", found["ours"], "raw broker (forks)", found["raw"]))
        if n == 4:
            rows.append(under(workload, "s", found["ours"], 0.5))
    imports = interleave({code: lambda code=code: import_ms(code) for code in IMPORTS}, 3 if quick else 11)
    hpc, client, zmq = imports.values()
    rows.append(under("import hpc, above import zmq", "ms", hpc - zmq, 60, f"{hpc:.0f} ms and {zmq:.0f} ms"))
    rows.append(Row("the same with client and cluster", "ms", client - zmq, note=f"{client:.0f} ms"))
    return rows


def fresh(system: str, n: int) -> float:
    """Measure one start in an interpreter of its own."""
    command = [sys.executable, "-m", "benchmarks.start", system, str(n)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=120)
    return float(answer.stdout.split()[-1])


def import_ms(code: str) -> float:
    """Run it in a fresh interpreter."""
    program = f"import time; t = time.perf_counter(); {code}; print(time.perf_counter() - t)"
    return statistics.median(
        1e3 * float(subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True).stdout)
        for _ in range(3)
    )


def start_ours(n: int) -> float:
    """Start a local cluster; the time ends with the results."""
    start = time.perf_counter()
    import os

    import hpc

    with hpc.Cluster(n=n) as rc:
        rc.wait_for_engines(n, timeout=60)
        pids = rc[:].apply_sync(os.getpid)
        duration = time.perf_counter() - start
    check(pids, n)
    return duration


def start_loky(n: int) -> float:
    """Start loky's pool. It has no way to address a worker: short tasks are fed until each one has answered."""
    start = time.perf_counter()
    import concurrent.futures

    import loky

    from benchmarks.work import pid_after

    with loky.ProcessPoolExecutor(n) as pool:
        pids: set[int] = set()
        waiting = {pool.submit(pid_after, 0.001) for _ in range(2 * n)}
        while len(pids) < n:
            done, waiting = concurrent.futures.wait(waiting, return_when="FIRST_COMPLETED")
            pids |= {future.result() for future in done}
            waiting |= {pool.submit(pid_after, 0.001) for _ in done}
        duration = time.perf_counter() - start
    check(list(pids), n)
    return duration


def start_raw(n: int) -> float:
    """Start the raw broker, whose workers are forked before it has threads."""
    start = time.perf_counter()
    from benchmarks.raw import RawCluster
    from benchmarks.work import pid_after

    with RawCluster("tcp", n) as raw:
        pids = raw.each(pid_after, 0)
        duration = time.perf_counter() - start
    check(pids, n)
    return duration


def check(pids: list[int] | list[object], n: int) -> None:
    """See that every worker has answered once."""
    if len(set(pids)) != n:
        raise AssertionError(f"{len(set(pids))} processes answered, not {n}: {pids}")


SYSTEMS = {"ours": start_ours, "loky": start_loky, "raw": start_raw}

if __name__ == "__main__":
    print(SYSTEMS[sys.argv[1]](int(sys.argv[2])))
