"""The network goes: cut, lossy, half-open, forgetful, and gone for good. The engines are behind it."""

import signal
import time
from pathlib import Path

import pytest

from tests.system.conftest import Processes, wait_until

from .load import ran_twice
from .network import Across, Load, Network
from .table import fault

# What is bad for long enough that all that is under way fills up; not more, or the tests would take minutes.
BAD_S = 4.0
# A cut this long is beyond the heartbeats (15 s): connections are given up, engines are unreachable for a while.
CUT_S = 20.0


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    directory = tmp_path / "marks"
    directory.mkdir()
    return directory


def loaded(network: Network, processes: Processes, marks: Path, **options: object) -> tuple[Across, list[Load]]:
    """Return a cluster with a client on either side of the wire, both of which have had a result."""
    across = Across(network, processes, 2)
    clients = [
        across.load(host, marks=str(marks), base=base, seed=base, **options)
        for host, base in (("h1", 0), ("h2", 10_000_000))
    ]
    for client in clients:
        client.hear()
    return across, clients


def mark_of(marks: Path) -> list[str]:
    return [line for path in marks.iterdir() for line in path.read_text().split()]


def settle(clients: list[Load], marks: Path) -> list[dict[str, int]]:
    """Stop the clients; assert that nothing was lost, nothing ran twice and nothing is wrong."""
    counts = [client.stop() for client in clients]
    for each in counts:
        assert each["done"] == each["submitted"], each
    assert ran_twice(marks) == []
    return counts


def end(across: Across, processes: Processes) -> None:
    across.controller.send_signal(signal.SIGINT)
    wait_until(lambda: not processes.pids(), f"the end of {processes.pids()}")


@fault("a link is cut for 20 s", "work goes on when it heals; nothing is lost, nothing runs twice")
def test_cut(network: Network, processes: Processes, marks: Path) -> None:
    across, clients = loaded(network, processes, marks)
    network.cut()
    time.sleep(CUT_S)
    network.wire()
    for each in settle(clients, marks):
        assert each["slowest_s"] < CUT_S + 10
    end(across, processes)


@fault(
    "packets are dropped, doubled, delayed and reordered", "slower, and nothing else: nothing is lost, nor runs twice"
)
def test_bad_wire(network: Network, processes: Processes, marks: Path) -> None:
    across, clients = loaded(network, processes, marks)
    network.wire(drop=0.02, double=0.02, delay_s=0.005, jitter_s=0.01)
    time.sleep(BAD_S)
    network.wire()
    settle(clients, marks)
    end(across, processes)


@pytest.mark.parametrize("silent", [0, 1], ids=["controller", "engines"])
@fault("a connection is half open: one side is not heard", "as when it is cut; work goes on when it heals")
def test_half_open(network: Network, processes: Processes, marks: Path, silent: int) -> None:
    across, clients = loaded(network, processes, marks)
    network.wire(cut=[silent])
    time.sleep(BAD_S)
    network.wire()
    settle(clients, marks)
    end(across, processes)


@fault("a NAT forgets the connections", "they are made anew within 20 s; nothing is lost, nothing runs twice")
def test_forgetful_nat(network: Network, processes: Processes, marks: Path) -> None:
    across, clients = loaded(network, processes, marks)
    network.wire(forget=True)
    for each in settle(clients, marks):
        assert each["slowest_s"] < 25
    end(across, processes)


@fault("a host is gone for good", "its engines are reported lost, with their host; their tasks end as EngineLost")
def test_host_gone(network: Network, processes: Processes, marks: Path) -> None:
    across = Across(network, processes, 1)
    across.engine("h1")
    client = across.load("h1", marks=str(marks), kinds=["nap"])
    client.hear()
    wait_until(lambda: len(mark_of(marks)) > 100, "some tasks")
    network.cut()
    began = time.monotonic()
    counts = client.stop(90)
    assert counts["engine_lost"] > 0
    assert counts["without_end"] == 0
    assert time.monotonic() - began < 60
    for engine in across.engines:
        engine.kill()
    network.wire()
    across.controller.send_signal(signal.SIGINT)
    wait_until(lambda: not processes.pids(), f"the end of {processes.pids()}")
