"""Floods: too many tasks, too many results, too much text. Memory stays bounded, and others are served."""

import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import hpc
from tests.system.conftest import Processes, cli, status, wait_until

from .table import fault

MIB = 1 << 20
RESULT_NBYTES = 100_000


def memory(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def start(n: int) -> tuple[int, list[int]]:
    """Start a cluster; return the pids of its controller and engines."""
    cli("start", "-n", str(n), "--port", "0")
    answer = status()
    return answer["controller"]["pid"], [engine["pid"] for engine in answer["engines"]]


def end(processes: Processes, *clients: hpc.RemoteController) -> None:
    for rc in clients:
        rc.close()
    cli("stop")
    processes.assert_none_left()


def stable(value: Any, what: str, pause_s: float = 0.3) -> Any:
    """Return a value once it does not change any more."""
    seen = [value()]

    def same() -> bool:
        time.sleep(pause_s)
        seen.append(value())
        return bool(seen[-1] == seen[-2])

    wait_until(same, what, 40.0)
    return seen[-1]


def serves(rc: hpc.RemoteController, engine: int) -> float:
    """Return how long a round of small things takes a client."""
    began = time.monotonic()
    rc[engine]["x"] = 1
    assert rc[engine]["x"] == 1
    assert rc[engine].apply_sync(abs, -3) == 3
    return time.monotonic() - began


FLOOD = """
import sys, time, hpc
rc = hpc.connect()
def busy():
    import time
    time.sleep(600)
rc[0].apply_async(busy)
n = 0
while True:
    rc[0].apply_async(abs, n)
    n += 1
    if n % 1000 == 0:
        print(n, flush=True)
"""


@fault("a client submits tasks without end", "it waits in submitting; the controller's memory is bounded; others go on")
def test_endless_submission(processes: Processes, tmp_path: Path) -> None:
    controller, _ = start(2)
    before = memory(controller)
    said = tmp_path / "said"
    with said.open("w") as file:
        flood = processes.spawn(sys.executable, "-c", FLOOD + "#")
        assert flood.stdout is not None
        os.set_blocking(flood.stdout.fileno(), False)

        def submitted() -> int:
            for line in flood.stdout or ():
                file.write(line)
            file.flush()
            return int((said.read_text().split() or ["0"])[-1])

        wait_until(lambda: submitted() > 50_000, "many tasks", 60.0)
        n = stable(submitted, "that it waits")
    assert n < 400_000
    assert memory(controller) - before < 150 * MIB
    assert memory(flood.pid) < 900 * MIB
    rc = hpc.connect()
    assert serves(rc, 1) < 2
    flood.kill()
    end(processes, rc)


LAZY = f"""
import hpc, os, signal
rc = hpc.connect()
lv = rc.load_balanced_view()
result = lv.map_async(lambda n: bytes([n % 256]) * {RESULT_NBYTES}, range(20_000), chunksize=10)
print("submitted", flush=True)
values = result.get()
assert all(value == bytes([n % 256]) * {RESULT_NBYTES} for n, value in enumerate(values))
print("fetched", len(values), flush=True)
"""


@fault(
    "a client does not take its results",
    "the controller's memory is bounded, others go on, and it gets all of them when it does",
)
def test_results_that_nobody_takes(processes: Processes) -> None:
    controller, engines = start(2)
    before = memory(controller)
    lazy = processes.spawn(sys.executable, "-c", LAZY)
    assert lazy.stdout is not None
    assert lazy.stdout.readline() == "submitted\n"
    os.kill(lazy.pid, signal.SIGSTOP)
    stable(lambda: (memory(controller) - before) // (8 * MIB), "that it holds no more")
    assert memory(controller) - before < 400 * MIB
    assert all(memory(engine) < 300 * MIB for engine in engines)
    rc = hpc.connect()
    assert serves(rc, 1) < 2
    assert rc.load_balanced_view().map(abs, range(-100, 0)) == list(range(100, 0, -1))
    os.kill(lazy.pid, signal.SIGCONT)
    assert lazy.stdout.readline() == "fetched 20000\n"
    lazy.wait(20)
    end(processes, rc)


TALK = """
import hpc, signal, os
rc = hpc.connect()
def talk(n):
    for _ in range(n):
        print("x" * 1023)
    return n
result = rc[0].apply_async(talk, 1_000_000)
print("submitted", flush=True)
assert result.get() == 1_000_000
print("printed", len(result.stdout) >> 20, flush=True)
"""


@pytest.mark.parametrize("stopped", [False, True], ids=["reads", "does-not-read"])
@fault("a task prints 1 GB", "memory is bounded everywhere; the text that is kept of it says what is left out")
def test_a_gigabyte_of_text(processes: Processes, stopped: bool) -> None:
    controller, engines = start(2)
    before = memory(controller)
    talker = processes.spawn(sys.executable, "-c", TALK)
    assert talker.stdout is not None
    assert talker.stdout.readline() == "submitted\n"
    if stopped:
        os.kill(talker.pid, signal.SIGSTOP)
        stable(lambda: (memory(controller) - before) // (8 * MIB), "that it holds no more")
        rc = hpc.connect()
        assert serves(rc, 1) < 2
        rc.close()
        assert memory(controller) - before < 300 * MIB
        os.kill(talker.pid, signal.SIGCONT)
    line = talker.stdout.readline()
    assert line.startswith("printed")
    assert memory(controller) - before < 300 * MIB
    assert all(memory(engine) < 200 * MIB for engine in engines)
    end(processes)


NARROW = """
import hpc, pathlib, resource
def narrow(room):
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + room, resource.RLIM_INFINITY))
rc = hpc.connect()
def ask(engine, call, *args):
    try:
        print(len(rc[engine].apply_sync(call, *args)), flush=True)
    except Exception as error:
        print(type(error).__name__, "no memory" in str(error), flush=True)
    print(rc[:].apply_sync(abs, -1), flush=True)
rc[0].apply_sync(narrow, 200 << 20)
ask(0, bytes.upper, b"x" * (300 << 20))
narrow(100 << 20)
ask(1, bytes, 150 << 20)
"""


@fault("a result, or an argument, is larger than memory", "it fails and says so; client and engine go on, and others")
def test_larger_than_memory(processes: Processes) -> None:
    start(2)
    client = processes.spawn(sys.executable, "-c", NARROW)
    assert client.stdout is not None
    assert client.stdout.readline() == "MemoryError True\n"
    assert client.stdout.readline() == "[1, 1]\n"
    assert client.stdout.readline() == "SerializationError True\n"
    assert client.stdout.readline() == "[1, 1]\n"
    client.wait(20)
    rc = hpc.connect()
    assert serves(rc, 1) < 2
    end(processes, rc)
