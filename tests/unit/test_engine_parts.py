"""Capture, namespace, function table and packing of an engine, each alone."""

import io
import linecache
import os
import pickle
import sys
import traceback

import numpy as np
import pytest

from hpc.engine import current
from hpc.engine.capture import BACKLOG, PIECE, Capture
from hpc.engine.current import Identity
from hpc.engine.functions import MAX_FUNCTIONS, FunctionTable
from hpc.engine.interrupts import Bell, Interrupts, Leave
from hpc.engine.namespace import REMEMBERED_SOURCES, Namespace
from hpc.engine.results import own, pack_value, traceback_text
from hpc.engine.start import EngineOptions
from hpc.errors import NoCommunicator, SerializationError
from hpc.wire import objects
from hpc.wire.functions import dump_function
from hpc.wire.objects import Reference


@pytest.fixture
def namespace():
    return Namespace(Identity(3, rank=1, size=4))


@pytest.fixture
def capture():
    return Capture((io.StringIO(), io.StringIO()), lambda: None)


# ---------------------------------------------------------------- capture


def test_text_goes_to_the_original_while_no_task_runs(capture):
    out = capture.streams[0]
    print("log", file=out)
    assert capture._originals[0].getvalue() == "log\n"
    assert not capture


def test_text_of_a_task_in_order_by_stream(capture):
    out, err = capture.streams
    capture.active = True
    print("a", "b", file=out)
    print("c", file=err)
    print("d", file=out)
    assert capture.take() == [("stdout", "a b\n"), ("stderr", "c\n"), ("stdout", "d\n")]
    assert not capture


def test_pieces_are_bounded_and_lone_surrogates_travel_as_escapes(capture):
    capture.active = True
    capture.streams[0].write("x" * (2 * PIECE + 1))
    capture.streams[1].write("\ud800é")
    assert [len(text) for _, text in capture.take()] == [PIECE, PIECE, 1, 7]


