"""Arrays through shared memory, between real processes: what arrives, what it costs, and what is left when one dies."""

import gc
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import hpc
from hpc.client import freight
from hpc.errors import CompositeError, EngineLost
from hpc.transport.pieces import Voice

from .conftest import wait_until

MIB = 1 << 20


@pytest.fixture
def rc() -> "Iterator[hpc.RemoteController]":
    with hpc.Cluster(n=3) as rc:
        yield rc


@pytest.fixture
def cold_rc(monkeypatch: pytest.MonkeyPatch) -> "Iterator[hpc.RemoteController]":
    """A cluster, and a client that made no memory warm for what it sends first."""
    monkeypatch.setattr(freight, "FIRST_NBYTES", 1 << 62)
    with hpc.Cluster(n=3) as rc:
        yield rc


def segments_of(pid: int | str) -> list[str]:
    """Return the segments that a process has open or mapped."""
    found = [line.split()[4] for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "memfd:hpc" in line]
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            if "memfd:hpc" in os.readlink(f"/proc/{pid}/fd/{name}"):
                found.append(name)
        except OSError:
            continue
    return found


def n_descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def controller_pid(rc: "hpc.RemoteController") -> int:
    return int(rc.status()["controller"]["pid"])


def rss_shmem_kib(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("RssShmem")).split()[1])


def peak_kib(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1])


def test_push_and_pull(rc: "hpc.RemoteController") -> None:
    view, array = rc[:], np.arange(MIB, dtype=np.float64)
    result = view.push({"x": array}, block=False)
    assert result.sent, "the array is in shared memory, and the caller's again, when push returns"
    array += 1
    result.get()
    assert [row["route"] for row in result.metadata] == ["shm"] * 3
    view.execute("x[0] = 100 + id")
    pulled = view.pull("x", block=False)
    assert [row["route"] for row in pulled.metadata] == ["inline"] * 3 or pulled.get()
    values = pulled.get()
    assert {row["route"] for row in pulled.metadata} == {"shm"}
    for engine_id, value in zip(rc.ids, values, strict=True):
        assert value[0] == 100 + engine_id, "each engine has its own copy"
        assert np.array_equal(value[1:], np.arange(1, MIB))
        value[1] = -1


def test_arguments_and_results(rc: "hpc.RemoteController") -> None:
    nested = {"a": [np.full(50_000, i, np.int32) for i in range(20)], "text": "t"}
    rc[:].push({"d": nested})
    back = rc[1]["d"]
    assert back["text"] == "t"
    assert all(np.array_equal(a, b) for a, b in zip(back["a"], nested["a"], strict=True))
    assert all(a.flags.writeable for a in back["a"])
    doubled = rc[0].apply_async(np.multiply, nested["a"][3].repeat(10), 2)
    assert doubled.get().tolist() == [6] * 500_000
    assert doubled.metadata["route"] == "shm"
    values = rc.load_balanced_view().map(np.negative, [np.full(100_000, i) for i in range(6)])
    assert [value[0] for value in values] == [0, -1, -2, -3, -4, -5]


@pytest.mark.parametrize("dist", ["block", "cyclic"])
@pytest.mark.parametrize(("order", "axis"), [("C", 0), ("C", 1), ("F", 0), ("F", 1)])
def test_gather_lands_in_one_buffer(rc: "hpc.RemoteController", dist: str, order: str, axis: int) -> None:
    array = np.asarray(np.arange(1000 * 700, dtype=np.int64).reshape(1000, 700), order=order)
    view = rc[:]
    view.scatter("y", array, dist=dist, axis=axis)
    result = view.gather("y", block=False)
    back = result.get()
    assert np.array_equal(back, array)
    assert back.dtype == array.dtype
    assert back.flags.writeable
    assert {row["route"] for row in result.metadata} == {"shm"}
    back[0, 0] = -5
    assert view.gather("y")[0, 0] == 0


def test_gather_of_different_shapes_and_of_failures(rc: "hpc.RemoteController") -> None:
    view = rc[:]
    view.execute("import numpy; y = numpy.full((id + 1) * 100_000, id, 'i4')")
    assert np.bincount(view.gather("y")).tolist() == [100_000, 200_000, 300_000]
    view.execute("z = numpy.ones(100_000) if id else [1, 2]")
    assert len(view.gather("z")) == 200_002
    view.execute("w = numpy.ones((100_000, 2)) if id else numpy.ones(100_000)")
    with pytest.raises(ValueError, match="dim"):
        view.gather("w")
    rc[1].execute("del y")
    with pytest.raises(CompositeError, match="'y' is not defined on engine 1"):
        view.gather("y")


