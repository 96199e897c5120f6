"""Connection files: private, whole, found by what people know of a cluster, and never believed when stale."""

import os
import stat
import subprocess
import sys
import time

import msgspec
import pytest

from hpc.errors import ConnectError, SecurityError
from hpc.security import connection, host, info
from hpc.security.connection import ConnectionInfo, base_dir, cluster_dir, clusters, find, runtime_dir


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HPC_DIR", str(tmp_path / "hpc"))
    return tmp_path / "hpc"


def make(name="default", role="client", **changed):
    fields = {
        "cluster": "0123456789abcdef" * 2,
        "name": name,
        "role": role,
        "host": host.hostname(),
        "boot_id": host.boot_id(),
        "addresses": ["tcp://10.1.2.3:10000", "tcp://[fd00::1]:10000"],
        "unix": "/run/nowhere/s",
        "server_key": "s" * 40,
        "public_key": "p" * 40,
        "secret_key": "TOP-SECRET",
        "pid": os.getpid(),
        "started": host.own_start_ticks(),
        "created": time.time(),
    }
    return ConnectionInfo(**{**fields, **changed})


def saved(name="default", role="client", **changed):
    made = make(name, role, **changed)
    made.save(cluster_dir(name) / f"{role}.json")
    return made


@pytest.fixture
def gone():
    """The process id of a process that has ended."""
    return subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    ).stdout


def test_round_trip_and_modes(directory):
    made = saved()
    path = directory / "clusters" / "default" / "client.json"
    assert ConnectionInfo.load(path) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for parent in (path.parent, path.parent.parent, directory):
        assert stat.S_IMODE(parent.stat().st_mode) == 0o700
    assert os.listdir(path.parent) == ["client.json"]


def test_no_secret_in_the_repr():
    assert "TOP-SECRET" not in repr(make())
    assert "TOP-SECRET" not in str(make())
    assert repr(make()) == (
        f"<ConnectionInfo client of cluster 'default' (01234567) on {host.hostname()}, pid {os.getpid()}>"
    )


def test_a_file_that_is_being_replaced_is_whole(directory, monkeypatch):
    first = saved()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        saved(pid=1)
    assert os.listdir(directory / "clusters" / "default") == ["client.json"]
    assert ConnectionInfo.load(directory / "clusters" / "default" / "client.json") == first


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_files_that_others_can_read_are_refused(directory, mode):
    saved()
    path = directory / "clusters" / "default" / "client.json"
    path.chmod(mode)
    with pytest.raises(SecurityError, match=f"chmod 600 {path}"):
        find("client", path=path)
    with pytest.raises(SecurityError):
        find("client", name="default")
    assert clusters() == []


def test_files_of_others_are_refused(directory, monkeypatch):
    saved()
    path = directory / "clusters" / "default" / "client.json"
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(SecurityError, match="not to you"):
        ConnectionInfo.load(path)
    with pytest.raises(SecurityError, match="not to you"):
        base_dir()


def test_directories_that_others_may_write_to_are_refused(directory):
    directory.mkdir()
    directory.chmod(0o755)
    base_dir()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    directory.chmod(0o770)
    with pytest.raises(SecurityError, match=f"chmod 700 {directory}"):
        base_dir()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "no connection file"),
        (b"{", "no connection file"),
        (b"[]", "no connection file"),
        (b'{"version": 1}', "no connection file"),
        (b'{"version": 99}', "has version 99, this release of hpc reads 1"),
        (b"\xff\x00", "no connection file"),
    ],
)
def test_files_that_are_something_else(tmp_path, content, text):
    path = tmp_path / "client.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConnectError, match=text):
        ConnectionInfo.load(path)


def test_a_file_of_a_later_minor_release_with_more_in_it_is_read(tmp_path):
    path = tmp_path / "client.json"
    made = make()
    path.write_bytes(msgspec.json.encode({**msgspec.to_builtins(made), "new_thing": 1}))
    path.chmod(0o600)
    assert ConnectionInfo.load(path) == made


def test_a_missing_file(tmp_path):
    with pytest.raises(ConnectError, match=f"cannot read the connection file {tmp_path / 'none'}"):
        find("client", path=tmp_path / "none")


# ------------------------------------------------------------ stale


def test_alive_and_local():
    assert make().is_local()
    assert make().is_stale() == ""


def test_dead_process(gone):
    assert make(pid=int(gone)).is_stale() == f"its controller (process {int(gone)}) is gone"


def test_a_zombie_is_dead():
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert "is gone" in make(pid=pid).is_stale()
    os.waitpid(pid, 0)


def test_processes_in_other_containers_are_not_seen():
    assert make(started=1, pid_space="pid:[1]").is_stale() == ""
    assert make(started=1, pid_space=host.pid_space()).is_stale()


def test_another_process_with_the_same_id():
    assert "is another one now" in make(started=host.own_start_ticks() - 1).is_stale()


def test_another_boot_of_the_same_host():
    assert "was started again since" in make(boot_id="before").is_stale()
    assert not make(boot_id="before").is_local()


def test_another_host_may_always_live(gone):
    away = make(host="elsewhere", boot_id="other", pid=int(gone))
    assert away.is_stale() == ""
    assert not away.is_local()


# ------------------------------------------------------------ find


