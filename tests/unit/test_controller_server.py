"""The controller as a whole, with peers that speak the protocol over real connections."""

import os
import signal
import subprocess
import sys
import time

import pytest
from controller_harness import (
    engine_info,
    spawn_engine,
)

from hpc.controller.server import ControllerOptions, run_controller
from hpc.errors import ConnectError
from hpc.security import connection
from hpc.wire import messages as m

FUNCTION = b"0123456789abcdef"

pytestmark = pytest.mark.usefixtures("hang_up")


def work_round(client, engine, first, frames=(b"body",)):
    """Submit two tasks for the engine, have it run them, return what is delivered."""
    client.say(m.Define(FUNCTION, "f"), (b"", b"by value"))
    client.say(m.Submit(first, 2, m.Kind.CALLS, [FUNCTION], [engine.id], 0.0), frames)
    run, body = engine.work.hear(m.Run)
    assert (run.first, run.start, run.stop, body) == (first, 0, 2, list(frames))
    engine.work.say(m.Results(run.client, first, 0, 2, False, [], 0.0), (b"entries", b"buffer"))
    return client.hear(m.Delivery)


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_work_goes_out_and_results_come_back(shared, tcp):
    client, engine = shared.client(tcp=tcp), shared.engine(tcp=tcp)
    engines, _ = client.hear(m.Engines, where=lambda e: any(row.id == engine.id for row in e.joined))
    assert client.got[1].snapshot
    delivery, frames = work_round(client, engine, 1)
    assert delivery.items == [m.Delivered(1, 0, 2, engine.id, False, 2)]
    assert [bytes(f) for f in frames] == [b"entries", b"buffer"]
    defined = [message for message in engine.work.got if isinstance(message, m.Define)]
    assert len(defined) == 1
    work_round(client, engine, 3)
    assert [message for message in engine.work.got if isinstance(message, m.Define)] == defined
    engine.close()


def test_large_frames_pass_through(shared):
    client, engine = shared.client(), shared.engine()
    blob = os.urandom(3_000_000)
    client.say(m.Define(FUNCTION, "f"), (b"", b"by value"))
    client.say(m.Submit(1, 1, m.Kind.EACH, [FUNCTION], [engine.id], 0.0), (b"head", blob))
    run, body = engine.work.hear(m.Run)
    assert body[1] == blob
    engine.work.say(m.Results(run.client, 1, 0, 1, False, [], 0.0), body)
    assert client.hear(m.Delivery)[1][1] == blob
    engine.close()


def test_results_of_one_round_travel_together(shared):
    client, engine = shared.client(), shared.engine()
    client.say(m.Define(FUNCTION, "f"), (b"", b"by value"))
    client.say(m.Submit(1, 100, m.Kind.SPAN, [FUNCTION], [engine.id], 0.0), (b"columns",))
    run, _ = engine.work.hear(m.Run)
    for offset in range(100):
        engine.work.say(m.Results(run.client, 1, offset, offset + 1, True, [], 0.0), (b"%d" % offset,))
    items, frames = [], []
    while len(items) < 100:
        delivery, body = client.hear(m.Delivery)
        items += delivery.items
        frames += body
    assert [(item.start, item.stop) for item in items] == [(i, i + 1) for i in range(100)]
    assert [int(bytes(frame)) for frame in frames] == list(range(100))
    engine.close()


def test_a_client_that_comes_back_gets_what_it_missed(shared):
    client, engine = shared.client(), shared.engine()
    client.say(m.Define(FUNCTION, "f"), (b"", b"by value"))
    client.say(m.Submit(1, 1, m.Kind.EACH, [FUNCTION], [engine.id], 0.0), (b"body",))
    run, _ = engine.work.hear(m.Run)
    client.cut()
    engine.work.say(m.Results(run.client, 1, 0, 1, False, [], 0.0), (b"entries",))
    client.connect()
    welcome, _ = client.hear(m.Welcome)
    assert welcome.resumed
    delivery, frames = client.hear(m.Delivery)
    assert delivery.items[0].first == 1
    assert frames == [b"entries"]
    engine.close()