def test_whoever_prints_too_much_waits_until_it_is_taken():
    taken = []
    capture = Capture((None, None), lambda: taken.extend(capture.take()))
    capture.active = True
    for _ in range(8):
        capture.streams[0].write("x" * (BACKLOG // 2))
    assert sum(len(text) for _, text in taken) + sum(len(text) for _, text in capture.take()) == 4 * BACKLOG


def test_streams_behave_like_files(capture, tmp_path):
    out = capture.streams[0]
    capture.active = True
    assert out.writable()
    assert not out.isatty()
    assert not out.closed
    out.buffer.write("é\n".encode())
    out.close()
    out.reconfigure(line_buffering=True)
    print("still open", file=out, flush=True)
    assert capture.take() == [("stdout", "é\nstill open\n")]
    with pytest.raises(TypeError, match="must be str, not bytes"):
        out.write(b"x")
    with open(tmp_path / "original", "w") as original:
        assert Capture((original, None), lambda: None).streams[0].fileno() == original.fileno()
    with pytest.raises(io.UnsupportedOperation):
        Capture((None, None), lambda: None).streams[0].fileno()


def test_a_forked_child_prints_to_the_log(capture):
    capture.active = True
    print("the parent's", file=capture.streams[0])
    capture.forked()
    print("the child's", file=capture.streams[0])
    assert capture._originals[0].getvalue() == "the child's\n"


# ---------------------------------------------------------------- namespace


def test_a_new_namespace_knows_its_engine(namespace):
    namespace.execute("triple = (id, rank, size, comm)", "<x>")
    assert namespace.pull(["triple", "rank"]) == [(3, 1, 4, None), 1]


def test_the_name_id_is_a_number_and_still_the_builtin(namespace):
    thing = object()
    assert namespace.names["id"] == 3
    assert namespace.names["id"](thing) == id(thing)
    assert type(pickle.loads(pickle.dumps(namespace.names["id"]))) is int


def test_push_and_pull_with_dots(namespace):
    namespace.push({"a": 1, "np": np})
    namespace.execute("class Box: pass\nbox = Box()", "<x>")
    namespace.push({"box.value": 5})
    assert namespace.pull(["a", "box.value", "np.float64"]) == [1, 5, np.float64]


def test_a_missing_name_says_which_and_where(namespace):
    with pytest.raises(NameError, match=r"name 'nowhere' is not defined on engine 3 \(rank 1 of 4\)") as caught:
        namespace.pull(["nowhere.value"])
    assert caught.value.name == "nowhere"
    with pytest.raises(AttributeError, match="no_such"):
        namespace.pull(["rank.no_such"])


def test_references(namespace):
    namespace.push({"a": [1, 2]})
    assert namespace.resolve(Reference("a")) is namespace.names["a"]
    assert namespace.resolve(Reference("a", engine=3)) is namespace.names["a"]
    assert namespace.resolve("a") == "a"
    far = Reference("a", engine=5)
    with pytest.raises(NameError, match="not sent to engine 3"):
        namespace.resolve(far)
    assert namespace.export(["a"]) == {Reference("a", engine=3): [1, 2]}
    namespace.bring([objects.dumps({far: [5]}), objects.dumps(namespace.export(["a"]))])
    assert namespace.resolve(far) == [5]
    assert namespace.resolve(Reference("a", engine=3)) is namespace.names["a"]
    namespace.push({"b": Reference("a", engine=3), "c": far})
    assert namespace.names["b"] == [1, 2]
    assert namespace.names["b"] is not namespace.names["a"]
    namespace.forget()
    assert namespace.names["c"] == [5]
    assert not namespace.brought


def test_run_sets_file_for_its_time(namespace):
    namespace.run("seen = (__name__, __file__)", "/somewhere/script.py")
    assert namespace.names["seen"] == ("__main__", "/somewhere/script.py")
    assert "__file__" not in namespace.names


def test_tracebacks_show_executed_source(namespace):
    with pytest.raises(ZeroDivisionError) as caught:
        namespace.execute("def f():\n    return 1 / 0  # here\nf()", "<client 3, execute 7>")
    text = traceback_text(caught.value.with_traceback(caught.tb.tb_next))
    assert 'File "<client 3, execute 7>", line 2, in f\n    return 1 / 0  # here' in text
    assert "namespace.py" not in text


def test_old_sources_are_forgotten(namespace):
    for serial in range(REMEMBERED_SOURCES + 2):
        namespace.execute("pass", f"<test source {serial}>")
    assert "<test source 0>" not in linecache.cache
    assert f"<test source {REMEMBERED_SOURCES + 1}>" in linecache.cache


def test_classes_of_a_namespace_pickle_by_name(namespace, monkeypatch):
    monkeypatch.setitem(sys.modules, "__main__", namespace.module)
    namespace.execute("class Point:\n    def __init__(self, x): self.x = x\np = Point(2)", "<x>")
    assert pickle.loads(pickle.dumps(namespace.names["p"])).x == 2


def test_comm_outside_of_engines_and_without_mpi(monkeypatch):
    with pytest.raises(NoCommunicator, match="this process is none"):
        current.comm()
    monkeypatch.setattr(current, "engine", Identity(2))
    with pytest.raises(NoCommunicator, match="engine 2 was started without MPI"):
        current.comm()
    monkeypatch.setattr(current, "engine", Identity(2, comm="the communicator"))
    assert current.comm() == "the communicator"


# ---------------------------------------------------------------- functions


def test_functions_are_loaded_when_first_needed():
    table = FunctionTable({b"!pull": len})
    blob = dump_function(os.path.join)
    table.define(blob.digest, blob.name, blob.by_reference, blob.by_value)
    (pull, join), missing = table.find([b"!pull", blob.digest])
    assert (pull.call([1, 2]), missing) == (2, [])
    assert join.binds
    join.prepare()
    assert join.call is os.path.join
    assert not join.binds
    assert table.find([b"!pull", b"unknown"])[1] == [b"unknown"]


def test_builtins_cannot_be_redefined():
    table = FunctionTable({b"!pull": len})
    table.define(b"!pull", "evil", b"x", b"y")
    (pull,), _ = table.find([b"!pull"])
    assert pull.call is len


def test_the_oldest_function_goes_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr("hpc.engine.functions.MAX_FUNCTIONS", 3)
    table = FunctionTable({b"!pull": len})
    for n in range(5):
        table.define(b"digest %d" % n, "f", b"x", b"")
    assert table.find([b"digest 1", b"digest 2", b"!pull"])[1] == [b"digest 1"]
    assert MAX_FUNCTIONS > 1000


def test_a_function_that_cannot_be_loaded_says_so_each_time():
    table = FunctionTable({})
    table.define(b"d", "nowhere.f", pickle.dumps(1).replace(b"K", b"X"), b"")
    (held,), _ = table.find([b"d"])
    for _ in range(2):
        with pytest.raises(SerializationError, match=r"function nowhere\.f cannot be loaded"):
            held.prepare()


# ---------------------------------------------------------------- results


def test_a_result_that_others_hold_is_copied():
    shared = np.arange(10_000.0)
    _, buffers = pack_value(shared)
    (mine,) = own(buffers)
    shared[:] = 0
    assert np.frombuffer(mine)[9] == 9


def test_a_view_of_something_shared_is_copied():
    shared = np.arange(10_000.0)
    _, buffers = pack_value(shared[:6000])
    (mine,) = own(buffers)
    shared[:] = 0
    assert np.frombuffer(mine)[9] == 9


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_result_that_nobody_else_holds_is_not_copied(order):
    _, buffers = pack_value([np.ones((100, 80), order=order)])
    assert len(buffers) == 1
    assert own(buffers)[0] is buffers[0]


@pytest.mark.parametrize("value", [None, True, 3, 2.5, "text", b"bytes", (1, [2]), {"a": np.float64(1)}])
def test_values_travel(value):
    payload, buffers = pack_value(value)
    assert pickle.loads(payload) == value
    assert buffers == []


def test_tracebacks_survive_exceptions_that_cannot_be_shown():
    class HostileError(Exception):
        def __str__(self):
            raise RuntimeError("no")

    text = traceback_text(HostileError())
    assert "HostileError" in text
    assert "\n" in "".join(traceback.format_exception_only(HostileError()))


# ---------------------------------------------------------------- signals, options


def test_signals_between_tasks_leave_a_note_only():
    said = []
    interrupts = Interrupts(said.append)
    interrupts._handle(15, None)
    assert interrupts.leaving == "SIGTERM"
    interrupts.waiting = True
    with pytest.raises(Leave, match="SIGTERM"):
        interrupts._handle(15, None)


def test_an_interrupt_that_comes_too_late_does_nothing():
    interrupts = Interrupts(lambda text: None)
    interrupts.pending = True
    interrupts.waiting = True
    interrupts._handle(2, None)
    assert not interrupts.leaving


def test_ctrl_c_in_a_task_interrupts_the_task_and_says_how_to_end():
    said = []
    interrupts = Interrupts(said.append)
    interrupts.in_task = True
    with pytest.raises(KeyboardInterrupt):
        interrupts._handle(2, None)
    assert not interrupts.leaving
    assert "Ctrl-C while the engine is idle ends the engine" in said[0]


def test_a_bell_is_never_too_full():
    bell = Bell()
    for _ in range(70_000):
        bell.ring()
    assert set(bell.hush()) == {0}
    assert bell.hush() == b""
    bell.close()


@pytest.mark.parametrize(
    ("options", "address"),
    [
        ({}, None),
        ({"controller_ip": "host0"}, ("host0", 10000)),
        ({"controller_port": 10001}, ("127.0.0.1", 10001)),
        ({"controller_ip": "host0", "controller_port": 1}, ("host0", 1)),
    ],
)
def test_addresses_of_options(options, address):
    assert EngineOptions(**options).address == address
