"""Interleaved measurement and the table: what every benchmark here shares."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version


@dataclass(frozen=True)
class Row:
    """One line of the table. ``passed`` is None where the issue sets no target or nothing could be measured.

    ``ratio`` is ours divided by the baseline for times and sizes, and the same for rates: the target says which side
    of it is good.
    """

    workload: str
    unit: str
    ours: float | None
    baseline: str = ""
    theirs: float | None = None
    target: str = ""
    passed: bool | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours over theirs."""
        return self.ours / self.theirs if self.ours is not None and self.theirs else None


def at_most(workload: str, unit: str, ours: float, baseline: str, theirs: float, limit: float, note: str = "") -> Row:
    """Make a row whose ratio must not exceed ``limit``."""
    return Row(workload, unit, ours, baseline, theirs, f"<= {limit:g} x", ours <= limit * theirs, note)


def at_least(workload: str, unit: str, ours: float, baseline: str, theirs: float, limit: float, note: str = "") -> Row:
    """Make a row whose ratio must reach ``limit``."""
    return Row(workload, unit, ours, baseline, theirs, f">= {limit:g} x", ours >= limit * theirs, note)


def under(workload: str, unit: str, ours: float, limit: float, note: str = "") -> Row:
    """Make a row with an absolute limit."""
    return Row(workload, unit, ours, target=f"< {limit:g} {unit}", passed=ours < limit, note=note)


def interleave(cases: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Run all cases in turn, ``rounds`` times, and return each one's median.

    Each round begins with another case, so that none always runs in the wake of the same neighbour.
    """
    samples: dict[str, list[float]] = {name: [] for name in cases}
    names = list(cases)
    for i in range(rounds):
        shift = i % len(names)
        for name in names[shift:] + names[:shift]:
            samples[name].append(cases[name]())
    return {name: statistics.median(values) for name, values in samples.items()}


def p50(call: Callable[[], object], repeats: int) -> float:
    """Call it ``repeats`` times and return the median duration of one call in seconds."""
    clock = time.perf_counter
    durations = []
    for _ in range(repeats):
        start = clock()
        call()
        durations.append(clock() - start)
    return statistics.median(durations)


def timed(call: Callable[[], object], check: Callable[[object], bool]) -> float:
    """Return the duration of one call in seconds, and see that its result is right (outside of the time)."""
    start = time.perf_counter()
    result = call()
    duration = time.perf_counter() - start
    if not check(result):
        raise AssertionError(f"{call!r} gave a wrong result: {str(result)[:200]}")
    return duration


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the processor time that the processes have used so far, all threads, in nanosecond resolution.

    The CPU clock of another process is ``(~pid << 3) | 2`` (clock_getcpuclockid(3)); the ticks in /proc are too coarse
    to see an idle process at all.
    """
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def machine() -> str:
    """Describe where the figures come from."""
    packages = []
    for name in ("hpc", "pyzmq", "msgspec", "loky", "mpi4py", "numpy"):
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            packages.append(f"no {name}")
    load = os.getloadavg()[0]
    when = time.strftime("%Y-%m-%d %H:%M")
    return (
        f"{when}, {os.cpu_count()} cores, load {load:.1f}, Linux {platform.release()}, "
        f"Python {platform.python_version()}, {', '.join(packages)}"
    )


def table(rows: Sequence[Row]) -> str:
    """Lay the rows out for a terminal; the lines are Markdown too."""
    header = ["workload", "unit", "ours", "baseline", "", "ratio", "target", ""]
    lines = [header, [""] * len(header)]
    for row in rows:
        verdict = "" if row.passed is None else ("pass" if row.passed else "MISS")
        verdict = " ".join(filter(None, [verdict, row.note and f"({row.note})"]))
        ours, theirs, ratio = number(row.ours), number(row.theirs), number(row.ratio)
        lines.append([row.workload, row.unit, ours, row.baseline, theirs, ratio, row.target, verdict])
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    lines[1] = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def number(value: float | None) -> str:
    """Write three significant digits, without exponent."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def as_json(rows: Sequence[Row], where: str) -> str:
    """Return rows and machine for a file."""
    return json.dumps({"machine": where, "rows": [{**asdict(row), "ratio": row.ratio} for row in rows]}, indent=1)
