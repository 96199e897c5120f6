"""The parts of hpc.cluster that need no processes: options, names, records, and which mpirun is taken."""

import os
import socket
import stat
import subprocess
import sys

import pytest

from hpc.cluster import mpirun, ports, processes, record
from hpc.cluster.options import ClusterOptions, Event, check


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HPC_DIR", str(tmp_path / "home"))
    return tmp_path / "home"


def test_options_and_events_survive_their_line():
    options = ClusterOptions(4, name="a", argv=("ipcluster", "-n", "4"), grace_s=0.5)
    assert ClusterOptions.from_json(options.to_json()) == options
    event = Event("ended", "because\nof that", tail=("a", "b"), failed=True)
    assert Event.from_json(event.to_json()) == event
    assert event.to_json().count(b"\n") == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"n": -1}, "n is"),
        ({"launcher": "x"}, "launcher"),
        ({"port": 65536}, "port"),
        ({"engine_port": -2}, "engine_port"),
        ({"start_timeout_s": 0.0}, "timeout"),
        ({"start_timeout_s": float("nan")}, "timeout"),
    ],
)
def test_bad_options_name_the_field(changes, field):
    check(ClusterOptions(1))
    with pytest.raises(ValueError, match=field):
        check(ClusterOptions(1)._replace(**changes))


def test_names_are_taken_once():
    first, note = record.claim(ClusterOptions(1))
    assert (first.name, note) == ("default", "")
    second, note = record.claim(ClusterOptions(1))
    assert second.name == "default-2"
    assert "default-2" in note
    with pytest.raises(FileExistsError, match="choose another name"):
        record.claim(ClusterOptions(1, name="default"))
    assert [entry.state for entry in record.entries()] == ["starting", "starting"]


@pytest.mark.parametrize("name", ["../up", "a/b", "-x", ".x", "a b", "x" * 65])
def test_names_that_are_no_directories(name):
    with pytest.raises(ValueError, match="name"):
        record.claim(ClusterOptions(1, name=name))


def test_a_record_is_private(home):
    claimed, _ = record.claim(ClusterOptions(1))
    path = home / "clusters" / claimed.name / "supervisor.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_dead_supervisor_gives_its_name_back(home):
    claimed, _ = record.claim(ClusterOptions(1))
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    claimed.pid = process.pid
    claimed.save()
    (entry,) = record.entries()
    assert entry.state == "gone"
    assert str(process.pid) in entry.gone
    (home / "clusters" / "default" / "logs" / "engine-0.log").write_text("old")
    again, note = record.claim(ClusterOptions(1))
    assert (again.name, note) == ("default", "")
    assert os.listdir(again.logs) == [], "logs of the one before are removed"


def test_a_later_process_with_the_same_pid_is_another_one():
    claimed, _ = record.claim(ClusterOptions(1))
    assert claimed.is_alive()
    claimed.started += 1
    assert not claimed.is_alive()


def test_clean_keeps_logs_that_say_something(home):
    claimed, _ = record.claim(ClusterOptions(1))
    claimed.state, claimed.reason = "failed", "it fell over"
    claimed.save()
    directory = home / "clusters" / "default"
    log = directory / "logs" / "controller.log"
    log.write_text("Traceback\n")
    (entry,) = record.entries()
    assert entry.gone == "it fell over"
    entry.clean()
    assert [path for path in directory.rglob("*") if path.is_file()] == [log]
    assert record.entries() == []


def test_garbage_in_the_directory_is_no_cluster(home):
    directory = home / "clusters" / "odd"
    directory.mkdir(parents=True, mode=0o700)
    for name in ("supervisor.json", "client.json"):
        (directory / name).write_text("{}")
    assert record.entries() == []


def program(directory, name, text):
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\necho '{text}'\n")
    path.chmod(0o755)
    return path


def test_mpirun_beside_python_comes_first(tmp_path, monkeypatch):
    beside = program(tmp_path / "env", "mpiexec", "HYDRA build details:\n    Version:      5.0.2")
    elsewhere = program(tmp_path / "path", "mpirun", "mpirun (Open MPI) 5.0.11")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "env" / "python"))
    monkeypatch.setenv("PATH", f"{elsewhere.parent}:/usr/bin:/bin")
    found = mpirun.find()
    assert found == mpirun.Mpirun(str(beside), "MPICH", "MPICH 5.0.2")
    beside.unlink()
    found = mpirun.find()
    assert found == mpirun.Mpirun(str(elsewhere), "Open MPI", "mpirun (Open MPI) 5.0.11")
    assert found.command(3, ["prog"]) == [str(elsewhere), "-n", "3", "prog"]
    elsewhere.unlink()
    monkeypatch.setenv("PATH", str(elsewhere.parent))
    with pytest.raises(FileNotFoundError, match=r"hpc\[mpich\]"):
        mpirun.find()


def test_a_persons_own_open_mpi_settings_win(tmp_path):
    found = mpirun.Mpirun("mpirun", "Open MPI", "")
    variable = "PRTE_MCA_rmaps_default_mapping_policy"
    assert found.environment({}, 2)[variable] == ":oversubscribe"
    assert found.environment({variable: "core"}, 2)[variable] == "core"
    # In an allocation of several nodes it would put all ranks on the first one.
    assert variable not in found.environment({"SLURM_JOB_NUM_NODES": "2"}, 2)
    assert variable in found.environment({"SLURM_JOB_NUM_NODES": "1"}, 2)
    nodefile = tmp_path / "nodes"
    nodefile.write_text("b1\nb1\nb2\nb2\n")
    assert variable not in found.environment({"PBS_NODEFILE": str(nodefile)}, 2)
    assert mpirun.Mpirun("mpirun", "MPICH", "").environment({"A": "b"}, 2) == {"A": "b"}


def test_tail_gives_the_last_lines(tmp_path):
    log = tmp_path / "log"
    log.write_text("".join(f"line {i}\n" for i in range(1000)))
    assert processes.tail(log, 3) == ("line 997", "line 998", "line 999")
    assert processes.tail(tmp_path / "none") == ()


def test_exits_in_words():
    assert processes.describe_exit(3, 0) == "exit code 3"
    assert processes.describe_exit(0, 9) == "signal 9 (SIGKILL)"


def test_the_default_port_is_given_up_if_it_is_taken(monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setattr(ports, "DEFAULT_PORT", other.getsockname()[1])
        port, note = ports.choose("127.0.0.1")
        assert (port, "taken" in note) == (0, True)
    assert ports.choose("127.0.0.1") == (ports.DEFAULT_PORT, "")


def test_a_hostfile_is_spelled_as_the_mpirun_wants_it():
    for flavour, option in (("Open MPI", "--hostfile"), ("MPICH", "-f")):
        command = mpirun.Mpirun("mpirun", flavour, "").command(2, ["prog"], "/a/hosts")
        going_on = mpirun.Mpirun("mpirun", flavour, "").command(2, ["prog"], go_on=True)
        assert going_on[3:] == ["--enable-recovery" if flavour == "Open MPI" else "-disable-auto-cleanup", "prog"]
        assert command == ["mpirun", "-n", "2", option, "/a/hosts", "prog"]
