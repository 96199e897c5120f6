"""64 engines: what they cost when idle, what a no-op on all of them takes, and how soon a death is known."""

import os
import signal
import statistics
import time
from contextlib import ExitStack
from typing import Any

import psutil

from benchmarks import ours
from benchmarks.harness import Row, at_most, cpu_seconds, interleave, p50, under
from benchmarks.raw import RawCluster
from benchmarks.work import noop, sleep

ENGINES = 64
KILLS = 5


def measure(quick: bool = False) -> list[Row]:
    """Start 64 engines and 64 raw workers; look at them idle, then busy, then dying."""
    with ours.tcp_cluster(1) as far:
        alone = rss(far[0].apply_sync(os.getpid))
    with ExitStack() as stack:
        raw = stack.enter_context(RawCluster("tcp", ENGINES))
        rc = stack.enter_context(ours.cluster(ENGINES))
        controller, engines, others = ours.processes(rc)
        rows = at_rest(raw, [controller, *engines, *others], 3 if quick else 8)
        rows = [
            *memory(controller, engines, raw),
            under("RSS of an engine that connects by TCP", "MB", alone, 35),
            *rows,
        ]
        rows += on_all(rc, raw, 3 if quick else 9)
        rows += killed(rc)
    return rows


def rss(pid: int) -> float:
    """Return the resident size in MB, which are 10^6 bytes; shared pages count in full."""
    return float(psutil.Process(pid).memory_info().rss / 1e6)


def memory(controller: int, engines: list[int], raw: RawCluster) -> list[Row]:
    """Read resident sizes."""
    sizes = [rss(pid) for pid in engines]
    unshared = statistics.median(psutil.Process(pid).memory_full_info().uss for pid in engines) / 1e6
    return [
        _beside(under("controller's RSS, 64 engines", "MB", rss(controller), 45), "raw broker", rss(raw.pids[0])),
        _beside(
            under("RSS of an idle engine, the largest", "MB", max(sizes), 35, f"unshared: {unshared:.1f} MB"),
            "raw worker",
            statistics.median(map(rss, raw.pids[1:])),
        ),
    ]


def at_rest(raw: RawCluster, pids: list[int], seconds: float) -> list[Row]:
    """Add up the processor time of everything, this client included, while nothing is asked for."""
    time.sleep(1)  # what just happened may have its echo
    families = {"ours": [*pids, os.getpid()], "raw": raw.pids}
    before = {name: cpu_seconds(family) for name, family in families.items()}
    start = time.perf_counter()
    time.sleep(seconds)
    duration = time.perf_counter() - start
    used = {name: 100 * (cpu_seconds(families[name]) - before[name]) / duration for name in families}
    row = under(f"CPU at rest, all {len(pids) + 1} processes", "% of a core", used["ours"], 1)
    return [_beside(row, "raw broker and workers", used["raw"])]


def on_all(rc: Any, raw: RawCluster, rounds: int) -> list[Row]:
    """Run a no-op on every engine."""
    view = rc[:]
    expected = [1] * ENGINES
    calls = {
        "ours": lambda: view.apply_sync(noop, 1),
        "each": lambda: raw.each(noop, 1),
        "fan-out": lambda: raw.fan_out(noop, 1),
    }
    for name, call in calls.items():
        if any(call() != expected for _ in range(5)):
            raise AssertionError(f"{name} gave a wrong result")
    ms = interleave({name: lambda call=call: 1e3 * p50(call, 20) for name, call in calls.items()}, rounds)
    workload = f"no-op on all {ENGINES}"
    return [
        at_most(workload, "ms", ms["ours"], "raw broker, a message each", ms["each"], 1.5),
        at_most(workload, "ms", ms["ours"], "raw broker that fans out", ms["fan-out"], 1.5),
    ]


def killed(rc: Any) -> list[Row]:
    """Kill engines, some at work and some idle, and wait until the client knows."""
    victims = rc.ids[-2 * KILLS :]
    pids = dict(zip(victims, rc[victims].apply_sync(os.getpid), strict=True))
    at_work = [_kill_at_work(rc, victim, pids[victim]) for victim in victims[:KILLS]]
    idle = [_kill_idle(rc, victim, pids[victim]) for victim in victims[KILLS:]]
    return [
        under("engine killed at work, task raises after", "ms", max(at_work), 50, f"worst of {KILLS}"),
        under("idle engine killed, gone from rc.ids after", "ms", max(idle), 50, f"worst of {KILLS}"),
    ]


def _kill_at_work(rc: Any, victim: int, pid: int) -> float:
    from hpc.errors import EngineLost

    result = rc[victim].apply_async(sleep, 60)
    time.sleep(0.2)  # it has begun
    start = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    try:
        result.get(timeout=10)
    except EngineLost:
        return 1e3 * (time.perf_counter() - start)
    raise AssertionError("the task of a dead engine gave a result")


def _kill_idle(rc: Any, victim: int, pid: int) -> float:
    start = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    while victim in rc.ids:
        if time.perf_counter() - start > 10:
            raise AssertionError("the client never knew")
        time.sleep(0.0005)
    return 1e3 * (time.perf_counter() - start)


def _beside(row: Row, baseline: str, theirs: float) -> Row:
    return Row(row.workload, row.unit, row.ours, baseline, theirs, row.target, row.passed, row.note)
