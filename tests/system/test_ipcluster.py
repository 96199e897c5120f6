"""The commands of ipcluster against real processes."""

import json
import os
import pty
import signal
import sys

import pytest

import hpc

from .conftest import IPCLUSTER, Processes, address_in, cli, engines_of, needs_mpi, read_until, status, wait_until


def test_start_list_status_stop(processes: Processes) -> None:
    started = cli("start", "-n", "2", "--port", "0")
    host, port = address_in(started.stdout)
    assert str(processes.home) in started.stdout, "it says where the logs are"

    (row,) = json.loads(cli("list", "--json").stdout)
    assert (row["name"], row["state"], row["n"], row["launcher"]) == ("default", "running", 2, "local")
    assert row["address"].endswith(f":{port}")

    answer = status()
    assert answer["controller"]["pid"] == row["controller_pid"]
    assert answer["controller"]["host"]
    assert [set(engine) >= {"id", "rank", "group", "host", "pid", "state"} for engine in answer["engines"]] == [
        True
    ] * 2
    assert [engine["id"] for engine in answer["engines"]] == [0, 1]
    assert {engine["pid"] for engine in answer["engines"]} <= set(processes.pids())
    assert "2" in cli("list").stdout
    assert "default" in cli("status").stdout

    cli("stop")
    processes.assert_none_left()
    assert json.loads(cli("list", "--json").stdout) == []
    assert cli("stop", check=False).returncode == 1


def test_session_of_2006(processes: Processes) -> None:
    command = processes.spawn(*IPCLUSTER, "-n", "4", "--port", "0")
    shown = read_until(command, "Ctrl-C ends all of it")
    rc = hpc.RemoteController(address_in(shown))
    assert rc.getIDs() == [0, 1, 2, 3]
    rc[:].execute("import os; mine = os.getpid()")
    assert sorted(rc[:]["mine"]) == sorted(engine["pid"] for engine in engines_of())
    rc.close()
    command.send_signal(signal.SIGINT)
    rest, _ = command.communicate(timeout=10)
    assert "has ended" in rest
    assert command.returncode == 0
    processes.assert_none_left()


def test_ctrl_c_in_a_terminal(processes: Processes) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [*IPCLUSTER, "-n", "2", "--port", "0"])
    seen = b""
    while b"Ctrl-C ends all of it" not in seen:
        seen += os.read(terminal, 4096)
    os.write(terminal, b"\x03")
    try:
        while piece := os.read(terminal, 4096):
            seen += piece
    except OSError:
        pass  # Linux: EIO once the last process has closed the terminal
    _, code = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(code) == 0, seen.decode()
    assert b"has ended (Ctrl-C)" in seen
    processes.assert_none_left()


def test_ctrl_c_while_engines_are_busy(processes: Processes) -> None:
    command = processes.spawn(*IPCLUSTER, "-n", "2", "--port", "0")
    rc = hpc.RemoteController(address_in(read_until(command, "Ctrl-C ends all of it")))
    started = rc[:].apply_async(os.getpid)
    started.get(10)
    rc[0].execute("import subprocess; child = subprocess.Popen(['sleep', '600'])")
    rc[:].apply_async(__import__("time").sleep, 600)
    command.send_signal(signal.SIGINT)
    command.communicate(timeout=10)
    rc.close()
    processes.assert_none_left()


def test_two_clusters_side_by_side(processes: Processes) -> None:
    one = cli("start", "-n", "1", "--port", "0")
    two = cli("start", "-n", "2", "--port", "0")
    assert "default-2" in two.stdout + two.stderr
    refused = cli("start", "-n", "1", "--port", "0", "--name", "default", check=False)
    assert refused.returncode == 1
    assert "ipcluster stop --name default" in refused.stderr
    assert address_in(one.stdout) != address_in(two.stdout)
    assert [len(engines_of(name)) for name in ("default", "default-2")] == [1, 2]
    for name, n in (("default", 1), ("default-2", 2)):
        rc = hpc.connect(name)
        assert len(rc.ids) == n
        rc.close()
    assert cli("stop", check=False).returncode == 1, "which one?"
    cli("stop", "--name", "default")
    assert [row["name"] for row in json.loads(cli("list", "--json").stdout)] == ["default-2"]
    cli("stop", "--all")
    processes.assert_none_left()


