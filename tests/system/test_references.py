"""Objects that go from engine to engine, by every route: as arguments, by push, and to be reduced."""

import functools
import os

import numpy as np
import pytest

import hpc
from hpc import Reference

from .test_arrays import LARGE, POINT_TO_POINT, N, rc

__all__ = ["rc"]  # the fixture: a cluster for each route

TREE = 3 << 20  # items of 8 bytes: enough for the engines to combine them among themselves


without_mpi = pytest.mark.parametrize("rc", POINT_TO_POINT, indirect=True, ids=lambda route: route or "automatic")


def goes_right(ar):
    """Say whether each task's large data took the best route, or the one that was asked for."""
    rows = ar.metadata if isinstance(ar.metadata, list) else [ar.metadata]
    # MPI is for what a whole group does; and `inline` means the controller's sockets, where it is large.
    best = {None: "shm", "mpi": "shm", "inline": "tcp"}.get(forced(), forced())
    return {row["route"] for row in rows} == {best}


def forced():
    return os.environ.get("HPC_ROUTE")


def test_push(rc):
    v = rc[:]
    rc[0].execute(
        f"import numpy as np; a = np.arange({LARGE}.0)[::2]; k = 'small'; d = {{'a': a, 'b': b'x' * {LARGE}}}"
    )
    rc[1].execute("c = 5")
    ar = v.push({"b": Reference("a", engine=0), "k": Reference("k", 0), "c": Reference("c", 1), "here": 1}, block=False)
    ar.get()
    assert goes_right(ar)
    for back in v.pull(["b", "k", "c", "here"]):
        assert (back[0] == np.arange(LARGE)[::2]).all()
        assert back[1:] == ["small", 5, 1]
    whole = v.push({"b": Reference("a", 0), "q": Reference("k", 0)}, block=False)
    assert whole.get() == [None] * N
    assert goes_right(whole) or set(whole["route"]) == {"mpi"} == {forced()}
    assert v["q"] == ["small"] * N
    with pytest.raises(hpc.errors.CompositeError, match="nothing"):
        v.push({"z": Reference("nothing", engine=0)})
    v.execute("b += id")
    assert [b[0] for b in v["b"]] == [0, 1, 2], "it is everybody's own"
    assert rc[0].apply_sync(lambda a: a[0], Reference("a")) == 0, "also where it came from"
    rc[2]["d"] = Reference("d", engine=0)
    assert rc[2].apply_sync(lambda d: (d["a"].sum(), len(d["b"])), Reference("d")) == (
        np.arange(LARGE)[::2].sum(),
        LARGE,
    )
    # The order is that of submission, also while the data is still on its way.
    later = v.push({"e": Reference("a", engine=0)}, block=False)
    assert v.apply_sync(lambda e: e[1], Reference("e")) == [2.0] * N
    assert later.get() == [None] * N
    with pytest.raises(hpc.errors.CompositeError, match="NameError"):
        v.push({"z": Reference("nothing", engine=0)})
    with pytest.raises(NameError, match="engine 0"):
        rc[1].push({"z": Reference("nothing", engine=0)})
    with pytest.raises(hpc.errors.HpcError, match="no engine 9"):
        rc[1].push({"z": Reference("a", engine=9)})


def test_arguments(rc):
    v, lv, a = rc[:], rc.load_balanced_view(), Reference("a", engine=0)
    rc[0].execute(f"import numpy as np; a = np.arange({LARGE}.0)")
    rc[1].execute("c = [5]")
    total = np.arange(float(LARGE)).sum()

    def use(x, c=None, mine=0):
        x[0] = 7  # it may be written to
        return float(x[1:].sum()), c, float(np.sum(mine))

    mine = np.ones(LARGE)
    for view in (rc[2], v, lv):
        ar = view.apply_async(use, a, c=Reference("c", 1), mine=mine)
        value = (total, [5], float(LARGE))
        assert ar.get() == ([value] * N if view is v else value)
        assert goes_right(ar)
    assert rc[2].apply_sync(lambda x, y: x is y, a, a)
    assert rc[0].apply_sync(lambda x, y: x is y, a, Reference("a")), "an engine's own object is no copy"
    assert rc[0]["a"][0] == 7
    rc[0].execute("a[0] = 0")
    rc[2]["q"] = "mine"
    items = [a, 1, Reference("c", 1), a, Reference("c", engine=1), 2]
    sums = [total, 1, [5], total, [5], 2]
    for view in (v, lv, rc[2]):
        assert view.map_sync(lambda x, i: (x.sum() if hasattr(x, "sum") else x, i), items, range(6)) == [
            (x, i) for i, x in enumerate(sums)
        ]
    assert rc[2].map_sync(lambda q, x: (q, x), [Reference("q")] * 3, range(3)) == [("mine", x) for x in range(3)]
    for view in (rc[1], lv):
        with pytest.raises(NameError, match="engine 0"):
            view.apply_sync(len, Reference("nothing", engine=0))
        with pytest.raises(hpc.errors.HpcError, match="no engine 9"):
            view.apply_sync(len, Reference("a", engine=9))
    with pytest.raises(NameError, match="engine 0"):
        lv.map_sync(len, [[1], Reference("nothing", engine=0)])


