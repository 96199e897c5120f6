"""What a person waits for: a line of ``%px`` on 64 engines, and ``as_completed`` over 10,000 results.

ipyparallel runs in a Python of its own (``HPC_BENCH_PEERS_PYTHON``; by default this one, where it is installed):
``python -m benchmarks.client`` there measures it and prints JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import as_completed
from contextlib import ExitStack
from typing import Any

from benchmarks import ours, peers
from benchmarks.harness import Row, at_most, interleave, p50, timed
from benchmarks.raw import RawCluster
from benchmarks.work import noop

ENGINES, WORKERS = 64, 4
TASKS = 10_000
# ipyparallel needs a minute to start 64 engines, and seconds for a thousand tasks.
PEER_ENGINES, PEER_TASKS = 16, 1000
PYTHON = "HPC_BENCH_PEERS_PYTHON"


def measure(quick: bool = False) -> list[Row]:
    """Compare ours with a raw broker, the pools, and ipyparallel."""
    peer = ipyparallel()
    rows = _px(peer, quick)
    rows += _completed(peer, quick)
    return rows


def _px(peer: dict[str, float], quick: bool) -> list[Row]:
    from IPython.core.interactiveshell import InteractiveShell

    repeats, rounds = (20, 3) if quick else (50, 5)
    shell = InteractiveShell.instance(colors="nocolor")
    shell.run_line_magic("load_ext", "hpc")
    times: dict[int, dict[str, float]] = {}
    for n in (PEER_ENGINES, ENGINES):
        with ExitStack() as stack:
            rc = stack.enter_context(ours.cluster(n))
            raw = stack.enter_context(RawCluster("ipc", n))
            view = rc[:]
            view.activate()
            cases: dict[str, Callable[[], object]] = {
                "px": lambda: shell.run_line_magic("px", "x = 1"),
                "execute": lambda view=view: view.execute("x = 1"),
                "raw": lambda raw=raw: raw.fan_out(noop, None),
            }
            for call in cases.values():
                call()  # the first line starts IPython on the engines
            if view["x"] != [1] * n:
                raise AssertionError("the engines have another x")
            times[n] = interleave({name: lambda c=call: p50(c, repeats) * 1e3 for name, call in cases.items()}, rounds)
    many, few = times[ENGINES], times[PEER_ENGINES]
    rows = [
        Row(f"%px x = 1 on {ENGINES} engines", "ms", many["px"], "v.execute", many["execute"]),
        Row("v.execute('x = 1') on as many", "ms", many["execute"], "raw broker, no-op on all", many["raw"]),
    ]
    if peer:
        label = f"%px x = 1 on {PEER_ENGINES} engines"
        rows.append(at_most(label, "ms", few["px"], "ipyparallel", peer["px"], 1))
    else:
        rows.append(Row(f"%px x = 1 on {PEER_ENGINES} engines", "ms", few["px"], note=f"no ipyparallel: see {PYTHON}"))
    return rows


def _completed(peer: dict[str, float], quick: bool) -> list[Row]:
    arguments = list(range(TASKS))

    def seconds(submit: Callable[..., Any]) -> float:
        def run() -> list[object]:
            return sorted(future.result() for future in as_completed([submit(noop, i) for i in arguments]))

        return timed(run, lambda values: values == arguments)

    with ExitStack() as stack:
        found = stack.enter_context(peers.pools(WORKERS))
        cases = {name: lambda pool=pool: seconds(pool.submit) for name, pool in found.items()}
        view = stack.enter_context(ours.cluster(WORKERS)).load_balanced_view()
        cases["ours"] = lambda: seconds(view.apply_async)
        cases["get"] = lambda: timed(
            lambda: [ar.get() for ar in [view.apply_async(noop, i) for i in arguments]], lambda v: v == arguments
        )
        for call in cases.values():
            call()
        times = interleave(cases, 3 if quick else 7)
    label = f"as_completed over {TASKS:,}"
    rows = [at_most(label, "s", times["ours"], name, times[name], 1) for name in found]
    rows.append(Row("the same, against get", "s", times["ours"], "get of each", times["get"]))
    if peer:
        scaled = peer["as_completed"] * TASKS / PEER_TASKS
        rows.append(at_most(label, "s", times["ours"], "ipyparallel", scaled, 1, f"it: {PEER_TASKS:,}, times ten"))
    return rows


def ipyparallel() -> dict[str, float]:
    """Have the peer measured; nothing where it is not installed."""
    python = os.environ.get(PYTHON, sys.executable)
    there = subprocess.run([python, "-c", "import ipyparallel"], capture_output=True, check=False)
    if there.returncode:
        return {}
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "IPYTHONDIR": home}
        done = subprocess.run(
            [python, "-m", "benchmarks.client"], env=environment, capture_output=True, text=True, timeout=300
        )
    if done.returncode:
        raise RuntimeError(f"ipyparallel could not be measured:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measure_ipyparallel() -> dict[str, float]:
    import ipyparallel
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance(colors="nocolor")
    found = {}
    with ipyparallel.Cluster(n=PEER_ENGINES, log_level=40) as rc:
        view = rc[:]
        view.block = True
        view.activate()
        shell.run_line_magic("px", "x = 1")
        found["px"] = p50(lambda: shell.run_line_magic("px", "x = 1"), 20) * 1e3
    with ipyparallel.Cluster(n=WORKERS, log_level=40) as rc:
        balanced = rc.load_balanced_view()
        for _ in range(2):  # the first time it sends functions
            began = time.perf_counter()
            results = as_completed([balanced.apply_async(noop, i) for i in range(PEER_TASKS)])
            values = sorted(future.result() for future in results)
            found["as_completed"] = time.perf_counter() - began
            if values != list(range(PEER_TASKS)):
                raise AssertionError("ipyparallel gave other values")
    return found


if __name__ == "__main__":
    print(json.dumps(_measure_ipyparallel()))