def test_what_is_gathered_is_not_what_comes_after(rc: "hpc.RemoteController") -> None:
    view = rc[:]
    view.scatter("y", np.zeros(MIB))
    early = view.gather("y", block=False)
    view.execute("y = None", block=False)
    assert early.get().sum() == 0


def test_forced_routes(rc: "hpc.RemoteController", monkeypatch: pytest.MonkeyPatch) -> None:
    rc._link.freight.forced = "tcp"
    array = np.arange(MIB)
    result = rc[:].push({"x": array}, block=False)
    result.get()
    assert {row["route"] for row in result.metadata} == {"tcp"}
    assert np.array_equal(rc[:].gather("x"), np.tile(array, 3))


def test_steady_traffic_leaks_nothing(rc: "hpc.RemoteController") -> None:
    pids = [os.getpid(), controller_pid(rc), *rc[:].apply_sync(os.getpid)]
    view, array = rc[:], np.ones(MIB)

    def traffic() -> None:
        view.push({"x": array})
        view.pull("x")
        view.scatter("y", array)
        view.gather("y")

    for _ in range(8):
        traffic()
    gc.collect()
    before = [n_descriptors(pid) for pid in pids]
    for _ in range(30):
        traffic()
    gc.collect()
    after = [n_descriptors(pid) for pid in pids]
    assert all(b <= a + 12 for a, b in zip(before, after, strict=True)), (before, after)
    assert len(segments_of(pids[0])) < 40


def test_memory_goes_back_when_the_last_user_drops_the_array(rc: "hpc.RemoteController") -> None:
    view = rc[:]
    view.push({"x": np.ones(4 * MIB)})
    view.scatter("y", np.ones(4 * MIB))
    whole = view.gather("y")
    pool = rc._link.freight.outgoing.pool
    view.execute("del x, y")
    del whole
    view.execute("pass")  # carries the last acknowledgements
    rc.status()

    pids = view.apply_sync(os.getpid)
    shared_kib = sum(map(rss_shmem_kib, pids))
    assert shared_kib > 20 * 1024, "engines keep what they wrote to mapped, to write to it again"

    def gone() -> bool:
        gc.collect()
        pool.trim(idle_s=0)
        return not pool._lent and not pool._idle

    wait_until(gone, f"the end of {pool!r}")
    assert sum(map(rss_shmem_kib, pids)) < 1024, "but the memory has gone back to the system"


def test_the_controller_holds_no_data(rc: "hpc.RemoteController") -> None:
    pid = controller_pid(rc)
    before = peak_kib(pid)
    array = np.ones(32 * MIB)
    rc[:].scatter("y", array)
    rc[:].push({"x": array})
    assert rc[:].gather("y").nbytes == array.nbytes
    assert peak_kib(pid) - before < 20 * 1024
    assert [name for name in segments_of(pid) if not name.isdigit()] == [], "it maps nothing"


def test_a_killed_engine_gives_its_memory_back(rc: "hpc.RemoteController") -> None:
    view, pool = rc[:], rc._link.freight.outgoing.pool
    view.push({"x": np.ones(MIB)})
    view.scatter("y", np.ones(MIB))
    for pid in view.apply_sync(os.getpid):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not rc.ids, "the loss of the engines")
    rc.status()

    def back() -> bool:
        pool.trim()
        return not pool._lent

    wait_until(back, f"the return of {pool!r}")


def test_a_killed_client_leaves_nothing_behind(rc: "hpc.RemoteController") -> None:
    controller = controller_pid(rc)
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            with hpc.RemoteController() as mine:
                mine[:].push({"z": np.full(MIB, 7)})
                os.write(writer, b"x")
                signal.pause()
        finally:
            os._exit(1)
    assert os.read(reader, 1) == b"x"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reader)
    os.close(writer)
    assert rc[0].pull("z").sum() == 7 * MIB, "the engines still have what it pushed"
    rc[:].execute("del z")
    rc.status()
    wait_until(lambda: not segments_of(controller), "the controller's last descriptor", 10)


