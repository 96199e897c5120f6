"""Arrays on one host: ours and each peer by turns, in one run."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from benchmarks import ours
from benchmarks.array_peers import N_WORKERS, NAMES
from benchmarks.arrays import MIB, Ring, clock, settle
from benchmarks.harness import Row, at_least, interleave

# Names a Python that has the peers: their packages are not to mix with ours, and some have commands of the same name.
PYTHON = "HPC_BENCH_PEERS_PYTHON"
# What is moved, and what share of the best peer's rate is asked for.
WORK = (("push", 1), ("push", 64), ("pull", 64), ("scatter", 256), ("gather", 256), ("broadcast", 64))
FASTER = 3
START_S = 60


class AbsentError(Exception):
    """A peer is not there; the text says why."""


class Process:
    """A peer in a process of its own."""

    def __init__(self, name: str) -> None:
        python = os.environ.get(PYTHON) or sys.executable
        command = [python, "-m", "benchmarks.array_peers", name]
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        except OSError as error:
            raise AbsentError(str(error)) from None

    def answer(self) -> Any:
        """Return what it says next; whatever else it prints is passed over."""
        for line in self.process.stdout:  # type: ignore[union-attr]
            with suppress(ValueError):
                return json.loads(line)
        raise AbsentError(f"not in this Python ({PYTHON} names another)")

    def seconds(self, what: str, nbytes: int) -> float:
        """Have it move so many bytes."""
        self.process.stdin.write(json.dumps([what, nbytes]) + "\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        return float(self.answer())

    def end(self) -> None:
        """End it, with all that it has started."""
        family = [self.process]
        with suppress(psutil.NoSuchProcess):
            family += psutil.Process(self.process.pid).children(recursive=True)
        self.process.stdin.close()  # type: ignore[union-attr]
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        self.process.stdout.close()  # type: ignore[union-attr]


@contextmanager
def running(name: str) -> Iterator[Process]:
    """Start a peer, and end it."""
    peer = Process(name)
    try:
        peer.answer()
        yield peer
    finally:
        peer.end()


def measure(quick: bool = False) -> list[Row]:
    """Start ours, and beside it one peer after the other."""
    rows: list[Row] = []
    with ours.cluster(N_WORKERS) as rc:
        rc[:].execute("import numpy")
        for name in NAMES:
            try:
                with running(name) as peer:
                    rows += compare(rc, name, peer, 1 if quick else 5)
            except AbsentError as error:
                rows.append(Row(f"arrays of {name}", "", None, name, note=str(error)))
    return rows


def compare(rc: Any, name: str, peer: Process, n: int) -> list[Row]:
    """Move everything with both, in turns."""
    rows = []
    for what, size in WORK:
        nbytes = size * MIB
        array = Ring(nbytes).take()
        cases = {"ours": lambda what=what, array=array: move(rc, what, array)}
        cases["theirs"] = lambda what=what, nbytes=nbytes: peer.seconds(what, nbytes)
        if what in ("pull", "gather"):
            place(rc, what, array)
            peer.seconds({"pull": "push", "gather": "scatter"}[what], nbytes)
        for each in ("ours", "theirs", "ours", "ours"):  # before it counts: what is moved first finds nothing warm
            cases[each]()
            settle(rc)
        seconds = interleave(cases, n)
        rates = {each: nbytes / duration / 1e9 for each, duration in seconds.items()}
        workload = f"{what} {size} MiB" + ("" if what in ("push", "pull") else f", {N_WORKERS} engines")
        rows.append(at_least(workload, "GB/s", rates["ours"], name, rates["theirs"], FASTER))
    return rows


def place(rc: Any, what: str, array: Any) -> None:
    """Have the engines hold what they are to be asked for as results are: in memory of their own."""
    if what == "pull":
        rc[0].push({"x": array})
        rc[0].execute("x = x.copy()")
    else:
        rc[:].scatter("part", array)
        rc[:].execute("part = part.copy()")


def move(rc: Any, what: str, array: Any) -> float:
    """Return the seconds that ours takes."""
    call = {
        "push": lambda: rc[0].push({"x": array}),
        "pull": lambda: rc[0].pull("x"),
        "scatter": lambda: rc[:].scatter("part", array),
        "gather": lambda: rc[:].gather("part"),
        "broadcast": lambda: rc[:].push({"x": array}),
    }[what]
    return clock(call, array if what in ("pull", "gather") else None)
