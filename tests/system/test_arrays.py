"""Arrays and sequences between real processes, by every route: they arrive as what they were, and can be written to."""

import array
from collections.abc import Iterator

import numpy as np
import pytest

import hpc

from .conftest import Processes, needs_mpi

SMALL, LARGE = 60, 240_000  # items: in the message, and by the route
N = 3


# The id is not "mpi": pytest-mpi would take these for tests that run on ranks, and skip them.
ROUTES = ["inline", "tcp", "shm", pytest.param("mpi", marks=needs_mpi, id="by-mpi"), None]


@pytest.fixture(params=ROUTES, ids=lambda route: route or "automatic")
def rc(request: pytest.FixtureRequest, processes: Processes, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Return the client of a cluster whose engines, as this process, send by one route."""
    if request.param:
        monkeypatch.setenv("HPC_ROUTE", request.param)
    with hpc.Cluster(n=N, launcher="mpiexec" if request.param == "mpi" else "local") as client:
        yield client


def there_and_back(v, thing):
    v["x"] = thing
    return v["x"]


ARRAYS = {
    "f8": np.arange(LARGE, dtype="f8"),
    "big-endian": np.arange(LARGE, dtype=">i4"),
    "complex": np.arange(LARGE) * 1j,
    "longdouble": np.arange(LARGE, dtype="g"),
    "bool": np.arange(LARGE) % 3 == 0,
    "dates": np.arange(LARGE).astype("M8[s]"),
    "durations": np.arange(LARGE).astype("m8[ns]"),
    "strings": np.arange(LARGE).astype("U7"),
    "bytes": np.arange(LARGE).astype("S9"),
    "structured": np.array([(i, i / 2) for i in range(9000)], dtype=[("a", ">i4"), ("b", "f8")]),
    "objects": np.array([None, "x", 1.5] * 9000, dtype=object),
}
LAYOUTS = {
    "C": lambda a: a.reshape(6, -1),
    "F": lambda a: np.asfortranarray(a.reshape(6, -1)),
    "strided": lambda a: a.reshape(6, -1)[::2, ::2],
    "negative": lambda a: a[::-1],
    "transposed": lambda a: a.reshape(2, 3, -1).transpose(2, 0, 1),
}


def test_push_and_pull(rc):
    v, one = rc[:], rc[0]
    for name, large in ARRAYS.items():
        for layout, arrange in LAYOUTS.items():
            for a in (arrange(large), arrange(large[:SMALL])):
                a = a.view()
                a.flags.writeable = False
                backs = [there_and_back(one, a)] if layout in ("negative", "transposed") else there_and_back(v, a)
                packed = a.copy(order="K")
                for back in backs:
                    assert back.dtype == a.dtype, name
                    assert back.shape == a.shape
                    assert (back == a).all()
                    assert back.flags.writeable
                    assert back.flags.c_contiguous == packed.flags.c_contiguous
                    assert back.flags.f_contiguous == packed.flags.f_contiguous
    v.execute("x[:] = x[::-1]; y = x.flags.writeable")
    assert v["y"] == [True] * N


def test_zero_d_zero_size_masked_and_others(rc):
    one = rc[0]
    for shape in ((), (0,), (3, 0), (0, 5)):
        a = np.zeros(shape, "M8[s]")
        back = there_and_back(one, a)
        assert (back.shape, back.dtype) == (a.shape, a.dtype)
    masked = np.ma.masked_array(np.arange(LARGE), mask=np.arange(LARGE) % 3 == 0, fill_value=-1)
    back = there_and_back(one, masked)
    assert (back.filled() == masked.filled()).all()
    back[0] = np.ma.masked
    for n in (SMALL, LARGE):
        for thing in (b"x" * n, bytearray(n), "\N{SNOWMAN}" * n, array.array("d", range(n)), range(n), list(range(n))):
            back = there_and_back(one, thing)
            assert back == thing
            assert type(back) is type(thing)
        view = there_and_back(one, memoryview(array.array("i", range(n))))
        assert view.tolist() == list(range(n))
        assert not view.readonly


def test_a_hundred_nested_arrays(rc):
    v = rc[:]
    thing = {
        f"k{i}": {"deep": [i, (np.full((100, 200), i)[:, :: 1 + i % 2], b"b" * 200_000 * (i == 7))]} for i in range(100)
    }
    for back in there_and_back(v, thing):
        for i in range(100):
            number, (a, blob) = back[f"k{i}"]["deep"]
            assert number == i
            assert (a == i).all()
            assert a.flags.writeable
            assert len(blob) == 200_000 * (i == 7)
    assert v.apply_sync(lambda x, scale: x["k9"]["deep"][1][0].sum() * scale, thing, scale=2) == [9 * 100 * 100 * 2] * N


@pytest.mark.parametrize("dist", ["block", "cyclic"])
def test_scatter_and_gather(rc, dist):
    v = rc[:]
    for a in ARRAYS.values():
        for arrange in (lambda a: a, LAYOUTS["F"], LAYOUTS["strided"]):
            whole = arrange(a)
            for axis in range(whole.ndim):
                v.scatter("x", whole, dist=dist, axis=axis)
                back = v.gather("x")
                assert back.dtype == whole.dtype
                assert back.shape == whole.shape
                assert (back == whole).all()
                back[...] = back
    v.execute("x[...] = x")
    for n in (0, 1, 2, N, 10):
        for flatten in (False, True):
            for thing in (list(range(n)), tuple(range(n)), "abcdefghij"[:n], bytes(n), bytearray(n)):
                v.scatter("x", thing, dist=dist, flatten=flatten)
                back = v.gather("x")
                assert back == thing
                assert type(back) is type(thing)
            for a in (
                np.arange(n),
                np.arange(n).astype("M8[D]"),
                np.ma.masked_array(np.arange(n), mask=np.arange(n) % 2),
            ):
                v.scatter("x", a, dist=dist, flatten=flatten)
                back = v.gather("x")
                assert (type(back), back.dtype, back.shape) == (type(a), a.dtype, a.shape)
                assert back.tolist() == a.tolist()
    v.scatter("x", (i * i for i in range(5)))
    assert v.gather("x") == [0, 1, 4, 9, 16]
    masked = np.ma.masked_array(np.arange(LARGE), mask=np.arange(LARGE) % 3 == 0)
    v.scatter("x", masked, dist=dist)
    back = v.gather("x")
    assert (back.mask == masked.mask).all()
    assert (back.compressed() == masked.compressed()).all()


def test_pandas(rc):
    pd = pytest.importorskip("pandas")
    v, n = rc[:], 50_000
    frame = pd.DataFrame({"x": np.arange(n) / 2, "when": pd.date_range("2020", periods=n, freq="s"), "s": ["ab"] * n})
    for back in there_and_back(v, frame):
        pd.testing.assert_frame_equal(back, frame)
        back.loc[0, "x"] = 7.0
    for dist in ("block", "cyclic"):
        v.scatter("x", frame, dist=dist)
        pd.testing.assert_frame_equal(v.gather("x"), frame)
        v.scatter("x", frame["when"], dist=dist)
        pd.testing.assert_series_equal(v.gather("x"), frame["when"])


def test_the_sender_may_use_its_memory_again(rc):
    v = rc[:]
    for n in (SMALL, LARGE):
        a, blob = np.zeros(n), bytearray(n)
        v.push({"x": a, "blob": blob})
        a[:], blob[:] = 1, b"x" * n
        assert [back.any() for back in v["x"]] == [False] * N
        assert v["blob"] == [bytearray(n)] * N
        ar = v.push({"x": a}, block=False)
        ar.wait_for_send(20)
        assert ar.sent
        a[:] = 2
        ar.get()
        assert [(back == 1).all() for back in v["x"]] == [True] * N
        v.execute("y = x; x = x.copy()")
        first = v.pull("y", block=False)
        v.execute("y[:] = 5")
        assert [(back == 1).all() for back in first.get()] == [True] * N, "a result changed after it was made"


def test_engines_do_not_share_what_they_received(rc):
    v = rc[:]
    v["x"] = np.zeros(LARGE)
    v.execute("x += id + 1")
    assert [back.mean() for back in v["x"]] == [1, 2, 3]


def test_reduce(rc):
    v = rc[:]
    v.execute(f"import numpy as np; a = np.full((4, {LARGE // 4}), id + 1, 'f4'); n = id + 1; t = id > 0; w = [id]")
    for op, value in (("sum", 6), ("prod", 6), ("max", 3), ("min", 1), (lambda x, y: x * 10 + y, 123)):
        back = v.reduce("a", op)
        assert (back == value).all()
        assert back.dtype == np.float32
        assert back.flags.writeable
        assert v.reduce("n", op) == value
    assert v.reduce("t", "land") is False
    assert v.reduce("t", "lor") is True
    assert v.reduce("a", "land").dtype == bool
    assert v.reduce("w") == [0, 1, 2]
    assert rc[1].reduce("n") == 2
    assert v.reduce("n", block=False).get() == 6
    assert v.reduce("n", targets=[0, 2]) == 4
    assert [(a == i + 1).all() for i, a in enumerate(v["a"])] == [True] * N
    with pytest.raises(ValueError, match="sum, prod"):
        v.reduce("n", "median")
    with pytest.raises(hpc.errors.CompositeError, match="nothing"):
        v.reduce("nothing")
    with pytest.raises(NameError, match="nothing"):
        rc[0].reduce("nothing")


def test_from_engine_to_engine(rc):
    v = rc[:]
    rc[0].execute(
        f"import numpy as np; a = np.arange({LARGE}.0)[::2]; k = 'small'; d = {{'a': a, 'b': b'x' * {LARGE}}}"
    )
    rc[1].execute("c = 5")
    v.push({"b": hpc.Reference("a", engine=0), "k": hpc.Reference("k", 0), "c": hpc.Reference("c", 1), "here": 1})
    for back in v.pull(["b", "k", "c", "here"]):
        assert (back[0] == np.arange(LARGE)[::2]).all()
        assert back[1:] == ["small", 5, 1]
    v.execute("b += id")
    assert [b[0] for b in v["b"]] == [0, 1, 2], "it is everybody's own"
    rc[2]["d"] = hpc.Reference("d", engine=0)
    assert rc[2].apply_sync(lambda d: (d["a"].sum(), len(d["b"])), hpc.Reference("d")) == (
        np.arange(LARGE)[::2].sum(),
        LARGE,
    )
    # The order is that of submission, also while the data is still on its way.
    later = v.push({"e": hpc.Reference("a", engine=0)}, block=False)
    assert v.apply_sync(lambda e: e[1], hpc.Reference("e")) == [2.0] * N
    assert later.get() is None or len(later.get()) == N
    with pytest.raises(hpc.errors.CompositeError, match="NameError"):
        v.push({"z": hpc.Reference("nothing", engine=0)})
    with pytest.raises(NameError, match="engine 0"):
        rc[1].push({"z": hpc.Reference("nothing", engine=0)})
    with pytest.raises(hpc.errors.RemoteError, match=r"v\.push"):
        rc[1].apply_sync(len, hpc.Reference("a", engine=0))
    with pytest.raises(hpc.errors.HpcError, match="no engine 9"):
        rc[1].push({"z": hpc.Reference("a", engine=9)})
