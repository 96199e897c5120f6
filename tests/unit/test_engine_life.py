"""How an engine comes, loses its controller, rests and goes."""

import os
import signal
import subprocess
import sys
import time

import pytest
from engine_harness import (
    CLIENT,
    ScriptedController,
    playing,
    square,
    value_of,
    wait_if,
)

from hpc.engine import control
from hpc.wire import messages as m


@pytest.fixture
def engine(tmp_path):
    with playing(tmp_path) as controller:
        yield controller


# ---------------------------------------------------------------- the end


def test_stop_while_idle(engine):
    engine.tell("control", m.Stop("shutdown"))
    assert engine.expect(m.Goodbye)[0].reason == "shutdown"
    assert engine.exit_code() == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signals_while_idle(engine, signum):
    os.kill(engine.pid, signum)
    assert engine.expect(m.Goodbye)[0].reason == signum.name
    assert engine.exit_code() == 0


@pytest.mark.parametrize("how", ["stop", "signal"])
def test_leaving_unwinds_the_running_task(engine, tmp_path, how):
    engine.execute("import time")
    flag, trace = tmp_path / "flag", tmp_path / "trace"
    code = f"""if True:
        import pathlib
        try:
            pathlib.Path({str(flag)!r}).touch()
            time.sleep(60)
        finally:
            pathlib.Path({str(trace)!r}).touch()
    """
    engine.run_calls(b"!execute", [(code, "<x>")], first=10)
    engine.pump(flag.exists)
    if how == "stop":
        engine.tell("control", m.Stop("shutdown"))
    else:
        os.kill(engine.pid, signal.SIGTERM)
    engine.expect(m.Goodbye)
    assert engine.exit_code() == 0
    assert trace.exists()


def test_leaving_does_not_wait_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(control, "GRACE_S", 0.2)
    with playing(tmp_path) as engine:
        flag = tmp_path / "flag"
        code = f"""if True:
            import time
            while True:
                try:
                    open({str(flag)!r}, 'w').close()
                    time.sleep(60)
                except KeyboardInterrupt:
                    pass
        """
        engine.run_calls(b"!execute", [(code, "<x>")])
        engine.pump(flag.exists)
        engine.tell("control", m.Stop("shutdown"))
        assert engine.exit_code() == 0


# ---------------------------------------------------------------- connections


def test_the_engine_may_start_first(tmp_path):
    controller = ScriptedController(tmp_path)
    controller.start_engine()
    try:
        time.sleep(0.05)
        controller.listen()
        controller.wait_until_ready()
        assert controller.execute("").status == m.Status.DONE
    finally:
        controller.stop()
        controller.server.close()


def test_an_engine_without_a_controller_gives_up_and_says_why(tmp_path, capfd):
    controller = ScriptedController(tmp_path)
    controller.start_engine(wait_s=0.1)
    _, status = os.waitpid(controller.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    said = capfd.readouterr().err
    assert "no controller within 0.1 s" in said
    assert "engine.json" in said


def test_refused(tmp_path, capfd):
    controller = ScriptedController(tmp_path)
    controller.listen()
    controller.refusal = "the cluster is full"
    controller.start_engine()
    try:
        assert controller.exit_code() == 1
        assert "the controller refuses this engine: the cluster is full" in capfd.readouterr().err
    finally:
        controller.stop()
        controller.server.close()


def test_work_survives_a_new_connection(engine, tmp_path):
    gate = tmp_path / "gate"
    uuid = engine.info.uuid
    engine.execute("kept = 5")
    engine.run_calls(wait_if, [("",), (str(gate),), ("",)], first=10)
    assert list(engine.outcomes(1, 10)) == [0]
    engine.vanish()
    gate.touch()
    time.sleep(0.05)
    for peer in engine.channels.values():
        peer.link = None
    engine.listen()
    engine.wait_until_ready()
    assert engine.info.uuid == uuid
    assert [value_of(entry) for entry in engine.outcomes(2, 10).values()] == ["released", "quick"]
    engine.run_calls(b"!pull", [(["kept"],)], first=20)
    assert engine.values(1, 20) == [[5]]


def ended(pid):
    deadline = time.monotonic() + 5
    while (gone := os.waitpid(pid, os.WNOHANG)[0]) == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    return gone == pid


def test_without_a_controller_the_engine_ends_after_its_lease(tmp_path):
    with playing(tmp_path, lease_s=0.2) as engine:
        engine.vanish()
        assert ended(engine.pid)
        engine.pid = 0


def test_over_tcp(tmp_path):
    with playing(tmp_path, "tcp") as engine:
        engine.run_calls(square, [(i,) for i in range(100)])
        assert engine.values(100) == [i * i for i in range(100)]
        gate = tmp_path / "gate"
        engine.run_calls(wait_if, [("",), (str(gate),), ("",), ("",)], first=200)
        assert list(engine.outcomes(1, 200)) == [0]
        engine.tell("control", m.Revoke(CLIENT, 200, 2, 4))
        assert engine.expect(m.Revoked)[0].start == 2
        gate.touch()
        assert list(engine.outcomes(1, 200)) == [1]
        engine.tell("control", m.Stop("shutdown"))
        assert engine.expect(m.Goodbye)[0].reason == "shutdown"
        assert engine.exit_code() == 0


def test_without_a_controller_over_tcp_the_engine_ends_after_its_lease(tmp_path):
    with playing(tmp_path, "tcp", lease_s=0.2) as engine:
        engine.vanish()
        assert ended(engine.pid)
        engine.pid = 0


def test_a_controller_that_says_goodbye_takes_its_engines_along(engine):
    engine.tell("control", m.Goodbye("Ctrl-C"))
    assert engine.exit_code() == 0


# ---------------------------------------------------------------- cost


def switches(pid):
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status") as file:
            total += sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)
    return total


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_idle_engine_does_not_wake_up(engine):
    engine.run_calls(square, [(i,) for i in range(50)])
    engine.outcomes(50)
    time.sleep(0.05)
    before = switches(engine.pid)
    time.sleep(0.3)
    assert switches(engine.pid) == before


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_idle_engine_is_small(tmp_path):
    controller = ScriptedController(tmp_path)
    controller.listen()
    command = [sys.executable, "-m", "hpc.cli.ipengine", "--connection-file", str(controller.file), "--no-mpi"]
    process = subprocess.Popen([*command, "--log-level", "error"])
    try:
        controller.wait_until_ready()
        controller.execute("import sys; big = [m for m in ('numpy', 'zmq', 'asyncio', 'mpi4py') if m in sys.modules]")
        controller.run_calls(b"!pull", [(["big"],)], first=10)
        assert controller.values(1, 10) == [[[]]]
        with open(f"/proc/{process.pid}/status") as file:
            rss_kib = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
        assert rss_kib < 35_000
        controller.tell("control", m.Stop("enough"))
        controller.pump(lambda: process.poll() is not None)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
        controller.server.close()


def test_objects_that_tasks_leave_behind_are_let_go(engine):
    engine.execute("import gc, weakref\nclass C: pass\nseen = []\ndef take(c): seen.append(weakref.ref(c))")

    def make():
        import __main__

        c = __main__.C()
        __main__.take(c)
        return 1

    engine.run_calls(make, [()], first=10)
    engine.outcomes(1, 10)
    engine.run_calls(b"!execute", [("alive = [r() is not None for r in seen]", "<x>")], first=20)
    engine.run_calls(b"!pull", [(["alive"],)], first=30)
    assert engine.values(1, 30) == [[[False]]]