def test_an_engine_that_comes_back_keeps_id_and_work(shared):
    client, engine = shared.client(), shared.engine()
    client.say(m.Define(FUNCTION, "f"), (b"", b"by value"))
    client.say(m.Submit(1, 1, m.Kind.EACH, [FUNCTION], [engine.id], 0.0), (b"body",))
    run, _ = engine.work.hear(m.Run)
    engine.close()
    client.hear(m.Engines, where=lambda e: any((row.id, row.state) == (engine.id, "unreachable") for row in e.joined))
    client.say(m.Submit(2, 1, m.Kind.EACH, [FUNCTION], [engine.id], 0.0), (b"body",))
    engine.work.say(m.Results(run.client, 1, 0, 1, False, [], 0.0), (b"entries",))
    engine.work.connect()
    welcome, _ = engine.work.hear(m.Welcome)
    assert (welcome.id, welcome.resumed) == (engine.id, True)
    client.hear(m.Engines, where=lambda e: any(row.id == engine.id for row in e.joined))
    assert client.hear(m.Delivery)[1] == [b"entries"]
    assert engine.work.hear(m.Run)[0].first == 2
    engine.close()


def test_a_group_is_shown_at_once_with_ids_by_rank(shared):
    client = shared.client()
    client.hear(m.Engines)
    infos = [engine_info(rank=rank, size=3, group="three") for rank in range(3)]
    engines = {rank: shared.engine(infos[rank]) for rank in (2, 0)}
    client.say(m.Query(1, "ping"))
    client.hear(m.Answer)
    assert not [row for e in client.got if isinstance(e, m.Engines) for row in e.joined if row.group == "three"]
    engines[1] = shared.engine(infos[1])
    message, _ = client.hear(m.Engines)
    assert [(row.rank, row.id) for row in message.joined] == [(r, engines[0].id + r) for r in range(3)]
    client.say(m.Shutdown(2, [engines[1].id], False))
    assert "one MPI group" in client.hear(m.Answer)[0].error
    client.say(m.Shutdown(3, [engine.id for engine in engines.values()], False))
    assert not client.hear(m.Answer)[0].error
    for engine in engines.values():
        engine.control.hear(m.Stop)
        engine.control.say(m.Goodbye("told to"))
    ends = []
    while len(ends) < 3:
        ends += client.hear(m.Engines)[0].left
    assert {end.reason for end in ends} == {m.EndReason.SHUTDOWN}


@pytest.mark.skipif(sys.platform != "linux", reason="pidfds")
@pytest.mark.parametrize("reaped", [True, False], ids=["reaped", "zombie"])
def test_a_killed_engine_is_reported_with_its_signal_at_once(shared, reaped):
    client = shared.client()
    process = spawn_engine(shared.name)
    row = client.hear(m.Engines, where=lambda e: any(r.pid == process.pid for r in e.joined))[0].joined[0]
    client.say(m.Define(FUNCTION, "f"), (b"", b"by value"))
    client.say(m.Submit(1, 1, m.Kind.EACH, [FUNCTION], [row.id], 0.0), (b"body",))
    killed = time.monotonic()
    process.kill()
    if reaped:
        process.wait()
    message, _ = client.hear(m.Engines, where=lambda e: bool(e.left))
    took_s = time.monotonic() - killed
    assert took_s < 1
    (end,) = message.left
    assert (end.id, end.pid, end.signal, end.reason) == (row.id, process.pid, signal.SIGKILL, m.EndReason.SIGNAL)
    ended, _ = client.hear(m.Ended)
    assert (ended.first, ended.reason, ended.end) == (1, m.EndReason.SIGNAL, end)
    assert "SIGKILL" in ended.detail
    process.wait()
    process.stdin.close()
    process.stdout.close()


@pytest.mark.skipif(sys.platform != "linux", reason="pidfds")
def test_an_exit_status_is_reported(shared):
    client = shared.client()
    process = spawn_engine(shared.name)
    client.hear(m.Engines, where=lambda e: any(r.pid == process.pid for r in e.joined))
    process.communicate("7\n")
    (end,) = client.hear(m.Engines, where=lambda e: bool(e.left))[0].left
    assert (end.reason, end.exit_code, end.signal) == (m.EndReason.EXIT, 7, 0)


