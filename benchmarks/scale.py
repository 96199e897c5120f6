"""A thousand engines: how long they take to register, what tasks get through, what each costs the controller.

They are light (`benchmarks.light`): real connections and the real protocol, in one process. The brain is simulated with
a hundred thousand.
"""

import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import brain
from benchmarks.harness import Row, at_most
from benchmarks.rest import rss

ENGINES = 1000
MANY = 100_000
FLAT = 1.5


def measure(quick: bool = False) -> list[Row]:
    """Measure the thousand, then the hundred thousand."""
    return [*thousand(quick), *hundred_thousand(quick)]


@contextmanager
def controller() -> Iterator[tuple[int, Path]]:
    """Run a controller; give its pid and directory."""
    from hpc.security.connection import cluster_dir

    command = [sys.executable, "-m", "hpc.cli.ipcontroller", "--name", "scale", "--port", "0", "--log-level", "error"]
    process = subprocess.Popen(command)
    directory = cluster_dir("scale")
    while not (directory / "client.json").exists():
        if process.poll() is not None:
            raise RuntimeError(f"the controller ended with status {process.returncode}")
        time.sleep(0.01)
    try:
        yield process.pid, directory
    finally:
        process.terminate()
        process.wait(30)


def thousand(quick: bool) -> list[Row]:
    """Have a thousand engines come, do nothing for many tasks, and go."""
    import hpc

    n_tasks = 20_000 if quick else 100_000
    with controller() as (pid, directory):
        rc = hpc.connect("scale")
        rc.connect()
        before = rss(pid)
        light = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.light", str(directory / "engine.json"), str(ENGINES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert light.stdout is not None
            assert light.stdin is not None
            storm_s = float(light.stdout.readline())
            rc.wait_for_engines(ENGINES, timeout=60)
            each_kb = (rss(pid) - before) * 1000 / ENGINES
            lv = rc.load_balanced_view()
            lv.map(abs, range(ENGINES))
            mapped_s = timed(lambda: lv.map(abs, range(n_tasks)))
            single_s = timed(lambda: [result.get() for result in [lv.apply_async(abs, 1) for _ in range(n_tasks // 5)]])
            all_s = min(timed(lambda: rc[:].apply_sync(abs, 1)) for _ in range(3))
            after_kb = (rss(pid) - before) * 1000 / ENGINES
        finally:
            rc.close()
            light.stdin.close()
            light.wait(30)
    return [
        Row(f"{ENGINES:,} engines: registration storm", "s", storm_s, note="2 connections each, to the last welcome"),
        Row(f"{ENGINES:,} engines: controller's memory for each", "kB", each_kb, note=f"{after_kb:.0f} after the work"),
        Row(f"{ENGINES:,} engines: map of no-ops", "tasks/s", n_tasks / mapped_s),
        Row(f"{ENGINES:,} engines: single no-ops", "tasks/s", n_tasks / 5 / single_s),
        Row(f"{ENGINES:,} engines: no-op on all", "ms", all_s * 1e3),
    ]


def timed(call: object) -> float:
    """Return the duration of a call in seconds."""
    start = time.perf_counter()
    call()  # type: ignore[operator]
    return time.perf_counter() - start


def hundred_thousand(quick: bool) -> list[Row]:
    """Have the brain handle events with a hundred thousand engines, and with a hundred."""
    rows = []
    for name, (case, n_events) in brain.CASES.items():
        if case in (brain.pieces, brain.direct, brain.stealing):
            continue  # of their tasks there are too few for so many engines
        events = n_events // (8 if quick else 2)
        few, many = (min(once(case, n, events) for _ in range(2)) for n in (100, MANY))
        rows.append(at_most(f"{name}, {MANY:,} engines", "us", many, "100 engines", few, FLAT))
    return rows


def once(case: Callable[[brain.World, int], float], n_engines: int, n_events: int) -> float:
    """Return the microseconds of an event; without the garbage collector, which would look at all engines each time."""
    gc.disable()
    try:
        return case(brain.World(n_engines), n_events)
    finally:
        gc.enable()
        gc.collect()
