"""What is scattered and gathered is what it was: types, orders, masks, names of rows, items that were flattened."""

import array

import numpy as np
import pytest
from test_arrays import DTYPES, fill, same
from test_arrays_others import faketorch  # noqa: F401

from hpc.client.parts import join, split
from hpc.partition import DISTRIBUTIONS

LENGTHS = [0, 1, 3, 4, 5, 12]
ENGINES = [1, 4, 7]


def round_trip(thing, n, dist, axis=0, flatten=False):
    parts, layout = split(thing, n, dist, axis, flatten)
    assert len(parts) == n
    return join(parts, layout)


@pytest.mark.parametrize("flatten", [False, True])
@pytest.mark.parametrize("dist", DISTRIBUTIONS)
@pytest.mark.parametrize("n", ENGINES)
@pytest.mark.parametrize("dtype", [*DTYPES, np.dtype(object)], ids=str)
def test_arrays(dtype, n, dist, flatten):
    for length in LENGTHS:
        for axis in (0, 1, -1):
            for order in "CF":
                shape = (length, 3) if axis == 0 else (3, length)
                a = np.asarray(fill(dtype, length * 3).reshape(shape), order=order)
                back = round_trip(a, n, dist, axis, flatten)
                assert back.dtype == a.dtype
                assert back.dtype.isalignedstruct == a.dtype.isalignedstruct
                assert back.shape == a.shape
                assert same(back, a)
        a = fill(dtype, length)[::-1]
        back = round_trip(a, n, dist, 0, flatten)
        assert (back.dtype, back.shape) == (a.dtype, a.shape)
        assert same(back, a)


@pytest.mark.parametrize("dist", DISTRIBUTIONS)
def test_order(dist):
    for order in "CF":
        a = np.asarray(np.arange(48.0).reshape(8, 6), order=order)
        for axis in (0, 1):
            back = round_trip(a, 2, dist, axis)
            assert back.flags.c_contiguous == (order == "C")


@pytest.mark.parametrize("dist", DISTRIBUTIONS)
@pytest.mark.parametrize("n", ENGINES)
@pytest.mark.parametrize(
    "thing",
    [
        [],
        list(range(10)),
        [[1], [], [2, 3]],
        tuple("abc"),
        "abcdefghij",
        "",
        b"abcdefghi",
        bytearray(b"abcde"),
        array.array("d", range(9)),
        array.array("b"),
    ],
    ids=repr,
)
def test_sequences(thing, n, dist):
    for flatten in (False, True):
        back = round_trip(thing, n, dist, flatten=flatten)
        assert back == thing
        assert type(back) is type(thing)
        assert getattr(back, "typecode", "") == getattr(thing, "typecode", "")


@pytest.mark.parametrize("thing", [range(10), {1, 2, 3}, (i * i for i in range(5)), dict.fromkeys("abc")], ids=repr)
def test_iterables_become_lists(thing):
    wanted = [i * i for i in range(5)] if not hasattr(thing, "__len__") else list(thing)
    assert round_trip(thing, 3, "cyclic") == wanted


def test_a_memoryview_is_divided_as_an_array():
    parts, layout = split(memoryview(array.array("d", range(5))), 2, "block", 0, False)
    assert [part.tolist() for part in parts] == [[0, 1, 2], [3, 4]]
    assert join(parts, layout).dtype == float


@pytest.mark.parametrize("flatten", [False, True])
@pytest.mark.parametrize("dist", DISTRIBUTIONS)
@pytest.mark.parametrize("n", ENGINES)
def test_masked_arrays(n, dist, flatten):
    for shape in ((5,), (5, 2), (1, 3), (0,)):
        a = np.ma.masked_array(np.arange(int(np.prod(shape))).reshape(shape), fill_value=-3)
        for mask in (np.ma.nomask, a.data % 2 == 0):
            each = np.ma.masked_array(a.data, mask=mask, fill_value=-3)
            back = round_trip(each, n, dist, 0, flatten)
            assert type(back) is np.ma.MaskedArray
            assert (back.dtype, back.shape, back.fill_value) == (each.dtype, each.shape, each.fill_value)
            assert (np.ma.getmaskarray(back) == np.ma.getmaskarray(each)).all()
            assert (back.compressed() == each.compressed()).all()


