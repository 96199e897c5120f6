"""A whole engine in a child process, played against by a scripted controller over a real unix socket."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from engine_harness import CLIENT, ScriptedController, calls_body, playing, value_of

from hpc.engine import control
from hpc.errors import SerializationError
from hpc.wire import messages as m
from hpc.wire import objects
from hpc.wire.objects import Reference

THIS = os.path.basename(__file__)


@pytest.fixture
def engine(tmp_path):
    with playing(tmp_path) as controller:
        yield controller


# Tasks. They travel by value: the module is not installed.


def square(x):
    return x * x


def nap(seconds):
    time.sleep(seconds)
    return seconds


def wait_for(path):
    """Return when the test says so."""
    while not os.path.exists(path):
        time.sleep(0.001)
    return "released"


def wait_if(path):
    return wait_for(path) if path else "quick"


def fail_at_3(x):
    if x % 10 == 3:
        raise ValueError(f"no {x}")
    return x


def busy_file(path):
    """Say that the task has begun, then never end by itself."""
    open(path, "w").close()
    while True:
        time.sleep(0.001)


# ---------------------------------------------------------------- work


def test_registration(engine):
    assert engine.info.pid == engine.pid
    assert (engine.info.rank, engine.info.size, engine.info.group) == (0, 1, engine.info.uuid)
    assert engine.info.started > 0
    assert engine.execute("").status == m.Status.DONE


def test_calls(engine):
    engine.run_calls(square, [(i,) for i in range(100)])
    assert engine.values(100) == [i * i for i in range(100)]


def test_a_part_of_a_bundle(engine):
    engine.run_calls(square, [(i,) for i in range(10)], start=4, stop=7)
    assert {k: value_of(v) for k, v in engine.outcomes(3).items()} == {4: 16, 5: 25, 6: 36}


def test_each_engine_makes_the_one_call(engine):
    engine.run_calls(square, [(5,)], start=17, stop=18, kind=m.Kind.EACH)
    assert value_of(engine.outcomes(1)[17]) == 25


def test_arrays_travel_out_of_band_each_with_its_task(engine):
    arrays = [np.full(10_000, float(i)) for i in range(4)]
    engine.run_calls(square, [(arrays[0],), (2,), (arrays[2],), (arrays[3],)])
    first, second, third, fourth = engine.values(4)
    assert (first[0], second, third[0], fourth[9999]) == (0, 4, 4, 9)


def test_small_arrays_arrive_writable(engine):
    def fill(a):
        a[:] = 7
        return a

    engine.run_calls(fill, [(np.zeros(3),)])
    assert engine.values(1)[0].tolist() == [7, 7, 7]


def test_a_later_task_does_not_change_an_earlier_result(engine):
    engine.execute("import numpy; x = numpy.zeros(100_000)")
    body = calls_body([(["x"],), (["x"],)])
    # The change comes in the same bundle, while the first result may still be held.
    calls = [(["x"],), ("x += 1", "<change>"), (["x"],)]
    body = calls_body(calls)
    entries = [tuple(entry) for entry in _calls(body)]
    entries[1] = (1, *entries[1][1:])
    engine.run([_encode(entries)], [b"!pull", b"!execute"], 3, first=50)
    before, _, after = engine.values(3, 50)
    assert before[0].max() == 0
    assert after[0].min() == 1


def _calls(body):
    from hpc.wire import codec

    return codec.decode_calls(body[0])


def _encode(entries):
    from hpc.wire import codec

    return codec.encode_calls(entries)


def test_references_are_resolved_on_the_engine(engine):
    engine.execute("a = 12")
    engine.run_calls(square, [(Reference("a"),), (Reference("missing"),)], first=10)
    good, bad = engine.values(2, 10)
    assert good == 144
    assert isinstance(bad, NameError)


def test_push_pull_and_the_namespace_of_functions(engine):
    engine.run_calls(b"!push", [({"x": 5},)], first=10)
    assert engine.values(1, 10) == [None]
    engine.execute("def f(): return x + rank", 20)
    engine.run_calls(b"!pull", [(["x", "id", "f.__module__"],)], first=30)
    assert engine.values(1, 30) == [[5, 3, "__main__"]]


def test_unknown_functions_are_asked_for(engine):
    engine.run(calls_body([(3,)]), [b"?" * 16], 1)
    need, _, channel = engine.expect(m.Need)
    assert (need.digests, need.start, need.stop, channel) == ([b"?" * 16], 0, 1, "work")
    engine.run_calls(square, [(3,)])
    assert engine.values(1) == [9]


def test_malformed_bundles_fail_and_the_engine_goes_on(engine):
    digest = engine.define(square)
    engine.run([b"garbage"], [digest], 2)
    assert [type(value_of(entry)).__name__ for entry in engine.outcomes(2).values()] == ["ProtocolError"] * 2
    engine.run(calls_body([(1,)]), [digest], 3, first=10)
    assert all(entry.status for entry in engine.outcomes(3, 10).values())
    engine.run([b"garbage"], [digest], 3, first=20, kind=m.Kind.SPAN)
    assert all(entry.status for entry in engine.outcomes(3, 20).values())
    engine.run(calls_body([(1,)]), [], 1, first=30)
    assert engine.outcomes(1, 30)[0].status
    assert engine.execute("", 40).status == m.Status.DONE


# ---------------------------------------------------------------- errors


def test_a_traceback_has_the_users_frames_only(engine):
    def outer():
        return fail_at_3(3)

    engine.run_calls(outer, [()])
    (error,) = engine.values(1)
    assert isinstance(error, ValueError)
    assert "in outer" in error.traceback
    assert "in fail_at_3" in error.traceback
    assert "hpc/engine" not in error.traceback


def test_system_exit_ends_the_task_not_the_engine(engine):
    entry = engine.execute("import sys; sys.exit(3)")
    assert value_of(entry).ename == "SystemExit"
    assert engine.execute("", 2).status == m.Status.DONE


def test_a_result_that_cannot_travel_is_an_error_of_its_task(engine):
    def lock():
        return threading.Lock()

    engine.run_calls(lock, [()])
    (error,) = engine.values(1)
    assert isinstance(error, SerializationError)
    assert "lock" in str(error)


def test_syntax_errors(engine):
    error = value_of(engine.execute("x = = 1"))
    assert isinstance(error, SyntaxError)
    assert 'File "<client 7, execute 1>", line 1' in error.traceback


# ---------------------------------------------------------------- spans


def test_span_comes_packed(engine):
    engine.run_span(square, range(5000))
    assert engine.values(5000) == [i * i for i in range(5000)]


def test_span_of_several_columns_and_arrays(engine):
    engine.run_span(pow, [2, 3, 4], np.arange(3), (5, 5, 5))
    assert engine.values(3) == [1, 3, 1]


def test_span_of_arrays(engine):
    engine.run_span(np.sum, [np.full(9000, 1.0), np.full(9000, 2.0)])
    assert engine.values(2) == [9000, 18000]


def test_span_in_parts(engine):
    digest = engine.define(square)
    for start in (0, 40, 70):
        engine.run_span(digest, list(range(100)), start=start, stop={0: 40, 40: 70, 70: 100}[start])
    assert engine.values(100) == [i * i for i in range(100)]


def test_items_that_fail_fail_alone(engine):
    engine.run_span(fail_at_3, range(1000))
    for offset, entry in engine.outcomes(1000).items():
        value = value_of(entry)
        if offset % 10 == 3:
            assert isinstance(value, ValueError)
            assert value.evalue == f"no {offset}"
        else:
            assert value == offset


def test_stop_iteration_from_a_function_does_not_end_its_span(engine):
    def stop_at_5(x):
        if x == 5:
            raise StopIteration
        return x

    engine.run_span(stop_at_5, range(40))
    values = engine.values(40)
    assert values[:5] + values[6:] == [0, 1, 2, 3, 4, *range(6, 40)]
    assert values[5].ename == "StopIteration"


def test_one_value_of_a_span_that_cannot_travel(engine):
    def odd_one(x):
        return threading.Lock() if x == 50 else x

    engine.run_span(odd_one, range(100))
    values = engine.values(100)
    assert isinstance(values.pop(50), SerializationError)
    assert values == [*range(50), *range(51, 100)]


def test_a_function_that_cannot_be_loaded_fails_every_item(engine):
    engine.tell("work", m.Define(b"d" * 16, "broken"), [b"", b"not a pickle"])
    engine.run_span(b"d" * 16, range(3000))
    outcomes = engine.outcomes(3000)
    assert all(entry.status for entry in outcomes.values())
    assert "broken cannot be loaded" in str(value_of(outcomes[2999]))


# ---------------------------------------------------------------- nothing waits behind a slow task


def test_quick_results_leave_while_a_slow_task_runs(engine, tmp_path):
    gate = tmp_path / "gate"
    engine.run_calls(wait_if, [("",), ("",), (str(gate),), ("",)])
    assert [value_of(entry) for entry in engine.outcomes(2).values()] == ["quick", "quick"]
    gate.touch()
    assert [value_of(entry) for entry in engine.outcomes(2).values()] == ["released", "quick"]


def test_quick_items_leave_while_a_slow_one_runs(engine, tmp_path):
    gate = tmp_path / "gate"
    engine.run_span(wait_if, ["", "", "", str(gate), "", ""])
    assert list(engine.outcomes(3)) == [0, 1, 2]
    gate.touch()
    assert [value_of(entry) for entry in engine.outcomes(3).values()] == ["released", "quick", "quick"]


# ---------------------------------------------------------------- revoke


def revoke(engine, start, stop, first=1):
    engine.tell("control", m.Revoke(CLIENT, first, start, stop))
    answer, _, channel = engine.expect(m.Revoked)
    assert (answer.client, answer.first, channel) == (CLIENT, first, "control")
    return answer.start, answer.stop


@pytest.mark.parametrize("span", [False, True])
def test_revoke_of_a_running_tail(engine, tmp_path, span):
    gate = tmp_path / "gate"
    paths = ["", str(gate), *[""] * 98]
    if span:
        engine.run_span(wait_if, paths)
    else:
        engine.run_calls(wait_if, [(path,) for path in paths])
    assert list(engine.outcomes(1)) == [0]
    assert revoke(engine, 60, 100) == (60, 100)
    assert revoke(engine, 50, 55) == (50, 55)
    assert revoke(engine, 0, 10) == (2, 10)
    gate.touch()
    assert list(engine.outcomes(46)) == [1, *range(10, 50), *range(55, 60)]


def test_revoke_of_what_has_not_been_read(engine, tmp_path):
    gate = tmp_path / "gate"
    engine.run_calls(wait_for, [(str(gate),)])
    digest = engine.define(square)
    engine.run_calls(digest, [(i,) for i in range(10)], first=10)
    assert revoke(engine, 4, 10, first=10) == (4, 10)
    gate.touch()
    assert list(engine.outcomes(4, 10)) == [0, 1, 2, 3]
    engine.run_calls(digest, [(i,) for i in range(10)], first=10, start=4)
    assert list(engine.outcomes(6, 10)) == [4, 5, 6, 7, 8, 9]


def test_revoke_of_what_is_done(engine):
    engine.run_calls(square, [(1,), (2,)])
    engine.outcomes(2)
    assert revoke(engine, 0, 2) == (2, 2)


# ---------------------------------------------------------------- interrupt


def test_interrupt_ends_the_running_task_only(engine, tmp_path):
    flag = tmp_path / "flag"
    body = calls_body([(str(flag),), (str(flag),)])
    entries = [tuple(entry) for entry in _calls(body)]
    entries[1] = (1, *entries[1][1:])
    engine.run([_encode(entries)], [engine.define(busy_file), engine.define(os.path.basename)], 2)
    engine.pump(flag.exists)
    engine.tell("control", m.Interrupt([]))
    first, second = engine.values(2)
    assert isinstance(first, KeyboardInterrupt)
    assert "busy_file" in first.traceback
    assert second == "flag"


def test_interrupt_of_a_map_ends_the_map(engine, tmp_path):
    flag = tmp_path / "flag"
    engine.run_span(busy_file, [str(flag)] * 50)
    engine.pump(flag.exists)
    engine.tell("control", m.Interrupt([]))
    assert all(isinstance(value, KeyboardInterrupt) for value in engine.values(50))
    assert engine.execute("", 100).status == m.Status.DONE


def test_interrupts_at_any_moment_neither_lose_a_task_nor_end_the_engine(engine):
    n = 3000
    body, digest = calls_body([(i,) for i in range(n)]), engine.define(square)
    for serial in range(4):
        engine.run(body, [digest], n, first=1 + serial * n)
        for _ in range(60):
            engine.tell("control", m.Interrupt([]))
            engine.turn(0.0003)
    for serial in range(4):
        for offset, value in enumerate(engine.values(n, 1 + serial * n)):
            assert value == offset * offset or isinstance(value, KeyboardInterrupt)
    engine.tell("control", m.Interrupt([]))
    assert engine.execute("", 10**6).status == m.Status.DONE


# ---------------------------------------------------------------- output


def test_output_of_each_task_is_in_its_entry(engine):
    engine.run_calls(print, [("one",), ("two", 2)])
    assert [entry.stdout for entry in engine.outcomes(2).values()] == ["one\n", "two 2\n"]
    entry = engine.execute("import sys; print('oops', file=sys.stderr); 1/0", 10)
    assert (entry.stderr, entry.n_outputs) == ("oops\n", 0)


def test_output_of_a_span_and_of_threads(engine):
    engine.run_span(print, ["a", "b", "c"])
    assert "".join(entry.stdout for entry in engine.outcomes(3).values()) == "a\nb\nc\n"
    code = "import threading; t = threading.Thread(target=print, args=('from a thread',)); t.start(); t.join()"
    assert engine.execute(code, 10).stdout == "from a thread\n"


def test_output_streams_while_the_task_runs(engine, tmp_path):
    gate = tmp_path / "gate"
    engine.execute("import os, time", 1)
    code = f"print('begun')\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.001)\nprint('end')"
    engine.run_calls(b"!execute", [(code, "<x>")], first=10)
    output, _, channel = engine.expect(m.Output)
    assert (output.client, output.first, output.offset, output.number) == (CLIENT, 10, 0, 0)
    assert (output.stream, output.text, channel) == ("stdout", "begun\n", "control")
    gate.touch()
    entry = engine.outcomes(1, 10)[0]
    assert (entry.stdout, entry.n_outputs) == ("end\n", 1)
    assert engine.execute("print('next')", 20).n_outputs == 0


def test_a_flood_of_output_arrives_complete_in_bounded_pieces(engine):
    code = "for _ in range(400): print('x' * 9999)"
    engine.run_calls(b"!execute", [(code, "<x>")], first=10)
    entry = engine.outcomes(1, 10)[0]
    pieces = {}
    for _ in range(entry.n_outputs):
        output, _, _ = engine.expect(m.Output)
        assert len(output.text) <= 65536
        pieces[output.number] = output.text
    assert list(sorted(pieces)) == list(range(entry.n_outputs))
    assert "".join(pieces[k] for k in sorted(pieces)) + entry.stdout == ("x" * 9999 + "\n") * 400


def test_a_forked_child_disturbs_nothing(engine):
    code = """if True:
        import os
        pid = os.fork()
        if not pid:
            print("in the child")
            os._exit(0)
        os.waitpid(pid, 0)
        print("in the parent")
    """
    assert engine.execute(code).stdout == "in the parent\n"
    assert engine.execute("print(1)", 2).stdout == "1\n"


def test_a_forked_child_that_returns_from_its_task_ends(engine):
    entry = engine.execute("import os\npid = os.fork()\nif pid: print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))")
    assert entry.stdout == "0\n"
    assert engine.execute("print(pid > 0)", 2).stdout == "True\n"


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
    code = f"try:\n    open({str(flag)!r}, 'w')\n    time.sleep(60)\nfinally:\n    open({str(trace)!r}, 'w')"
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
    assert controller.exit_code() == 1
    assert "the controller refuses this engine: the cluster is full" in capfd.readouterr().err
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


def test_without_a_controller_the_engine_ends_after_its_lease(tmp_path):
    with playing(tmp_path, lease_s=0.2) as engine:
        engine.vanish()
        engine.listen = None
        deadline = time.monotonic() + 5
        while (pid := os.waitpid(engine.pid, os.WNOHANG)[0]) == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert pid == engine.pid
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
    with subprocess.Popen([*command, "--log-level", "error"]) as process:
        controller.wait_until_ready()
        controller.execute("import sys; big = [m for m in ('numpy', 'zmq', 'asyncio', 'mpi4py') if m in sys.modules]")
        controller.run_calls(b"!pull", [(["big"],)], first=10)
        assert controller.values(1, 10) == [[]]
        with open(f"/proc/{process.pid}/status") as file:
            rss_kib = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
        assert rss_kib < 35_000
        controller.tell("control", m.Stop("enough"))
        controller.pump(lambda: process.poll() is not None)
        assert process.returncode == 0
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
    assert engine.values(1, 30) == [[False]]
    assert objects.loads(objects.dumps(1)) == 1
