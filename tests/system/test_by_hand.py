"""ipcontroller and ipengine started one by one, as in 2006, in any order."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import hpc

from .conftest import Processes, cli, engines_of, needs_mpi, status, wait_until

IPCONTROLLER = (sys.executable, "-m", "hpc.cli.ipcontroller")
IPENGINE = (sys.executable, "-m", "hpc.cli.ipengine")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_engines(n: int) -> list[dict[str, object]]:
    wait_until(lambda: len(engines_of()) == n, f"{n} engines")
    return engines_of()


def end(processes: Processes, controller: "subprocess.Popen[str]", *engines: "subprocess.Popen[str]") -> None:
    controller.send_signal(signal.SIGINT)
    assert controller.wait(10) == 0
    for engine in engines:
        engine.wait(10)
    processes.assert_none_left()


def test_engines_before_the_controller(processes: Processes) -> None:
    port = free_port()
    engines = [processes.spawn(*IPENGINE, "--controller-ip=127.0.0.1", f"--controller-port={port}") for _ in range(2)]
    controller = processes.spawn(*IPCONTROLLER, "--ip=127.0.0.1", f"--port={port}")
    wait_for_engines(2)
    rc = hpc.RemoteController(("127.0.0.1", port))
    assert rc.getIDs() == [0, 1]
    rc.close()
    rows = json.loads(cli("list", "--json").stdout)
    assert [(row["name"], row["state"], row["pid"]) for row in rows] == [("default", "running", None)]
    end(processes, controller, *engines)


def test_a_second_port_for_engines(processes: Processes) -> None:
    port, engine_port = free_port(), free_port()
    controller = processes.spawn(*IPCONTROLLER, "--ip=127.0.0.1", f"--port={port}", f"--engine-port={engine_port}")
    engine = processes.spawn(*IPENGINE, "--controller-ip=127.0.0.1", f"--controller-port={engine_port}")
    wait_for_engines(1)
    end(processes, controller, engine)


def test_a_busy_port_names_the_remedy(processes: Processes) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = subprocess.run(
            [*IPCONTROLLER, "--ip=127.0.0.1", f"--port={port}"], capture_output=True, text=True, timeout=10, check=False
        )
    assert done.returncode == 1
    assert str(port) in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr
    processes.assert_none_left()


def test_stop_ends_an_ipcontroller_too(processes: Processes) -> None:
    controller = processes.spawn(*IPCONTROLLER, "--ip=127.0.0.1", "--port=0")
    wait_until(lambda: status()["controller"].get("state") == "running", "the controller")
    assert "stopped" in cli("stop").stdout
    assert controller.wait(5) == 0
    processes.assert_none_left()


def test_killed_ipcontroller_is_shown_as_gone(processes: Processes) -> None:
    controller = processes.spawn(*IPCONTROLLER, "--ip=127.0.0.1", "--port=0")
    wait_until(lambda: status()["controller"].get("state") == "running", "the controller")
    controller.kill()
    controller.wait()
    assert "is gone" in cli("status", check=False).stderr
    assert "gone" in cli("list").stdout
    processes.assert_none_left()


@needs_mpi
def test_mpirun_by_hand(processes: Processes) -> None:
    import os

    from hpc.cluster.mpirun import find

    port = free_port()
    tool = find()
    engine = [*IPENGINE, f"--controller-port={port}", "--controller-ip=127.0.0.1"]
    ranks = processes.spawn(*tool.command(3, engine), env=tool.environment(os.environ, 3))
    controller = processes.spawn(*IPCONTROLLER, "--ip=127.0.0.1", f"--port={port}")
    alone = processes.spawn(*IPENGINE, "--controller-ip=127.0.0.1", f"--controller-port={port}")
    engines = wait_for_engines(4)
    groups = {}
    for row in engines:
        groups.setdefault(row["group"], []).append((row["id"], row["rank"]))
    group = max(groups.values(), key=len)
    assert [rank for _, rank in group] == [0, 1, 2]
    assert [number - rank for number, rank in group] == [group[0][0]] * 3, "id == base + rank"
    end(processes, controller, ranks, alone)


def test_connection_file_modes(processes: Processes) -> None:
    controller = processes.spawn(*IPCONTROLLER, "--ip=127.0.0.1", "--port=0")
    wait_until(lambda: status()["controller"].get("state") == "running", "the controller")
    for path in Path(processes.home).rglob("*.json"):
        assert path.stat().st_mode & 0o777 == 0o600, path
        assert path.parent.stat().st_mode & 0o777 == 0o700, path
    end(processes, controller)
