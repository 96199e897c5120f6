"""From a fault to the client's knowledge of it: engines that die, stop or raise; hosts and links with `--network`.

What ends behind a wire that is silent is known by heartbeats only, so those rows take a minute; they need root, and are
left out with ``--quick``.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hpc
from benchmarks import engine_faults, ours
from benchmarks.harness import Row, under
from benchmarks.work import sleep

ROUNDS = 3


def measure(quick: bool = False) -> list[Row]:
    """Return a row a fault."""
    rows = []
    for name, limit_s, fault in ENGINE_FAULTS:
        found = [engine_fault(fault) for _ in range(1 if quick else ROUNDS)]
        rows.append(under(f"fault: {name}", "s", statistics.median(found), limit_s))
    rows.append(under("fault: a rank is killed (3 ranks)", "s", rank_killed(), 10.0))
    rows.append(under("fault: a client is killed (the controller forgets it)", "s", client_killed(), 3.0))
    rows += engine_faults.measure()
    if not quick:
        rows += network()
    return rows


def kill(pid: int) -> None:
    """SIGKILL."""
    os.kill(pid, signal.SIGKILL)


def crash(pid: int) -> None:
    """SIGSEGV."""
    os.kill(pid, signal.SIGSEGV)


ENGINE_FAULTS: tuple[tuple[str, float, Callable[[int], None]], ...] = (
    ("an engine is killed (SIGKILL)", 1.0, kill),
    ("an engine crashes (SIGSEGV)", 1.0, crash),
)


def engine_fault(fault: Callable[[int], None]) -> float:
    """Do something to an engine with a task; return how long its result takes to end."""
    with ours.cluster(2) as rc:
        pid = rc[1].apply_sync(os.getpid)
        return until_lost(rc[1].apply_async(sleep, 600), lambda: fault(pid))


def until_lost(result: Any, fault: Callable[[], object]) -> float:
    """Return the seconds from the fault to the end of the result."""
    time.sleep(0.2)
    start = time.perf_counter()
    fault()
    try:
        result.get(120)
    except hpc.errors.EngineLost:
        return time.perf_counter() - start
    raise AssertionError("the engine is not lost")


def rank_killed() -> float:
    """Kill one rank of a group; return how long a task on another takes to end."""
    with hpc.Cluster(n=3, mpi=True) as rc:
        rc.wait_for_engines(3, timeout=60)
        pid = rc[1].apply_sync(os.getpid)
        return until_lost(rc[0].apply_async(sleep, 600), lambda: kill(pid))


def client_killed() -> float:
    """Kill a client of this host; return when the controller does not count it any more."""
    with ours.cluster(1) as rc:
        program = "import hpc, time; rc = hpc.connect(timeout=20); rc.ids; print('up', flush=True); time.sleep(600)"
        victim = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert victim.stdout is not None
        victim.stdout.readline()
        n = rc._link.request(lambda number: _status(number))["clients"]
        start = time.perf_counter()
        victim.kill()
        while rc._link.request(lambda number: _status(number))["clients"] == n:
            time.sleep(0.005)
        duration = time.perf_counter() - start
        victim.wait(5)
        victim.stdout.close()
        return duration


def _status(number: int) -> Any:
    from hpc.wire import messages as m

    return m.Query(number, "status")


def network() -> list[Row]:
    """Cut the wire to a host: for good, and for 20 s."""
    from tests.faults import network as net
    from tests.system.conftest import Processes

    if why := net.missing():
        return [Row("fault: a host is gone for good", "s", None, note=f"could not run: {why}")]
    rows = []
    with tempfile.TemporaryDirectory(prefix="hpc-bench-net-") as name:
        root = Path(name)
        home, marks = Path(os.environ["HPC_DIR"]), root / "marks"
        marks.mkdir()
        processes, wires = Processes(home, root), net.Network(root)
        try:
            across = net.Across(wires, processes, 1)
            across.engine("h1")
            watcher = across.run("h1", "-c", WATCH)
            assert watcher.stdout is not None
            watcher.stdout.readline()
            start = time.perf_counter()
            wires.cut()
            states = {}
            for _ in range(2):
                said = json.loads(watcher.stdout.readline())
                states[said] = time.perf_counter() - start
            rows.append(under("fault: a host is gone, reported unreachable", "s", states["unreachable"], 20.0))
            rows.append(under("fault: a host is gone for good, its tasks end", "s", states["lost"], 60.0))
        finally:
            processes.clean_up()
            for process in processes._spawned:
                if process.stdin is not None:
                    process.stdin.close()
            wires.close()
    return rows


WATCH = """
import hpc, json, time
rc = hpc.RemoteController(name="across")
rc.wait_for_engines(2, timeout=30)
far = next(i for i in rc.ids if rc[i].apply_sync(lambda: __import__("socket").gethostname()) == "h2")
result = rc[far].apply_async(time.sleep, 600)
print("up", flush=True)
while rc._link.roster.engines[far].state != "unreachable":
    time.sleep(0.01)
print(json.dumps("unreachable"), flush=True)
try:
    result.get()
except hpc.errors.EngineLost:
    print(json.dumps("lost"), flush=True)
"""