def cut(rc: "hpc.RemoteController") -> None:
    """Cut the client's connection, once it has one (again)."""
    wait_until(lambda: rc._link.conn is not None, "a connection", 10)
    connection = rc._link.conn
    if connection is not None:
        connection._sock.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]


def test_a_cut_connection_sends_shared_frames_again(rc: "hpc.RemoteController") -> None:
    view = rc[:]
    view.execute("import time; time.sleep(0.2)", block=False)
    array = np.arange(MIB)
    results = []
    for i in range(4):
        results.append(view.push({"x": array + i}, block=False))
        cut(rc)
    for result in results:
        result.get(timeout=20)
    assert np.array_equal(rc[2]["x"], array + 3)
    view.scatter("y", array)
    pending = view.gather("y", block=False)
    cut(rc)
    assert np.array_equal(pending.get(timeout=20), array)


def test_a_client_by_tcp_gets_the_same(rc: "hpc.RemoteController", monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.arange(MIB)
    rc[:].push({"x": array})
    from hpc.security import connection

    info = connection.find("client")
    port = int(info.addresses[0].rpartition(":")[2])
    monkeypatch.setattr("hpc.security.info.ConnectionInfo.is_local", lambda _: False)
    with hpc.RemoteController(("127.0.0.1", port)) as far:
        assert far._connected().route == "tcp"
        result = far[:].push({"z": array}, block=False)
        result.get()
        assert {row["route"] for row in result.metadata} == {"tcp"}
        assert np.array_equal(far[0]["x"], array), "the controller unpacks what engines send through shared memory"
        assert np.array_equal(far[:].gather("z"), np.tile(array, 3))


def test_the_first_array_goes_from_memory_to_memory(cold_rc: "hpc.RemoteController") -> None:
    rc = cold_rc
    engine, array = rc[1], np.arange(2 * MIB)
    result = engine.push({"first": array}, block=False)
    array[:] = 0
    result.get()
    assert result.metadata["route"] == "shm"
    pid = engine.apply_sync(os.getpid)
    assert segments_of(pid) == [], "the array is in memory of the engine's own"
    assert np.array_equal(engine["first"], np.arange(2 * MIB))
    rc[:].scatter("parts", np.arange(6 * MIB))
    assert np.array_equal(rc[:].gather("parts"), np.arange(6 * MIB))


def test_a_busy_engine_does_not_hold_up_who_pushes(cold_rc: "hpc.RemoteController") -> None:
    rc = cold_rc
    with socket.socket(socket.AF_UNIX) as listener, tempfile.TemporaryDirectory() as folder:
        listener.bind(f"{folder}/gate")
        listener.listen()
        wait = "import socket; s = socket.socket(socket.AF_UNIX); s.connect({!r}); s.recv(1)"
        busy = rc[0].apply_async(exec, wait.format(f"{folder}/gate"), {})
        gate, _ = listener.accept()
        array = np.arange(2 * MIB)
        result = rc[0].push({"x": array}, block=False)
        assert result.sent
        assert not result.done()
        array[:] = 0
        gate.close()
        busy.get()
        result.get()
    assert np.array_equal(rc[0]["x"], np.arange(2 * MIB))


def test_an_engine_that_is_killed_while_it_receives(
    cold_rc: "hpc.RemoteController", monkeypatch: pytest.MonkeyPatch
) -> None:
    rc = cold_rc
    pid, say = rc[2].apply_sync(os.getpid), Voice.say

    def kill(voice: Voice, word: bytes) -> None:
        os.kill(pid, signal.SIGKILL)
        say(voice, word)

    monkeypatch.setattr(Voice, "say", kill)
    with pytest.raises(EngineLost):
        rc[2].push({"x": np.ones(4 * MIB)})
    monkeypatch.undo()
    rc[0].push({"x": np.ones(4 * MIB)})
    assert rc[0]["x"].sum() == 4 * MIB


def test_ctrl_c_while_an_array_is_handed_over(rc: "hpc.RemoteController", monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    rc[0].execute("x = 1")
    monkeypatch.setattr(Voice, "say", interrupt)
    with pytest.raises(KeyboardInterrupt):
        rc[0].push({"x": np.ones(4 * MIB)})
    monkeypatch.undo()
    assert rc[0]["x"] == 1, "half an array is none"