@without_mpi  # where ranks end together
def test_an_engine_that_dies_ends_what_waits_for_it(rc):
    pid = rc[0].apply_sync(os.getpid)
    lost = rc[0].execute("import time; time.sleep(600)", block=False)
    ar = rc[1].apply_async(len, Reference("a", engine=0))
    balanced = rc.load_balanced_view().apply_async(len, Reference("a", engine=0))
    os.kill(pid, 9)
    for each in (lost, ar, balanced):
        with pytest.raises(hpc.errors.EngineLost, match="engine 0"):
            each.get(20)
    assert rc[1].apply_sync(len, "ab") == 2


def test_reduce(rc):
    v = rc[:]
    v.execute(
        f"import numpy as np; a = np.full((4, {LARGE // 4}), id + 1, 'f4'); n = id + 1; t = id > 0; w = [id];"
        f"big = np.full({TREE}, id + 1.0); m = np.arange(810000.0).reshape(900, 900) + id; mixed = [n, big, n][id]"
    )
    for op, value in (("sum", 6), ("prod", 6), ("max", 3), ("min", 1), (lambda x, y: x * 10 + y, 123)):
        for name, dtype in (("a", "f4"), ("big", "f8")):
            ar = v.reduce(name, op, block=False)
            back = ar.get()
            assert (back == value).all()
            assert back.dtype == dtype
            assert back.flags.writeable
            assert len(ar.metadata) == N
            if forced() != "mpi" and name == "big":
                assert goes_right(ar)
        assert v.reduce("n", op) == value
    assert v.reduce("t", "land") is False
    assert v.reduce("t", "lor") is True
    assert v.reduce("a", "land").dtype == v.reduce("big", "lor").dtype == bool
    assert v.reduce("w") == [0, 1, 2]
    assert rc[1].reduce("n") == 2
    assert rc[1].reduce("big", "lor").dtype == bool
    assert v.reduce("n", block=False).get() == 6
    assert v.reduce("n", targets=[0, 2]) == 4
    assert v.reduce("big", targets=[2, 0, 1], op=lambda x, y: x * 10 + y)[0] == 312
    products = v.reduce("m", lambda x, y: x @ y)
    np.testing.assert_allclose(products, functools.reduce(np.matmul, v["m"]))
    assert [(a == i + 1).all() for i, a in enumerate(v["big"])] == [True] * N, "the engines' own values are as before"
    with pytest.raises(ValueError, match="sum, prod"):
        v.reduce("n", "median")
    with pytest.raises(hpc.errors.CompositeError, match="nothing"):
        v.reduce("nothing")
    with pytest.raises(NameError, match="nothing"):
        rc[0].reduce("nothing")


@without_mpi  # which reduces arrays that are alike
def test_reduce_of_unlike_values(rc):
    v = rc[:]
    v.execute(f"import numpy as np; big = np.full({TREE}, id + 1.0); mixed = [1, big, 3][id]")
    back = v.reduce("mixed")
    assert (back[0], back.shape) == (6, (TREE,))
    v.execute("big = big.astype(['f4', 'f8', 'i8'][id])")
    assert v.reduce("big").dtype == np.float64
    rc[1].execute("big = {1: big}")
    with pytest.raises(hpc.errors.CompositeError, match="unsupported operand") as caught:
        v.reduce("big")
    assert list(caught.value.errors) == [0], "what follows from it is not told"
    masked = "np.ma.masked_array(np.arange(3e6), mask=np.arange(3e6) % 3 == id)"
    v.execute(f"masked = {masked}")
    assert v.reduce("masked").mask.all()
    kept = v.apply_sync(lambda: [len(o.kept) for o in __import__("gc").get_objects() if hasattr(type(o), "resolve")])
    assert kept == [[0]] * N, "nothing stays behind"