def test_arrays_of_lists_keep_their_items():
    a = np.empty(3, object)
    a[:] = [[1, 2], (3,), None]
    for flatten in (False, True):
        back = round_trip(a, 3, "block", 0, flatten)
        assert back.dtype == object
        assert back.tolist() == a.tolist()


def test_record_arrays_and_matrices():
    records = np.rec.fromarrays([np.arange(5), np.arange(5) / 2], names="a,b")
    back = round_trip(records, 2, "cyclic")
    assert type(back) is np.recarray
    assert (back.b == records.b).all()


@pytest.mark.parametrize("dist", DISTRIBUTIONS)
@pytest.mark.parametrize("n", ENGINES)
def test_pandas(n, dist):
    pd = pytest.importorskip("pandas")
    for rows in LENGTHS:
        frame = pd.DataFrame(
            {
                "x": np.arange(rows) / 2,
                "when": pd.date_range("2020-01-01", periods=rows),
                "kind": pd.Categorical(["ab"[i % 2] for i in range(rows)], categories=["a", "b", "c"]),
                "word": ["w"] * rows,
            },
            index=[f"r{i}" for i in range(rows)],
        )
        pd.testing.assert_frame_equal(round_trip(frame, n, dist), frame)
        pd.testing.assert_frame_equal(round_trip(frame, n, dist, axis=1), frame)
        for name in frame:
            pd.testing.assert_series_equal(round_trip(frame[name], n, dist), frame[name])
    with pytest.raises(ValueError, match="flatten"):
        split(frame, 2, "block", 0, True)


def test_what_speaks_dlpack_is_gathered_as_what_it_was(faketorch):  # noqa: F811
    class Sliced(faketorch.Tensor):
        dtype = "float"
        shape = property(lambda self: self.items.shape)

        def __getitem__(self, where):
            return type(self)(self.items[where])

    faketorch.from_dlpack = lambda x: Sliced(np.from_dlpack(x))
    Sliced.__module__ = "faketorch"
    a = np.arange(10.0).reshape(5, 2)
    for dist in DISTRIBUTIONS:
        back = round_trip(Sliced(a), 3, dist)
        assert type(back) is Sliced
        assert (back.items == a).all()


def test_what_was_never_scattered_is_joined_by_what_it_is():
    from hpc.client.parts import Layout

    assert join([1.5, 2], Layout()) == [1.5, 2]
    assert join([[1], [2, 3]], Layout()) == [1, 2, 3]
    assert join(["a", "bc"], Layout()) == "abc"
    assert join([b"a", b"bc"], Layout()) == b"abc"
    assert join([np.float64(1), np.float64(2)], Layout()).tolist() == [1, 2]
    mixed = join([np.zeros(2, "i4"), np.ones(3)], Layout())
    assert (mixed.dtype, mixed.shape) == (np.dtype(float), (5,))
    grown = join([np.zeros((2, 3)), np.ones((5, 3)), np.ones((0, 3))], Layout())
    assert grown.shape == (7, 3)
    with pytest.raises(ValueError, match="dimension"):
        join([np.zeros((2, 3)), np.ones((5, 4))], Layout())


@pytest.mark.parametrize(
    ("thing", "axis", "error"),
    [(np.zeros(3), 1, ValueError), ([1], 1, ValueError), (np.array(3), 0, TypeError), (5, 0, TypeError)],
)
def test_what_cannot_be_divided(thing, axis, error):
    with pytest.raises(error):
        split(thing, 2, "block", axis, False)