def test_the_launcher_tells_how_a_remote_engine_ended(shared):
    client, engine = shared.client(), shared.engine(engine_info(host="elsewhere", pid=4711))
    client.hear(m.Engines, where=lambda e: any(r.id == engine.id for r in e.joined))
    shared.tell(m.Exited("elsewhere", 4711, 0, 11, "core dumped"))
    (end,) = client.hear(m.Engines, where=lambda e: bool(e.left))[0].left
    assert (end.id, end.signal) == (engine.id, 11)
    assert "SIGSEGV" in end.detail
    engine.close()


def test_an_engine_that_stays_away_is_lost(controller):
    running = controller(grace_s=0.1)
    client, engine = running.client(tcp=True), running.engine(engine_info(host="elsewhere"), tcp=True)
    client.hear(m.Engines, where=lambda e: bool(e.joined))
    engine.close()
    (end,) = client.hear(m.Engines, where=lambda e: bool(e.left))[0].left
    assert end.reason is m.EndReason.VANISHED
    engine.work.peer.session.received = 3
    engine.work.connect()
    assert "does not know its session" in engine.work.hear(m.Refused)[0].reason


# ---------------------------------------------------------------- who is not let in


def test_an_end_leaves_nothing_behind(controller):
    running = controller(engine_port=0)
    info, for_engines = (connection.find(role, name=running.name) for role in ("client", "engine"))
    assert {path.name for path in running.directory.glob("*.json")} == {
        f"{role}.json" for role in ("client", "engine", "monitor", "controller")
    }
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in running.directory.glob("*.json"))
    assert len({info.public_key, for_engines.public_key}) == 2
    assert for_engines.engine_addresses
    client, engine = running.client(), running.engine(tcp=True)
    running.launched.close()
    assert engine.control.hear(m.Stop)[0].reason == "its supervisor has ended"
    assert client.hear(m.Goodbye)[0].reason == "its supervisor has ended"
    assert running.stop() == 0
    assert not list(running.directory.glob("*.json"))
    assert not os.path.exists(info.unix)
    assert not os.path.exists(os.path.dirname(info.unix))
    with pytest.raises(ConnectError, match="there is no cluster"):
        connection.find("client", name=running.name)


def test_a_second_controller_says_who_has_the_port_and_the_name(controller):
    running = controller()
    (port,) = {port for _, port in connection.advertised(connection.find("client", name=running.name))}
    with pytest.raises(ConnectError, match=rf"port {port} is in use .*{running.name}.*pid {os.getpid()}.*--port"):
        run_controller(ControllerOptions(name="second", ip="127.0.0.1", port=port))
    with pytest.raises(ConnectError, match=rf"{running.name}' has a controller already: pid {os.getpid()}"):
        run_controller(ControllerOptions(name=running.name, ip="127.0.0.1", port=0))
    assert not list(connection.cluster_dir("second").glob("*"))


def test_a_client_ends_the_controller(controller):
    running = controller()
    client = running.client()
    client.say(m.Shutdown(5, None, True))
    assert client.hear(m.Answer)[0].request == 5
    client.hear(m.Goodbye)
    client.hear_end()
    running.thread.join(5)
    assert running.status == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(tmp_path, signum):
    program = (
        "from hpc.controller.server import *; import sys;"
        "sys.exit(run_controller(ControllerOptions(name='signalled', ip='127.0.0.1', port=0)))"
    )
    environment = {**os.environ, "HPC_DIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.PIPE, text=True)
    line = process.stderr.readline()
    assert "listening at tcp://127.0.0.1:" in line
    process.send_signal(signum)
    _, rest = process.communicate(timeout=10)
    assert process.returncode == 0
    assert signum.name in rest
    assert not list((tmp_path / "clusters" / "signalled").glob("*.json"))


def test_no_secret_is_logged(shared):
    log = shared.log()
    for role in ("client", "engine", "monitor", "controller"):
        info = connection.ConnectionInfo.load(shared.directory / f"{role}.json")
        assert info.secret_key not in log


def test_status_describes_controller_and_engines(shared):
    client, engine = shared.client(), shared.engine()
    client.say(m.Query(9, "status"))
    answer = client.hear(m.Answer)[0].value
    assert answer["controller"]["pid"] == os.getpid()
    rows = {row["id"]: row for row in answer["engines"]}
    assert rows[engine.id]["state"] == "idle"
    client.say(m.Query(10, "nonsense"))
    assert "no such query" in client.hear(m.Answer)[0].error
    engine.close()
