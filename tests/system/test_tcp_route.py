"""Large data between hosts: through the controller in pieces. Here all connections are TCP with CURVE on one host."""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hpc
from hpc.transport import parcels
from tests.system.conftest import Processes, wait_until

MIB = 1 << 20
# An engine that says that it is on another host.
ENGINE = """
import socket
socket.gethostname = lambda: "elsewhere"
from hpc.cli.ipengine import main
main()
"""


class Far:
    """A cluster without a unix socket, and how to reach it."""

    def __init__(self, processes: Processes, n: int) -> None:
        self.processes, self.directory = processes, processes.home / "clusters" / "far"
        command = (sys.executable, "-m", "hpc.cli.ipcontroller", "--name", "far", "--port", "0")
        self.controller = processes.spawn(*command)
        wait_until(lambda: (self.directory / "engine.json").exists(), "the connection files")
        self.file = self.without_unix("client")
        engine = self.without_unix("engine")
        for _ in range(n):
            processes.spawn(sys.executable, "-c", ENGINE, "--no-mpi", "--connection-file", str(engine))

    def without_unix(self, role: str) -> Path:
        """Write a connection file again, without the shorter way."""
        content = json.loads((self.directory / f"{role}.json").read_text())
        path = self.directory / f"{role}-far.json"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            json.dump({**content, "unix": ""}, file)
        return path

    @contextlib.contextmanager
    def client(self, n: int, far: bool = True) -> Iterator[hpc.RemoteController]:
        """Connect, by TCP or by the unix socket."""
        rc = hpc.connect(str(self.file if far else self.directory / "client.json"))
        try:
            rc.wait_for_engines(n, timeout=20)
            yield rc
        finally:
            rc.close()

    def end(self) -> None:
        self.controller.send_signal(signal.SIGTERM)
        wait_until(lambda: not self.processes.pids(), "the end of everything")


@pytest.fixture
def far(processes: Processes) -> Iterator[Far]:
    cluster = Far(processes, 3)
    yield cluster
    cluster.end()


def array(nbytes: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 255, nbytes, dtype=np.uint8)


def ask(view: hpc.DirectView, expression: str) -> Any:
    """Return the value of an expression on the engines."""
    view.execute(f"answer = {expression}")
    return view.pull("answer")