def test_the_newest_that_lives(gone):
    now = time.time()
    saved("old", created=now - 10)
    expected = saved("new", created=now - 5)
    saved("dead", created=now, pid=int(gone))
    assert find("client") == expected
    assert [one.name for one in clusters()] == ["dead", "new", "old"]


def test_nothing_there(directory, gone):
    with pytest.raises(ConnectError, match=f"no client connection file for any cluster in {directory}/clusters. Start"):
        find("client")
    saved("mine", pid=int(gone))
    with pytest.raises(ConnectError, match="'mine' was there, but its controller .* is gone"):
        find("client")


def test_by_name(gone):
    expected = saved("one")
    saved("two", pid=int(gone))
    assert find("client", name="one") == expected
    with pytest.raises(ConnectError, match="the cluster 'two' ended: its controller"):
        find("client", name="two")
    with pytest.raises(ConnectError, match="no cluster 'three'.* Running: 'one'"):
        find("client", name="three")
    with pytest.raises(ConnectError, match="no cluster 'one'"):
        find("engine", name="one")


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "-x", "a b", "x" * 65, "a\n"])
def test_names_that_are_none(name):
    with pytest.raises(ValueError, match="cannot be the name of a cluster"):
        cluster_dir(name)
    with pytest.raises(ValueError, match="cannot be the name of a cluster"):
        find("client", name=name)


def test_by_path(directory, gone):
    expected = saved("one", "engine")
    folder = directory / "clusters" / "one"
    assert find("engine", path=folder) == expected
    assert find("engine", path=str(folder / "engine.json")) == expected
    with pytest.raises(ConnectError, match="holds keys for the role engine, not client"):
        find("client", path=folder / "engine.json")
    saved("one", "engine", pid=int(gone))
    with pytest.raises(ConnectError, match="is of a cluster that ended"):
        find("engine", path=folder)


@pytest.mark.parametrize("asked", ["10.1.2.3", "fd00::1", "localhost", "127.0.0.1", "here"])
def test_by_address(asked, monkeypatch):
    asked = host.hostname() if asked == "here" else asked
    expected = saved()
    found = find("client", address=(asked, 10000))
    where = f"tcp://[{asked}]:10000" if ":" in asked else f"tcp://{asked}:10000"
    assert found.addresses[0] == where
    assert set(expected.addresses) <= set(found.addresses)
    assert found.secret_key == expected.secret_key
    for wrong in ((asked, 10001), ("10.9.9.9", 10000)):
        with pytest.raises(ConnectError, match=f"{wrong[0]}:{wrong[1]}.*copy its client.json"):
            find("client", address=wrong)


def test_by_address_of_another_host_by_name():
    saved(host="node17.cluster.example", boot_id="other", addresses=["tcp://10.0.0.17:10000"])
    assert find("client", address=("node17", 10000)).host == "node17.cluster.example"
    assert find("client", address=("NODE17.cluster.example", 10000)).name == "default"
    # The end of a tunnel.
    assert find("client", address=("localhost", 10000)).addresses == ["tcp://localhost:10000", "tcp://10.0.0.17:10000"]
    with pytest.raises(ConnectError):
        find("client", address=("node18.invalid", 10000))


def test_a_file_that_others_can_read_is_named_where_no_other_fits():
    saved()
    path = cluster_dir("default") / "client.json"
    path.chmod(0o644)
    with pytest.raises(ConnectError, match=f"others can read the keys in {path}"):
        find("client", address=("localhost", 10000))


def test_engines_have_addresses_of_their_own():
    saved(role="engine", engine_addresses=["tcp://10.1.2.3:10001"])
    with pytest.raises(ConnectError):
        find("engine", address=("10.1.2.3", 10002))
    found = find("engine", address=("localhost", 10001))
    assert found.engine_addresses == ["tcp://localhost:10001", "tcp://10.1.2.3:10001"]
    # The port for everybody is for engines, too.
    assert find("engine", address=("127.0.0.1", 10000)).engine_addresses[0] == "tcp://127.0.0.1:10000"
    assert connection.advertised(found)[1] == ("10.1.2.3", 10001)


# ------------------------------------------------------------ the socket's directory


def test_runtime_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    found = runtime_dir("0123456789abcdef")
    assert found == tmp_path / "hpc-01234567"
    assert stat.S_IMODE(found.stat().st_mode) == 0o700
    found.chmod(0o777)
    with pytest.raises(SecurityError, match="others may write"):
        runtime_dir("0123456789abcdef")


def test_runtime_dir_is_short_whatever_is_configured(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 60) / ("y" * 60)
    long.mkdir(parents=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    monkeypatch.setattr("tempfile.tempdir", str(long))
    found = runtime_dir("fedcba9876543210")
    assert len(os.fsencode(found)) < 60
    found.rmdir()


def test_a_link_that_somebody_else_has_put_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / "hpc-01234567").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SecurityError, match="no directory"):
        runtime_dir("0123456789abcdef")


def test_the_size_of_a_file_is_limited(tmp_path, monkeypatch):
    path = tmp_path / "client.json"
    make().save(path)
    monkeypatch.setattr(info, "MAX_NBYTES", 10)
    with pytest.raises(ConnectError, match="no connection file"):
        ConnectionInfo.load(path)
