"""What people type, against a controller that runs tasks in this process."""

import builtins
import logging

import numpy as np
import pytest
from client_harness import FakeController

from hpc.errors import CompositeError, EngineLost, NoEngines, RemoteError
from hpc.wire import messages as m


@pytest.fixture
def fake():
    fake = FakeController(4)
    yield fake
    fake.close()


@pytest.fixture
def rc(fake):
    return fake.client()


def test_it_connects_at_first_use(fake):
    rc = fake.client()
    assert fake.opened == 0
    assert repr(rc) == "<RemoteController the fake, not connected yet>"
    assert rc.getIDs() == rc.ids == [0, 1, 2, 3]
    assert fake.opened == 1
    assert repr(rc) == "<RemoteController the fake, engines 0-3, by unix>"


def test_indexing_gives_views(rc):
    assert rc[0].targets == 0
    assert rc[-1].targets == 3
    assert rc[:].targets == [0, 1, 2, 3]
    assert rc[::2].targets == [0, 2]
    assert rc[[1, 3]].targets == [1, 3]
    assert rc[np.int64(2)].targets == 2
    assert [view.targets for view in rc] == [0, 1, 2, 3]
    assert len(rc) == 4
    assert repr(rc[1:]) == "<DirectView of engines 1-3>"
    assert repr(rc[2]) == "<DirectView of engine 2>"


def test_a_slice_is_fixed_and_all_is_not(fake, rc):
    fixed, everything = rc[:], rc.direct_view("all")
    fake.join(7)
    rc.wait_for_engines(5, timeout=5)
    assert fixed.targets == [0, 1, 2, 3]
    assert everything.targets == [0, 1, 2, 3, 7]
    assert everything.apply(int, "3") == [3] * 5


def test_unknown_engines_are_named(rc):
    with pytest.raises(IndexError, match=r"no engine 9; there are engines 0-3"):
        rc[9]
    with pytest.raises(IndexError, match="no engine -9"):
        rc[-9]
    with pytest.raises(TypeError, match="names are on views"):
        rc["x"]


def test_no_engines():
    fake = FakeController(0)
    with pytest.raises(NoEngines, match="wait_for_engines"):
        fake.client()[:].execute("x = 1")
    fake.close()


def test_one_engine_gives_values_several_give_lists(rc):
    assert rc[2].apply(lambda a, b=0: a + b, 1, b=2) == 3
    assert rc[:].apply(lambda: 5) == [5] * 4
    assert rc[[2]].apply(lambda: 5) == [5]
    rc[:]["x"] = 4
    assert rc[:]["x"] == [4] * 4
    assert rc[1]["x"] == 4
    assert rc[1].pull(["x", "id"]) == [4, 1]
    assert rc[1:3].pull(["x", "id"]) == [[4, 1], [4, 2]]


def test_execute_is_one_message_for_all_engines(fake, rc):
    result = rc[:].execute("y = rank + 10; print(y)")
    assert [(s.kind, s.targets) for s in fake.submits] == [(m.Kind.EACH, [0, 1, 2, 3])]
    assert result.stdout == ["10\n", "11\n", "12\n", "13\n"]
    assert rc[:]["y"] == [10, 11, 12, 13]
    assert rc[3].execute("print('a')").stdout == "a\n"


def test_run_sends_the_text_of_a_file(rc, tmp_path):
    script = tmp_path / "some script.py"
    script.write_text("z = 3")
    rc[:].run(script)
    assert rc[0]["z"] == 3
    script.write_text("z = = 3")
    with pytest.raises(SyntaxError):
        rc[:].run(script)


def test_block_false_returns_results(rc):
    view = rc[:]
    view.block = False
    assert view.apply(lambda: 1).get() == [1] * 4
    assert view.push({"q": 1}).get(5) == [None] * 4
    assert view.scatter("s", [1, 2, 3, 4, 5]).done() in (True, False)
    assert view.gather("s").get() == [1, 2, 3, 4, 5]
    assert view.map(lambda x: -x, [1, 2]).get() == [-1, -2]
    assert view["q"] == [1] * 4
    assert view.apply_sync(lambda: 2) == [2] * 4


