"""Arrays on one host, steady and for the first time, against memcpy; what broadcasting adds, what the controller holds.

Everything is interleaved, and every array is compared with what it must be, outside of the time.
"""

import mmap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ours
from benchmarks.harness import Row, at_least, at_most, interleave, under

MIB = 1 << 20
# Sizes, and what share of a memcpy is asked for.
TARGETS = {1: 0.4, 64: 0.8, 512: 0.8}
WHOLE_MIB, BROADCAST_MIB = 512, 128
# A source and a target that have not been used for this many bytes of other copies: warm in memory, not in the caches.
RING_NBYTES = 256 * MIB


class Ring:
    """Buffers of one size that are used in turns, so that what is small does not stay in the processor's caches."""

    def __init__(self, nbytes: int) -> None:
        rng = np.random.default_rng(nbytes)
        one = rng.integers(0, 255, nbytes, dtype=np.uint8)
        self.buffers = [one + np.uint8(i) for i in range(max(1, RING_NBYTES // nbytes))]
        self.next = 0

    def take(self) -> Any:
        """Return the next one."""
        self.next = (self.next + 1) % len(self.buffers)
        return self.buffers[self.next]


def measure(quick: bool = False) -> list[Row]:
    """Start eight engines and move arrays."""
    rows: list[Row] = []
    with ours.cluster(8) as rc:
        controller, _, _ = ours.processes(rc)
        rc[:].execute("import numpy")
        before = peak(controller)
        for size, target in TARGETS.items():
            rows += there_and_back(rc, size, target, rounds(size, quick))
        rows += divided(rc, 3 if quick else 7)
        rows += broadcast(rc, 3 if quick else 7)
        held = (peak(controller) - before) / MIB
        rows.append(under("controller's peak memory over all this", "MiB", held, 20))
    rows += first_time(3 if quick else 7)
    return rows


def rounds(size: int, quick: bool) -> int:
    n = {1: 200, 64: 15, 512: 7}[size]
    return max(3, n // 4) if quick else n


def there_and_back(rc: Any, size: int, target: float, n: int) -> list[Row]:
    """Push to one engine and pull from it."""
    nbytes, engine = size * MIB, rc[0]
    sources, targets = Ring(nbytes), Ring(nbytes)
    there = sources.take()
    engine.push({"pulled": there})
    pushed: Any = None

    def push() -> None:
        nonlocal pushed
        pushed = sources.take()
        engine.push({"pushed": pushed})

    def pull() -> Any:
        return engine.pull("pulled")

    def copy() -> None:
        np.copyto(targets.take(), sources.take())

    for _ in range(5):
        push()
        pull()
        settle(rc)
    seconds = interleave(
        {
            "memcpy": lambda: clock(copy),
            "push": lambda: clock(push),
            "pull": lambda: clock(pull, there),
            "no-op": lambda: clock(lambda: engine.push({"n": 0})),
        },
        n,
    )
    same(engine.pull("pushed"), pushed)
    rate = {name: nbytes / duration / 1e9 for name, duration in seconds.items()}
    note = f"{1e6 * seconds['memcpy']:,.0f} us; pushing a number, in between: {1e6 * seconds['no-op']:,.0f} us"
    return [
        at_least(f"{name} {size} MiB", "GB/s", rate[name], "memcpy, warm", rate["memcpy"], target, note)
        for name in ("push", "pull")
    ]


def settle(rc: Any) -> None:
    """Wait until the client has made warm what it was asked for repeatedly."""
    pool = rc._link.freight.outgoing.pool
    while pool.wanted:
        time.sleep(0.01)


def divided(rc: Any, n: int) -> list[Row]:
    """Scatter over four engines, and gather into one array."""
    view, array = rc[:4], Ring(WHOLE_MIB * MIB).take()
    target = np.ones_like(array)

    def scatter() -> None:
        view.scatter("part", array)

    def look() -> None:
        view.execute("part.max()")

    for _ in range(5):
        scatter()
        settle(rc)
    # What is gathered is the engines' own, as results are. Pages of what came by scatter have to be mapped first.
    view.execute("own = part.copy()")
    for _ in range(2):
        view.gather("own")
    seconds = interleave(
        {
            "memcpy": lambda: clock(lambda: np.copyto(target, array)),
            "gather": lambda: clock(lambda: view.gather("own"), array),
            "scatter": lambda: clock(scatter),
        },
        n,
    )
    rate = {name: array.nbytes / duration / 1e9 for name, duration in seconds.items()}
    rows = [
        at_least(f"{name} {WHOLE_MIB} MiB, 4 engines", "GB/s", rate[name], "memcpy, warm", rate["memcpy"], 0.8)
        for name in ("scatter", "gather")
    ]

    def first_look() -> float:
        scatter()
        return clock(look)

    seconds = interleave({"first": first_look, "second": lambda: clock(look)}, 3)
    return [*rows, Row("first look at it", "ms", 1e3 * seconds["first"], "second look", 1e3 * seconds["second"])]


def broadcast(rc: Any, n: int) -> list[Row]:
    """Push to eight engines and to one."""
    array = Ring(BROADCAST_MIB * MIB).take()
    one, eight = rc[:1], rc[:8]
    for view in (one, eight) * 2:
        view.broadcast("b", array)
    seconds = interleave(
        {
            "one": lambda: clock(lambda: one.broadcast("b", array)),
            "eight": lambda: clock(lambda: eight.broadcast("b", array)),
        },
        n,
    )
    for value in eight.pull("b"):
        same(value, array)
    workload = f"broadcast {BROADCAST_MIB} MiB to 8"
    return [at_most(workload, "ms", 1e3 * seconds["eight"], "to one", 1e3 * seconds["one"], 1.3)]


def first_time(n: int) -> list[Row]:
    """Push 64 MiB as the first thing that a cluster is asked for."""
    array = Ring(64 * MIB).take()

    def copy() -> None:
        memory = mmap.mmap(-1, array.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
        np.copyto(np.frombuffer(memory, np.uint8), array)

    def fresh() -> float:
        copy()  # a virtual machine may have to get memory from its host first, which takes ten times as long
        return clock(copy)

    def first() -> float:
        with ours.cluster(1) as rc:
            rc[0].execute("import numpy; numpy.ones(2**27, numpy.uint8)")  # the same for the engine's processor
            copy()
            duration = clock(lambda: rc[0].push({"first": array}))
            same(rc[0].pull("first"), array)
        return duration

    seconds = interleave({"fresh": fresh, "first": first}, n)
    rate = {name: array.nbytes / duration / 1e9 for name, duration in seconds.items()}
    return [
        at_least("push 64 MiB, the very first", "GB/s", rate["first"], "memcpy, fresh huge pages", rate["fresh"], 0.8)
    ]


def clock(call: Callable[[], Any], wanted: Any = None) -> float:
    """Return the duration of a call in seconds; look at what it returns after that."""
    start = time.perf_counter()
    result = call()
    duration = time.perf_counter() - start
    if wanted is not None:
        same(result, wanted)
    return duration


def same(found: Any, wanted: Any) -> None:
    """See that an array came as it was sent, and can be written to."""
    if not (found.flags.writeable and np.array_equal(found, wanted)):
        raise AssertionError("an array arrived that is not the one that was sent")


def peak(pid: int) -> int:
    """Return the largest resident size that a process ever had, in bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1])
