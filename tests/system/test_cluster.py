"""`hpc.Cluster` from Python."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

import hpc

from .conftest import Processes, cli, engines_of, needs_mpi, read_until, wait_until


def test_with_block(processes: Processes) -> None:
    cluster = hpc.Cluster(n=3)
    with cluster as rc:
        assert rc.ids == [0, 1, 2]
        assert len(set(rc[:].apply_sync(os.getpid))) == 3
        assert cluster.name == "default"
        assert cluster.logs.is_dir()
        assert "running" in repr(cluster)
    processes.assert_none_left()


def test_start_connect_stop(processes: Processes) -> None:
    cluster = hpc.Cluster(n=1, name="mine").start()
    first, second = cluster.connect(), cluster.connect()
    assert first.ids == second.ids == [0]
    first.close()
    second.close()
    cluster.stop()
    cluster.stop()
    processes.assert_none_left()


def test_shutdown_by_a_client(processes: Processes) -> None:
    cli("start", "-n", "2", "--port", "0")
    rc = hpc.connect()
    rc.shutdown()
    wait_until(lambda: not engines_of(), "the end of the engines")
    assert cli("status").returncode == 0, "the controller is still there"
    rc.shutdown(controller=True)
    rc.close()
    wait_until(lambda: not processes.pids(), "the end of the cluster", 5.0)
    processes.assert_none_left()


def test_from_name(processes: Processes) -> None:
    cli("start", "-n", "2", "--port", "0", "--name", "heat")
    cluster = hpc.Cluster.from_name("heat")
    rc = cluster.connect()
    assert rc.ids == [0, 1]
    rc.close()
    cluster.stop()
    processes.assert_none_left()
    with pytest.raises(hpc.errors.ConnectError, match="heat"):
        hpc.Cluster.from_name("heat")


def test_a_name_in_use_is_an_error(processes: Processes) -> None:
    with hpc.Cluster(n=0, name="mine"), pytest.raises(hpc.errors.HpcError, match="another name"):
        hpc.Cluster(n=0, name="mine").start()
    processes.assert_none_left()


def test_failed_start_carries_the_log(processes: Processes) -> None:
    with pytest.raises(hpc.errors.HpcError, match=r"192\.0\.2\.1"):
        hpc.Cluster(n=1, ip="192.0.2.1").start()
    processes.assert_none_left(files=False)


def test_bad_arguments() -> None:
    for arguments in ({"n": -1}, {"launcher": "telepathy"}, {"port": 70000}, {"name": "../up"}):
        with pytest.raises((ValueError, hpc.errors.HpcError), match=r"."):
            hpc.Cluster(**arguments).start()


def test_a_killed_program_takes_its_cluster_along(processes: Processes) -> None:
    program = textwrap.dedent("""
        import time, hpc
        cluster = hpc.Cluster(n=2).start()
        print("up", flush=True)
        time.sleep(600)
    """)
    command = processes.spawn(sys.executable, "-c", program)
    read_until(command, "up")
    assert len(engines_of()) == 2
    command.send_signal(signal.SIGKILL)
    command.wait(5)
    wait_until(lambda: not processes.pids(), "the end of the cluster", 5.0)
    processes.assert_none_left()


def test_ctrl_c_in_the_block_ends_it(processes: Processes) -> None:
    program = textwrap.dedent("""
        import time, hpc
        with hpc.Cluster(n=2) as rc:
            print("up", flush=True)
            rc[:].apply_sync(time.sleep, 600)
    """)
    command = processes.spawn(sys.executable, "-c", program)
    read_until(command, "up")
    command.send_signal(signal.SIGINT)
    rest, _ = command.communicate(timeout=10)
    assert "KeyboardInterrupt" in rest
    processes.assert_none_left()


def test_modules_of_the_directory_are_found_and_shadow_nothing(processes: Processes, tmp_path: object) -> None:
    (tmp_path / "logging.py").write_text("raise ImportError('not the one you want')\n")
    (tmp_path / "mymodule.py").write_text("def answer():\n    return 42\n")
    program = textwrap.dedent("""
        import hpc, sys
        with hpc.Cluster(n=1) as rc:
            rc[:].execute("import mymodule; a = mymodule.answer()")
            print("answer", rc[0]["a"])
    """)
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False
    )
    assert "answer 42" in done.stdout, done.stderr
    processes.assert_none_left()


@needs_mpi
def test_mpi(processes: Processes) -> None:
    with hpc.Cluster(n=2, mpi=True) as rc:
        assert rc[:].apply_sync(lambda: hpc.comm().allreduce(1)) == [2, 2]
    processes.assert_none_left()