@pytest.mark.parametrize("dist", ["block", "cyclic"])
@pytest.mark.parametrize(
    "sequence",
    [[1, 2, 3, 4, 5], (1, 2, 3), "hello world", b"bytes", [], [[1], [2, 3]], list("abcd"), bytearray(b"xyz")],
)
def test_what_is_scattered_comes_back(rc, sequence, dist):
    view = rc[:]
    view.scatter("s", sequence, dist=dist)
    back = view.gather("s")
    assert back == sequence
    assert type(back) is type(sequence)
    assert type(view["s"][0]) is type(sequence)


def test_ranges_and_generators_come_back_as_lists(rc):
    rc[:].scatter("r", range(6))
    assert rc[:]["r"] == [[0, 1], [2, 3], [4], [5]]
    rc[:].scatter("g", (i for i in range(3)))
    assert rc[:].gather("g") == [0, 1, 2]


@pytest.mark.parametrize("dist", ["block", "cyclic"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_arrays_are_divided_along_an_axis(rc, dist, axis):
    a = np.arange(42.0).reshape(6, 7)
    rc[:].scatter("a", a, dist=dist, axis=axis)
    assert np.array_equal(rc[:].gather("a"), a)
    masked = np.ma.masked_greater(a, 20)
    rc[:].scatter("m", masked, dist=dist, axis=axis)
    back = rc[:].gather("m")
    assert isinstance(back, np.ma.MaskedArray)
    assert (back.mask == masked.mask).all()


def test_flatten_unpacks_parts_of_one_item(rc):
    rc[:].scatter("one", [5, 6, 7, 8], flatten=True)
    assert rc[:]["one"] == [5, 6, 7, 8]
    assert rc[:].gather("one") == [5, 6, 7, 8]
    rc[:].scatter("row", np.arange(8).reshape(4, 2), flatten=True)
    assert rc[1]["row"].shape == (2,)
    assert rc[:].gather("row").shape == (4, 2)


def test_gather_of_what_was_never_scattered(rc):
    rc[:].execute("import numpy as np; p = np.full(2, rank); t = (rank,); n = rank; s = str(rank)")
    assert rc[:].gather("p").tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert rc[:].gather("t") == (0, 1, 2, 3)
    assert rc[:].gather("n") == [0, 1, 2, 3]
    assert rc[:].gather("s") == "0123"


def test_bad_distributions_are_refused(rc):
    with pytest.raises(ValueError, match="block"):
        rc[:].scatter("x", [1], dist="random")
    with pytest.raises(ValueError, match="axis"):
        rc[:].scatter("x", [1], axis=1)


def test_errors_of_several_engines_are_composite(rc):
    with pytest.raises(CompositeError) as info:
        rc[:].execute("1 / (rank % 2)")
    assert sorted(info.value.errors) == [0, 2]
    assert isinstance(info.value[2], ZeroDivisionError)
    assert info.value[2].rank == 2
    with pytest.raises(CompositeError, match="engine 3"):
        rc[:].execute("if rank == 3: raise ValueError('engine 3')")


def test_the_error_of_one_engine_is_raised_as_it_is(rc):
    with pytest.raises(ZeroDivisionError) as info:
        rc[1].execute("1 / 0")
    assert isinstance(info.value, RemoteError)
    assert (info.value.engine_id, info.value.host) == (1, "n1")
    with pytest.raises(NameError, match="'nothing' is not defined on engine 1"):
        rc[1]["nothing"]
    with pytest.raises(CompositeError, match="nothing"):
        rc[:]["nothing"]


def test_direct_map_gives_contiguous_parts(fake, rc):
    assert rc[:].map(lambda a, b: (a, b), range(6), "abcdef") == list(zip(range(6), "abcdef", strict=True))
    assert [(s.kind, s.targets, s.count) for s in fake.submits] == [
        (m.Kind.SPAN, [0], 2),
        (m.Kind.SPAN, [1], 2),
        (m.Kind.SPAN, [2], 1),
        (m.Kind.SPAN, [3], 1),
    ]
    assert rc[:].map(str, []) == []
    with pytest.raises(CompositeError):
        rc[:].map(lambda x: 1 / x, [1, 0])
    with pytest.raises(ZeroDivisionError):
        rc[0].map(lambda x: 1 / x, [1, 0])


def test_functions_that_run_elsewhere(rc):
    view = rc[:]

    @view.remote()
    def double(x):
        """Double it."""
        return 2 * x

    assert double(2) == [4] * 4
    assert double.__doc__ == "Double it."

    @view.parallel()
    def add(a, b):
        return a + b

    a = np.arange(10)
    assert (add(a, a) == 2 * a).all()
    assert view.parallelize(lambda x: x + 1)(range(5)) == [1, 2, 3, 4, 5]

    @rc.load_balanced_view().parallel()
    def total(part):
        return [sum(part)]

    assert sum(total(range(100))) == 4950
    with pytest.raises(TypeError, match="sequence"):
        add()


def test_a_dead_engine_is_named_where_it_is_used(fake, rc, caplog):
    view = rc[:]
    with caplog.at_level(logging.WARNING, "hpc"):
        fake.kill(2)
        rc._link.wait(lambda: 2 not in rc.ids, 5)
        fake.wait_for(lambda: caplog.records)
    text = "engine 2 (rank 2, host n1, pid 102) was killed by signal 9 (SIGKILL)"
    assert text in caplog.text
    with pytest.raises(EngineLost) as info:
        view.execute("x = 1")
    assert text in str(info.value)
    assert "there are engines 0-1,3" in str(info.value)
    assert [str(lost) for lost in rc.lost] == [text]
    assert rc.lost[0].signal == 9


def test_callbacks_hear_of_lost_engines(fake, rc):
    heard = []
    rc.on_engine_lost(heard.append)
    rc.ids
    fake.kill(0)
    fake.wait_for(lambda: heard)
    assert heard[0].engine_id == 0


def test_groups(fake, rc):
    fake.join(9)
    rc.wait_for_engines(5)
    first, second = rc.groups
    assert (first.id, first.ids, first.size, first.hosts) == ("g", [0, 1, 2, 3], 4, ["n1"])
    assert first.view.apply(int) == [0] * 4
    assert second.ids == [9]
    assert repr(first) == "<Group of engines 0-3 on n1>"


def test_waiting_for_engines_times_out_with_the_number(rc):
    with pytest.raises(TimeoutError, match=r"4 of 6 engines are there after 0\.05 s"):
        rc.wait_for_engines(6, timeout=0.05)


def test_shutdown_waits_until_they_are_gone(rc):
    rc.shutdown([1, 2])
    assert rc.ids == [0, 3]
    with pytest.raises(EngineLost, match="was shut down"):
        rc[1]


def test_shutdown_of_the_controller_ends_what_is_under_way(fake, rc):
    fake.hold = True
    result = rc[0].apply_async(int)
    rc.shutdown(controller=True)
    with pytest.raises(ConnectionError, match="ended"):
        result.get(5)
    with pytest.raises(ConnectionError, match="ended"):
        rc.ids


def test_questions(rc):
    assert rc.status() == "status"
    with pytest.raises(Exception, match="no such query"):
        rc._link.request(lambda number: m.Query(number, "nonsense"))


def test_closed_means_closed(fake, rc):
    fake.hold = True
    result = rc[0].apply_async(int)
    rc.close()
    with pytest.raises(ConnectionError, match="closed"):
        result.get(1)
    with pytest.raises(ConnectionError, match="closed"):
        rc.ids
    fake.wait_for(lambda: any(isinstance(message, m.Goodbye) for message in fake.heard))


def test_builtin_exceptions_are_themselves(rc):
    for kind in (KeyError, ValueError, FileNotFoundError):
        with pytest.raises(kind):
            rc[0].apply(_raise, kind.__name__)


def _raise(name):
    raise getattr(builtins, name)("x")
