"""A whole engine, in a child process, at work for a scripted controller over a real unix socket."""

import threading

import numpy as np
import pytest
from engine_harness import (
    calls_body,
    fail_at_3,
    playing,
    square,
    value_of,
)

from hpc.errors import SerializationError
from hpc.wire import messages as m
from hpc.wire.objects import Reference


@pytest.fixture
def engine(tmp_path):
    with playing(tmp_path) as controller:
        yield controller


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
    # The change comes in the same bundle, while the first result may still be held.
    body = calls_body([(["x"],), ("x += 1", "<change>"), (["x"],)], [0, 1, 0])
    engine.run(body, [b"!pull", b"!execute"], 3, first=50)
    before, _, after = engine.values(3, 50)
    assert before[0].max() == 0
    assert after[0].min() == 1


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
    engine.run_span(max, [2, 1, 0], np.arange(3), (0, 5, 1))
    assert engine.values(3) == [2, 5, 2]


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
