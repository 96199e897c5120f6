"""What an engine does while user code runs: early results, revokes, interrupts, output."""

import math
import os
import time
from types import SimpleNamespace

import pytest
from engine_harness import (
    CLIENT,
    busy_file,
    calls_body,
    playing,
    square,
    value_of,
    wait_for,
    wait_if,
)

from hpc.engine.capture import Capture
from hpc.engine.control import Control
from hpc.engine.interrupts import Interrupts
from hpc.engine.ledger import Ledger
from hpc.wire import messages as m


@pytest.fixture
def engine(tmp_path):
    with playing(tmp_path) as controller:
        yield controller


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


def test_quick_items_leave_while_a_slow_one_runs_when_each_is_a_slice_of_its_own(engine, tmp_path):
    gate = tmp_path / "gate"
    engine.run_span(wait_if, ["", str(gate)], limit_s=60)
    assert list(engine.outcomes(1)) == [0]
    gate.touch()
    assert list(engine.outcomes(1)) == [1]


def test_a_limit_that_is_far_away_delays_no_result(engine, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    engine.run_calls(wait_if, [("",), ("",), (str(first),), ("",), (str(second),)], limit_s=60)
    assert list(engine.outcomes(2)) == [0, 1]
    first.touch()
    assert list(engine.outcomes(2)) == [2, 3]
    second.touch()
    assert list(engine.outcomes(1)) == [4]


def test_only_a_look_that_is_near_counts_as_one(tmp_path):
    """Whoever finds that the other thread will look soon does not wake it: a look at text is not soon for results."""
    ledger = Ledger()
    place = SimpleNamespace(ledger=ledger, capture=Capture((None, None), lambda: None), interrupts=Interrupts(print))
    session = SimpleNamespace(session=SimpleNamespace(kept_nbytes=0))
    channel = SimpleNamespace(connection=SimpleNamespace(route="unix"), peer=session)
    control = Control(channel, channel, place, None, departure=SimpleNamespace(end=math.inf), lease_s=60)

    def looks():
        ledger.armed = True  # as when it was woken
        return control._timeout_s() < 0.01, ledger.armed, ledger.listening

    ledger.key, ledger.running_since = (CLIENT, 1), time.time()
    place.capture.active = True
    ledger.limit_s = 60.0
    assert looks() == (False, False, False)
    place.capture.write(0, "text")
    assert looks() == (False, False, True)
    ledger.hold_entry(0, m.Entry(m.Status.DONE, time.time(), time.time(), b""), None)
    assert looks() == (True, True, True)


# ---------------------------------------------------------------- revoke


def revoke(engine, start, stop, first=1):
    engine.tell("control", m.Revoke(CLIENT, first, start, stop))
    answer, _, _ = engine.expect(m.Revoked)
    assert (answer.client, answer.first) == (CLIENT, first)
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


def test_the_answer_to_a_revoke_in_the_middle_comes_before_the_results_beyond_it(engine, tmp_path):
    gate = tmp_path / "gate"
    engine.run_calls(wait_if, [("",), (str(gate),), ("",), ("",)])
    assert list(engine.outcomes(1)) == [0]
    engine.tell("control", m.Revoke(CLIENT, 1, 2, 3))
    _, _, channel = engine.expect(m.Revoked)
    assert channel == "work"
    gate.touch()
    assert list(engine.outcomes(2)) == [1, 3]


def test_revoke_of_what_is_done(engine):
    engine.run_calls(square, [(1,), (2,)])
    engine.outcomes(2)
    assert revoke(engine, 0, 2) == (2, 2)


# ---------------------------------------------------------------- interrupt


def test_interrupt_ends_the_running_task_only(engine, tmp_path):
    flag = tmp_path / "flag"
    body = calls_body([(str(flag),), (str(flag),)], [0, 1])
    engine.run(body, [engine.define(busy_file), engine.define(os.path.basename)], 2)
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
    assert sorted(pieces) == list(range(entry.n_outputs))
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
    assert engine.printed(code) == "in the parent\n"
    assert engine.printed("print(1)", 2) == "1\n"


@pytest.mark.parametrize(("end", "code"), [("pass", 0), ("1 / 0", 1)])
def test_a_forked_child_that_comes_out_of_its_task_ends(engine, end, code):
    text = f"""if True:
        import os
        pid = os.fork()
        if pid:
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        else:
            {end}
    """
    assert engine.printed(text) == f"{code}\n"
    assert engine.printed("print(pid > 0)", 2) == "True\n"


def test_signals_to_forked_children_stay_with_them(engine):
    code = """if True:
        import multiprocessing, time
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        child.terminate()
        child.join()
        print(child.exitcode)
    """
    assert engine.printed(code) == "-15\n"
    assert engine.printed("print(1)", 2) == "1\n"
