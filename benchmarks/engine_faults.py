"""What a task can do to its engine, its group and everybody else: seconds from the deed until its client knows of it.

The task writes down when it does it; clocks are those of one host.
"""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hpc
from benchmarks import ours
from benchmarks.harness import Row, under
from hpc.errors import EngineLost, RemoteError, SerializationError

MIB = 1 << 20
MEMORY = Path("/sys/fs/cgroup/memory")


def commit(how: str, mark: str) -> Any:
    """Note the time, and do it."""
    import ctypes
    import os
    import sys
    import time

    def note() -> None:
        with open(mark, "w") as file:
            file.write(repr(time.time()))

    class Monster:
        """Cannot be pickled, and says so in the rudest way."""

        def __reduce__(self) -> Any:
            raise SystemExit("not me")

    note()
    if how == "segfault":
        return ctypes.string_at(0)
    if how == "sys.exit":
        sys.exit(3)
    if how == "os._exit":
        os._exit(3)
    if how == "MPI_Abort":
        return hpc.comm().Abort(5), time.sleep(60)  # MPICH's returns
    if how == "memory":
        return len(b"x" * (400 << 20))
    if how == "result":
        return bytearray(150 << 20)  # there is room for one of them
    if how == "monster":
        return Monster()
    nested: list[Any] = []
    for _ in range(1_000_000):
        nested = [nested]
    note()
    return nested


# How, what the client gets, and within which time.
ENDS: tuple[tuple[str, str, type[BaseException], float], ...] = (
    ("a task crashes (segmentation fault)", "segfault", EngineLost, 1.0),
    ("a task calls sys.exit", "sys.exit", RemoteError, 1.0),
    ("a task calls os._exit", "os._exit", EngineLost, 1.0),
    ("a result refuses to be pickled", "monster", RemoteError, 1.0),
    ("a result is nested too deeply to be pickled", "nested", SerializationError, 1.0),
)


def measure() -> list[Row]:
    """Return a row a deed."""
    rows = [under(f"fault: {name}", "s", end_of(how, kind), limit_s) for name, how, kind, limit_s in ENDS]
    rows.append(under("fault: a rank calls MPI_Abort (3 ranks)", "s", aborted(), 10.0))
    rows += want_of_memory()
    rows += flood()
    return rows


def seconds_until(result: Any, kind: type[BaseException], mark: Path) -> float:
    """Wait for the end of a result; return how long after the deed it was known."""
    try:
        result.get(60)
    except kind:
        return time.time() - float(mark.read_text())
    raise AssertionError(f"no {kind.__name__}")


def end_of(how: str, kind: type[BaseException]) -> float:
    """Have a task do it, on an engine of its own."""
    with ours.cluster(2) as rc, tempfile.TemporaryDirectory() as name:
        mark = Path(name) / "mark"
        return seconds_until(rc[1].apply_async(commit, how, str(mark)), kind, mark)


def aborted() -> float:
    """Have one rank of three do it; return when another one's task has ended."""
    with hpc.Cluster(n=3, mpi=True) as rc, tempfile.TemporaryDirectory() as name:
        rc.wait_for_engines(3, timeout=60)
        mark = Path(name) / "mark"
        waiting = rc[0].apply_async(time.sleep, 600)
        rc[1].apply_async(commit, "MPI_Abort", str(mark))
        return seconds_until(waiting, EngineLost, mark)


# ---------------------------------------------------------------- memory


def want_of_memory() -> list[Row]:
    """Have a task, and then a result, take more than there is."""
    cases = (
        ("fault: an engine is killed for want of memory (OOM)", "memory"),
        ("fault: a result is larger than the engine's memory", "result"),
    )
    if not os.access(MEMORY / "memory.limit_in_bytes", os.W_OK):
        return [Row(name, "s", None, note="needs the right to make a cgroup of version 1") for name, _ in cases]
    return [under(name, "s", starved(how), 1.0, "with 256 MiB; from the first byte on") for name, how in cases]


def starved(how: str) -> float:
    """Do it on an engine that has 256 MiB, of which it uses about 50 at rest."""
    with ours.cluster(2) as rc, tempfile.TemporaryDirectory() as name:
        mark = Path(name) / "mark"
        with confined(rc[1].apply_sync(os.getpid), 256 * MIB):
            return seconds_until(rc[1].apply_async(commit, how, str(mark)), EngineLost, mark)


@contextmanager
def confined(pid: int, nbytes: int) -> Iterator[None]:
    """Let a process have so much memory. It must have ended when this ends."""
    place = MEMORY / f"hpc-bench-{os.getpid()}"
    place.mkdir()
    try:
        (place / "memory.limit_in_bytes").write_text(str(nbytes))
        (place / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        remove(place)


def remove(place: Path) -> None:
    """Remove a cgroup, when the kernel has cleared up after the last process in it."""
    for _ in range(500):
        try:
            place.rmdir()
            return
        except OSError:
            time.sleep(0.01)


# ---------------------------------------------------------------- output


def spill(mark: str, n: int, seconds: float) -> int:
    """Print as fast as possible from as many threads and child processes."""
    import os
    import threading
    import time

    until = time.time() + seconds

    def shout() -> None:
        while time.time() < until:
            print("x" * 1000)

    threads = [threading.Thread(target=shout) for _ in range(n)]
    with open(mark, "w") as file:
        file.write(repr(time.time()))
    children = []
    for _ in range(n):
        pid = os.fork()
        if not pid:
            shout()
            os._exit(0)
        children.append(pid)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for pid in children:
        os.waitpid(pid, 0)
    return n


def flood() -> list[Row]:
    """Have a task print without end; return when its client hears of it, and what others wait for a call meanwhile."""
    with ours.cluster(2) as rc, tempfile.TemporaryDirectory() as name:
        mark = Path(name) / "mark"
        other = hpc.connect()
        other[0].apply_sync(abs, 1)
        result = rc[1].apply_async(spill, str(mark), 8, 4.0)
        heard = threading.Thread(target=result.wait)  # somebody who reads what comes
        heard.start()
        first_s = poll(lambda: bool(result.stdout)) - float(mark.read_text())
        slowest_s = 0.0
        while not result.ready():
            start = time.perf_counter()
            other[0].apply_sync(abs, 1)
            slowest_s = max(slowest_s, time.perf_counter() - start)
            time.sleep(0.02)
        heard.join()
        other.close()
    note = "8 threads and 8 child processes print for 4 s"
    return [
        under("fault: a fork bomb of output, its first text", "s", first_s, 1.0, note),
        under("fault: a fork bomb of output, another's slowest no-op", "s", slowest_s, 0.5, note),
    ]


def poll(happened: Callable[[], bool]) -> float:
    """Return when something happens."""
    while not happened():
        time.sleep(0.001)
    return time.time()