def test_a_busy_port_is_an_error_if_asked_for(processes: Processes) -> None:
    cli("start", "-n", "0", "--port", "0", "--name", "first")
    port = int(status("--name", "first")["controller"]["addresses"][0].rpartition(":")[2])
    second = cli("start", "-n", "0", "--port", str(port), "--name", "second", check=False)
    assert second.returncode == 1
    assert str(port) in second.stderr
    cli("stop", "--all")
    processes.assert_none_left()


def test_start_fails_with_the_reason(processes: Processes) -> None:
    done = cli("start", "-n", "1", "--ip", "192.0.2.1", "--port", "0", check=False)
    assert done.returncode == 1
    assert "192.0.2.1" in done.stderr
    processes.assert_none_left(files=False)
    assert "gone" in cli("list").stdout
    assert "no cluster" in cli("list").stdout


def test_usage_errors() -> None:
    for arguments in (("start", "-n", "-1"), ("nonsense",), ("-n", "4", "start"), ("stop", "--all", "--name", "x")):
        assert cli(*arguments, check=False).returncode == 2
    for command in ((), ("start",), ("stop",), ("list",), ("status",), ("logs",), ("run",)):
        assert "ipcluster" in cli(*command, "--help").stdout


def test_logs(processes: Processes) -> None:
    cli("start", "-n", "1", "--port", "0", "--log-level", "debug")
    assert "controller: " in cli("logs", "controller").stdout
    assert "engine-0: " not in cli("logs", "controller").stdout
    cli("stop")
    assert cli("logs", check=False).returncode == 1


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("import hpc; rc = hpc.connect(); print('ids', rc.ids); rc.close()", 0),
        ("raise SystemExit(7)", 7),
        ("import os; os.kill(os.getpid(), 15)", 143),
    ],
)
def test_run_exits_as_the_script(processes: Processes, script: str, code: int, tmp_path: object) -> None:
    path = tmp_path / "a script.py"
    path.write_text(script)
    done = cli("run", "-n", "2", "--", str(path), check=False)
    assert done.returncode == code, done.stderr
    if code == 0:
        assert "ids [0, 1]" in done.stdout
    processes.assert_none_left()


def test_run_passes_signals_on(processes: Processes, tmp_path: object) -> None:
    path = tmp_path / "waits.py"
    path.write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(33))\n"
        "print('waiting', flush=True)\n"
        "time.sleep(60)\n"
    )
    command = processes.spawn(*IPCLUSTER, "run", "-n", "1", "--", str(path))
    read_until(command, "waiting")
    command.send_signal(signal.SIGTERM)
    assert command.wait(10) == 33
    processes.assert_none_left()


@needs_mpi
def test_mpi_group(processes: Processes) -> None:
    started = cli("start", "-n", "2", "--mpi", "--port", "0")
    assert "mpirun" in started.stdout
    engines = engines_of()
    assert [(engine["id"], engine["rank"]) for engine in engines] == [(0, 0), (1, 1)]
    assert len({engine["group"] for engine in engines}) == 1
    rc = hpc.connect()
    rc[:].execute("total = comm.allreduce(rank + 1)")
    assert rc[:]["total"] == [3, 3]
    rc.close()
    cli("stop")
    processes.assert_none_left()


def test_a_killed_starter_takes_its_foreground_cluster_along(processes: Processes) -> None:
    command = processes.spawn(*IPCLUSTER, "-n", "2", "--port", "0")
    read_until(command, "Ctrl-C ends all of it")
    command.kill()
    command.wait()
    wait_until(lambda: not processes.pids(), "the end of the cluster")
    processes.assert_none_left()
