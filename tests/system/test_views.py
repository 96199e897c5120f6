"""What views do besides running code: flags for a while, imports on both sides."""

import itertools
import os
import threading
from collections.abc import Iterator

import pytest

import hpc
from hpc.errors import CompositeError, SerializationError


@pytest.fixture
def rc() -> "Iterator[hpc.RemoteController]":
    with hpc.Cluster(n=2) as rc:
        yield rc


def test_flags_for_a_while(rc: "hpc.RemoteController") -> None:
    view = rc[:]
    with view.temp_flags(block=False, targets=1):
        result = view.apply(abs, -1)
        assert isinstance(result, hpc.AsyncResult)
        assert view.targets == 1
    assert view.block
    assert view.targets == [0, 1]
    with pytest.raises(ZeroDivisionError), view.temp_flags(block=False):
        _ = 1 / 0
    assert view.block
    with pytest.raises(TypeError, match="colour"), view.temp_flags(colour="red"):
        pass
    lv = rc.load_balanced_view()
    with lv.temp_flags(retries=3):
        assert lv.retries == 3
    assert lv.retries == 0


def test_a_map_may_wait_or_not_whatever_its_view_does(rc: "hpc.RemoteController") -> None:
    for view in (rc[:], rc.load_balanced_view()):
        result = view.map(abs, [-1, -2], block=False)
        assert isinstance(result, hpc.AsyncResult)
        assert result.get() == [1, 2]
        view.block = False
        assert view.map(abs, [-1, -2], block=True) == [1, 2]


def test_exceptions_among_the_values_of_a_map(rc: "hpc.RemoteController") -> None:
    for view in (rc[:], rc.load_balanced_view()):
        result = view.map_async(lambda x: 1 // x, [1, 0, 1], return_exceptions=True)
        values = result.get()
        assert values[::2] == [1, 1]
        assert isinstance(values[1], ZeroDivisionError)
        assert list(result) == values, "the same error each time it is asked for"


def test_imports_on_both_sides(rc: "hpc.RemoteController", capsys: pytest.CaptureFixture[str]) -> None:
    view = rc[:]
    with view.sync_imports():
        import colorsys
        from fractions import Fraction
    assert "importing colorsys on the engines" in capsys.readouterr().out
    assert Fraction(1, 2) == 0.5
    assert colorsys.rgb_to_yiq(0, 0, 0)[0] == 0
    assert view.apply_sync(lambda: Fraction.__name__ + colorsys.__name__) == ["Fractioncolorsys"] * 2
    view.execute("Fraction(1, 3), colorsys")
    with view.sync_imports(local=False, quiet=True):
        import sched
    assert "on the engines only" in repr(sched)
    assert capsys.readouterr().out == ""
    view.execute("sched.scheduler")


def test_an_import_that_fails_there(rc: "hpc.RemoteController") -> None:
    with pytest.raises(CompositeError) as caught, rc[:].sync_imports(local=False, quiet=True):
        import there_is_no_such_module  # noqa: F401
    assert isinstance(caught.value[0], ImportError)


def test_a_direct_view_maps_lazily_and_is_an_executor(rc: "hpc.RemoteController") -> None:
    values = rc[:].imap(lambda x: 2 * x, itertools.count(), max_outstanding=4)
    assert list(itertools.islice(values, 20)) == list(range(0, 40, 2))
    pid = rc[1].apply(os.getpid)
    assert set(rc[1].imap(lambda _: os.getpid(), range(8))) == {pid}
    assert list(rc[[1]].executor.map(lambda _: os.getpid(), range(8))) == [pid] * 8
    with rc[:].executor as pool:
        assert pool.num_workers == 2
        assert pool.submit(pow, 2, 3).result(20) == 8, "one call, not one for each engine"


def test_names_that_views_have_from_mappings(rc: "hpc.RemoteController") -> None:
    view = rc[:]
    view.update({"a": 1, "b": 2})
    view.block = False
    assert view.get("a") == [1, 1]
    assert view.get(["a", "b"]) == [[1, 2], [1, 2]]
    view.clear(block=True)
    with pytest.raises(CompositeError, match="'a' is not defined on engine 0"):
        view.get("a")
    assert view.get("size") == [1, 1], "what was there at the start stays"


def test_dill_takes_what_nothing_else_does(rc: "hpc.RemoteController") -> None:
    pytest.importorskip("dill")
    view = rc[:]
    lock = threading.Lock()
    with pytest.raises(SerializationError):
        view.push({"lock": lock})
    view.use_dill()
    try:
        view.push({"lock": lock})
        assert view.apply(lambda given: given.acquire(blocking=False), lock) == [True, True]
        assert not rc[0].pull("lock").locked(), "results, too"
        assert rc[0].apply(lambda: lock.locked()) is False, "and what functions hold"
    finally:
        view.use_pickle()
    with pytest.raises(SerializationError):
        view.push({"lock": lock})
    with pytest.raises(TypeError, match="Lock|lock"):
        rc[0].pull("lock")


def test_broadcast_views_are_direct_views(rc: "hpc.RemoteController") -> None:
    assert rc.broadcast_view([0, 1]).apply_sync(abs, -2) == [2, 2]


def test_what_cannot_be_pickled_is_named_with_the_way_to_it(rc: "hpc.RemoteController") -> None:
    lock = threading.Lock()
    with pytest.raises(SerializationError, match=r"pickle _thread.lock .*it stands at args\[0\]\['a'\]\[1\]\)"):
        rc[0].apply(abs, {"a": [0, lock]})
    with pytest.raises(SerializationError, match=r"it stands at kwargs\['key'\]"):
        rc[0].apply(sorted, [], key=lock)
    with pytest.raises(SerializationError, match=r"it stands at args\[0\]\['x'\]\.part"):
        rc[0].push({"x": Holder(lock)})
    with pytest.raises(SerializationError, match="variable 'lock' of test_what_.*lambda>"):
        rc[0].apply(lambda: lock)
    rc[0].execute("import threading\nclass H: pass\nh = H(); h.part = threading.Lock()")
    with pytest.raises(TypeError, match=r"it stands at \[0\]\.part"):
        rc[0].pull("h")


class Holder:
    """Has a part."""

    def __init__(self, part: object) -> None:
        self.part = part