def peak(pid: int) -> int:
    """Return the largest resident size so far, in bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1])


def test_there_and_back_while_the_controller_stays_small(far: Far) -> None:
    a = array(160 * MIB)
    with far.client(3) as rc:
        before = peak(far.controller.pid)
        result = rc[:].scatter("x", a, block=False)
        result.get()
        assert {row["route"] for row in result.metadata} == {"tcp"}
        gathered = rc[:].gather("x")
        np.testing.assert_array_equal(gathered, a)
        assert gathered.flags.writeable
        rc[:].broadcast("b", a[: 40 * MIB])
        rc[0].push({"many": {i: a[i * MIB : (i + 1) * MIB] for i in range(40)}})
        assert ask(rc[:], "int(b.sum())") == [int(a[: 40 * MIB].sum())] * 3
        back = rc[0].pull("many")
        assert all((back[i] == a[i * MIB : (i + 1) * MIB]).all() for i in range(40))
        rc[1:].push({"c": hpc.Reference("b", engine=0)})
        np.testing.assert_array_equal(rc[2].pull("c"), a[: 40 * MIB])
        assert peak(far.controller.pid) - before < 64 * MIB


def test_a_client_on_the_controllers_host_and_engines_elsewhere(far: Far) -> None:
    a = array(150 * MIB)
    with far.client(3, far=False) as rc:
        before = peak(far.controller.pid)
        rc[:].scatter("x", a)
        np.testing.assert_array_equal(rc[:].gather("x"), a)
        rc[:].push({"y": a[: 20 * MIB]})
        np.testing.assert_array_equal(rc[1].pull("y"), a[: 20 * MIB])
        assert peak(far.controller.pid) - before < 64 * MIB


def test_the_sender_has_its_memory_back_when_it_is_sent(far: Far) -> None:
    a = array(20 * MIB)
    expected = int(a.sum())
    with far.client(3) as rc:
        busy = rc[0].apply_async(time.sleep, 1.5)
        result = rc[:].push({"x": a}, block=False)
        result.wait_for_send(timeout=10)
        assert not busy.done()  # the data does not wait for the engine to be idle
        a[:] = 0
        result.get()
        assert ask(rc[:], "int(x.sum())") == [expected] * 3


def test_a_receiver_that_stops_holds_up_nobody(far: Far) -> None:
    a = array(60 * MIB)
    with far.client(3) as rc:
        pids = rc[:].apply_sync(os.getpid)
        os.kill(pids[0], signal.SIGSTOP)
        try:
            stuck = rc[:].push({"x": a}, block=False)
            rc[1:].push({"y": a})
            assert ask(rc[1:], "bool((x == y).all())") == [True, True]
            assert not stuck.done()
        finally:
            os.kill(pids[0], signal.SIGCONT)
        stuck.get(timeout=20)


def test_small_calls_go_between_the_pieces(far: Far) -> None:
    with far.client(3) as rc:
        rc[1].apply_sync(len, "warm")
        pulled, longest = [], 0.0
        rc[0].execute("import numpy; big = numpy.ones(200 << 20, 'u1')")
        thread = threading.Thread(target=lambda: pulled.append(rc[0].pull("big")))
        start = time.perf_counter()
        thread.start()
        n = 0
        while thread.is_alive():
            before = time.perf_counter()
            rc[1].apply_sync(len, "small")
            longest = max(longest, time.perf_counter() - before)
            n += 1
        duration = time.perf_counter() - start
        thread.join()
        assert len(pulled[0]) == 200 << 20
        assert n > 3
        assert longest < duration / 2, f"a small call took {longest:.3f} s of {duration:.3f} s"


def test_an_interrupt_overtakes_data(far: Far) -> None:
    a = array(100 * MIB)
    with far.client(3) as rc:
        running = rc[0].apply_async(time.sleep, 30)
        pushed = rc[0].push({"x": a}, block=False)
        deadline = time.monotonic() + 20
        while not running.done():
            rc[0].interrupt()
            assert time.monotonic() < deadline
            running.wait(0.2)
        with pytest.raises(KeyboardInterrupt):
            running.get()
        pushed.get(timeout=20)


def test_an_engine_that_is_killed_in_the_middle(far: Far) -> None:
    a = array(200 * MIB)
    with far.client(3) as rc:
        pid = rc[0].apply_sync(os.getpid)
        result = rc[:].push({"x": a}, block=False)
        wait_until(lambda: rc._link.parcels.shelf.n_served > 20, "some pieces")
        os.kill(pid, signal.SIGKILL)
        assert ask(rc[1:], "x.nbytes") == [200 * MIB] * 2
        rc[1:].push({"x": a[:MIB]})
        assert not result.done()  # only the controller's patience tells a dead engine of another host from a cut one


def test_a_client_that_is_gone_in_the_middle(far: Far, processes: Processes) -> None:
    program = f"import hpc, numpy; rc = hpc.connect({str(far.file)!r}); print('up', flush=True); " + (
        "rc[:].push({'x': numpy.ones(400 << 20, 'u1')})"
    )
    with far.client(3) as rc:
        victim = processes.spawn(sys.executable, "-c", program)
        assert victim.stdout is not None
        assert victim.stdout.readline() == "up\n"
        engine = rc[0].apply_sync(os.getpid)
        grown = peak(engine)
        wait_until(lambda: peak(engine) > grown + 40 * MIB, "data on the way")
        victim.kill()
        victim.wait()
        assert ask(rc[:], "'x' in globals()") == [False] * 3
        a = array(10 * MIB)
        rc[:].push({"x": a})  # nothing is stuck
        np.testing.assert_array_equal(rc[2].pull("x"), a)


def test_a_connection_that_breaks_in_the_middle(far: Far) -> None:
    a = array(200 * MIB)
    with far.client(3) as rc:
        link = rc._link
        result = rc[:].scatter("x", a, block=False)
        shelf = link.parcels.shelf
        wait_until(lambda: shelf.n_served > 20, "some pieces")
        link.doubt(link.conn)
        result.get(timeout=30)
        got: list[Any] = []
        thread = threading.Thread(target=lambda: got.append(rc[:].gather("x")))
        thread.start()
        wait_until(lambda: link.parcels.n_received > 20, "some pieces")
        link.doubt(link.conn)
        thread.join(30)
        np.testing.assert_array_equal(got[0], a)


def test_what_an_engine_has_computed_last_is_fetched_before_it_goes(far: Far) -> None:
    with far.client(3) as rc:
        result = rc[0].apply_async(lambda: bytes(50 << 20))
        rc[0].apply_async(exit_soon)
        assert len(result.get(timeout=20)) == 50 << 20


def exit_soon() -> None:
    raise SystemExit


def test_a_client_that_closes_leaves_its_data(far: Far) -> None:
    with far.client(3) as rc:
        rc[:].push({"x": array(30 * MIB)}, block=False)
    with far.client(3) as rc:
        wait_until(lambda: ask(rc[:], "'x' in globals()") == [True] * 3, "the data")
    assert parcels.WINDOW_NBYTES < 30 * MIB
