"""What arrives as what: every kind of array and sequence through the frames, large and small."""

import array
import pickle
import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc.client.calls import dump_call
from hpc.wire import arrays, gaps, objects
from hpc.wire.objects import OUT_OF_BAND_NBYTES, dumps, loads

SMALL, LARGE = 12, 24_000  # items: in the pickle, out of band


def travel(obj):
    """Send through frames of their own, read-only memory."""
    return loads([bytes(frame) for frame in dumps(obj)])


def in_band_nbytes(obj):
    return len(dumps(obj)[0])


PLAIN = ["?", "i1", ">i4", "u8", "f2", "f8", "g", "c8", "c16", "G", "S5", "U3", "V7", "M8[ns]", "M8[D]", "m8[us]"]
STRUCTURED = [
    np.dtype([("a", "i4"), ("b", "f8", (2,))]),
    np.dtype([("when", "M8[s]"), ("x", ">f4")]),
    np.dtype([("a", "i1"), ("b", "f8")], align=True),
    np.dtype({"names": ["a", "b"], "formats": ["i2", "f4"], "offsets": [4, 12], "itemsize": 24}),
]
DTYPES = [np.dtype(d) for d in PLAIN] + STRUCTURED


def fill(dtype, n):
    """Return an array of items that differ, also where the type has padding."""
    items = np.zeros(n, dtype)
    if dtype.names:
        for name in dtype.names:
            items[name] = (np.arange(n) % 100).reshape((n,) + (1,) * (items[name].ndim - 1)).astype(items[name].dtype)
        return items
    if dtype.kind == "V":
        return np.frombuffer(bytes(i % 100 for i in range(n * dtype.itemsize)), dtype)
    return (np.arange(n) % 100).astype(dtype)


def same(a, b):
    """Compare items; what lies between the fields of a structure does not count."""
    return bool((a == b).all()) if a.dtype.names or a.dtype.char in "gG" else a.tobytes() == b.tobytes()


LAYOUTS = {
    "C": lambda a: a.reshape(4, -1),
    "F": lambda a: np.asfortranarray(a.reshape(4, -1)),
    "strided": lambda a: a.reshape(4, -1)[::2, ::3],
    "negative": lambda a: a[::-1],
    "negative both": lambda a: a.reshape(4, -1)[::-1, ::-1],
    "transposed": lambda a: a.reshape(2, 3, -1).transpose(2, 0, 1),
    "transposed slice": lambda a: a.reshape(2, 3, -1)[:, 1:].transpose(1, 2, 0),
    "broadcast": lambda a: np.broadcast_to(a[: a.size // 4], (4, a.size // 4)),
    "column": lambda a: a.reshape(-1, 4)[:, 1],
    "length one": lambda a: a.reshape(1, -1, 1),
}


@pytest.mark.parametrize("n", [SMALL, LARGE])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_arrays(dtype, layout, n):
    a = LAYOUTS[layout](fill(dtype, n))
    for read_only in (False, True):
        if read_only:
            a = a.view()
            a.flags.writeable = False
        back = travel(a)
        assert type(back) is np.ndarray
        assert back.dtype == a.dtype
        assert back.dtype.isalignedstruct == a.dtype.isalignedstruct
        assert back.shape == a.shape
        assert same(back, a)
        assert back.flags.writeable
        packed = a.copy(order="K")
        assert (back.flags.c_contiguous, back.flags.f_contiguous) == (
            packed.flags.c_contiguous,
            packed.flags.f_contiguous,
        )
        if back.size:
            back.flat[0] = back.flat[-1]
    if a.nbytes >= OUT_OF_BAND_NBYTES:
        assert in_band_nbytes(a) < 1000


@pytest.mark.parametrize("shape", [(), (0,), (0, 5), (3, 0, 2), (1,)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_zero_d_and_zero_size(dtype, shape):
    a = np.zeros(shape, dtype)
    back = travel(a)
    assert (back.shape, back.dtype) == (shape, dtype)
    assert back.tobytes() == a.tobytes()
    assert back.flags.writeable


@given(st.integers(0, 3), st.data())
@settings(deadline=None)
def test_any_slice_of_any_transposition(seed, data):
    a = np.arange(40 * 40 * 60, dtype="f4").reshape(40, 40, 60).transpose(data.draw(st.permutations(range(3))))
    steps = [data.draw(st.sampled_from([1, 1, 1, 2, -1])) for _ in range(3)]
    a = a[tuple(slice(None, None, step) for step in steps)]
    back = travel(a)
    np.testing.assert_array_equal(back, a)
    assert back.strides == a.copy(order="K").strides
    assert in_band_nbytes(a) < 1000


def test_one_copy_packs_a_strided_array_and_none_a_dense_one():
    dense = np.zeros((100, 200)).transpose()
    assert np.shares_memory(np.frombuffer(dumps(dense)[1], np.uint8), dense)
    assert np.shares_memory(np.frombuffer(dumps(dense.view("M8[s]"))[1], np.uint8), dense)
    strided = np.zeros((200, 400))[::2, ::2]
    frame = dumps(strided)[1]
    assert len(memoryview(frame).cast("B")) == strided.nbytes
    assert not np.shares_memory(np.frombuffer(frame, np.uint8), strided)


def test_arrays_arrive_as_views_of_their_frames():
    frames = [bytes(f) if i == 0 else bytearray(f) for i, f in enumerate(dumps(np.zeros(LARGE, "M8[s]")))]
    back = loads(frames)
    assert np.shares_memory(back, np.frombuffer(frames[1], np.uint8))


@pytest.mark.parametrize("n", [SMALL, LARGE])
def test_arrays_of_objects(n):
    a = np.array([None, "x", 1.5, [1]] * (n // 4), dtype=object).reshape(4, -1)[:, ::-1]
    back = travel(a)
    assert back.dtype == object
    assert back.tolist() == a.tolist()
    inner = np.empty(3, object)
    inner[:] = [np.zeros(LARGE), np.ones(3), None]
    assert in_band_nbytes(inner) < 2000
    assert travel(inner)[0].shape == (LARGE,)
    fields = np.zeros(n, [("a", object), ("b", "f8")])
    assert travel(fields).tolist() == fields.tolist()


def test_strings_of_any_length():
    if not hasattr(np.dtypes, "StringDType"):
        pytest.skip("numpy before 2")
    a = np.array(["a", "b" * 1000, ""] * 3000, dtype=np.dtypes.StringDType())
    back = travel(a)
    assert back.dtype == a.dtype
    assert (back == a).all()


@pytest.mark.parametrize("n", [SMALL, LARGE])
@pytest.mark.parametrize("order", "CF")
def test_masked_arrays(n, order):
    a = np.ma.masked_array(np.arange(float(n)).reshape(4, -1), mask=np.arange(n).reshape(4, -1) % 3 == 0)
    a = np.ma.array(a, order=order, fill_value=-7.0, hard_mask=True)
    for each in (a, a[:, ::2], np.ma.masked_array(np.arange(n)), a.astype("M8[s]") if n else a):
        back = travel(each)
        assert type(back) is np.ma.MaskedArray
        assert back.dtype == each.dtype
        assert (np.ma.getmaskarray(back) == np.ma.getmaskarray(each)).all()
        assert (back.mask is np.ma.nomask) == (each.mask is np.ma.nomask)
        assert (back.compressed() == each.compressed()).all()
        assert back.fill_value == each.fill_value
        assert back.hardmask == each.hardmask
        if each.nbytes >= OUT_OF_BAND_NBYTES:
            assert in_band_nbytes(each) < 1000 + 2**17
    assert (travel(a).filled() == a.filled()).all()
    back = travel(np.ma.masked_array(np.zeros(n), mask=[False] * n))
    back[0] = np.ma.masked
    assert back.mask[0]


@pytest.mark.parametrize("n", [SMALL, LARGE])
def test_record_arrays_and_matrices(n):
    records = np.rec.fromarrays([np.arange(n), np.arange(n) / 2], names="a,b")
    back = travel(records)
    assert type(back) is np.recarray
    assert (back.b == records.b).all()
    assert type(back[0]) is type(records[0])
    back.a[0] = 5
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix(np.arange(float(n)).reshape(2, -1))
    back = travel(matrix)
    assert type(back) is np.matrix
    assert (back == matrix).all()


class Labelled(np.ndarray):
    """A subclass that goes its own way."""


def test_other_subclasses_keep_their_type():
    back = travel(np.zeros(LARGE).view(Labelled))
    assert type(back) is Labelled
    assert back.flags.writeable


def test_a_memory_map_arrives_as_an_array(tmp_path):
    mapped = np.memmap(tmp_path / "data", dtype="f8", mode="w+", shape=(LARGE,))
    mapped[:] = 3
    for each in (mapped, mapped[:5], mapped[::2]):
        back = travel(each)
        assert type(back) is np.ndarray
        assert (back == 3).all()


@pytest.mark.parametrize("n", [0, SMALL, LARGE, 200_000])
@pytest.mark.parametrize("make", [bytes, bytearray, lambda n: "x" * n, lambda n: "\N{SNOWMAN}" * n])
def test_bytes_and_strings(make, n):
    obj = make(n)
    for thing in (obj, [1, obj, {"k": (obj, b"end")}]):
        back = travel(thing)
        assert back == thing
        assert type(back) is type(thing)


def test_large_bytes_are_not_copied_into_the_pickle():
    for thing in (bytes(10**6), bytearray(10**6), ["x" * 10**6]):
        assert in_band_nbytes(thing) < 1000
    blob = bytearray(10**6)
    frame = memoryview(dumps({"blob": blob})[1])
    assert frame.obj is blob
    del frame
    back = travel(blob)
    back.append(1)


@given(st.lists(st.sampled_from([0, 1, 100, 70_000, 140_000, 300_000, 1_200_000]), max_size=6))
@settings(deadline=None, max_examples=30)
def test_gaps_anywhere(sizes):
    thing = [(bytes([i]) * n, str(i) * (n // 3), bytearray(n), np.full(n, i, "u1")) for i, n in enumerate(sizes)]
    back = travel(thing)
    for got, sent in zip(back, thing, strict=True):
        assert got[:3] == sent[:3]
        assert (got[3] == sent[3]).all()
    assert in_band_nbytes(thing) < 2**20


def test_a_long_list_is_a_frame_not_a_message():
    for numbers in (list(range(10**6)), [list(range(10**6)), b"x" * 10**6]):
        assert in_band_nbytes(numbers) < 1000
        assert travel(numbers) == numbers


@pytest.mark.parametrize("damage", [b"", b"\xff" * 3, b"\xff" * 20, b"\x01\0\0\0" + b"\xff" * 8, b"\0" * 4])
def test_a_damaged_payload_with_gaps_is_an_error(damage):
    with pytest.raises((pickle.UnpicklingError, EOFError)):
        loads([gaps.MARK + damage, b"a"])


@pytest.mark.parametrize("n", [SMALL, LARGE])
def test_arrays_of_the_standard_library(n):
    for typecode in "bBhHiIlLqQfd":
        a = array.array(typecode, [i % 100 for i in range(n)])
        back = travel(a)
        assert (type(back), back.typecode) == (array.array, typecode)
        assert back == a
        back.append(1)


@pytest.mark.parametrize("n", [0, SMALL, LARGE])
def test_memoryviews(n):
    numbers = memoryview(array.array("d", range(n)))
    views = [memoryview(b"x" * n), memoryview(bytearray(n)), numbers, numbers[::2]]
    if n:
        views.append(memoryview(bytes(n)).cast("B", (3, n // 3)))
    for view in views:
        back = travel(view)
        assert (type(back), back.format, back.shape) == (memoryview, view.format, view.shape)
        assert back.tolist() == view.tolist()
        assert not back.readonly
    with pytest.raises(TypeError, match=r"numpy\.asarray"):
        dumps(memoryview(np.zeros(3, ">f8")))


def test_a_hundred_nested_arrays_of_all_kinds_are_not_in_band():
    thing = {}
    for i in range(100):
        a = fill(DTYPES[i % len(DTYPES)], LARGE * 3)
        thing[f"k{i}"] = {"deep": [i, (a[::2] if i % 3 else a.reshape(2, -1).T)]}
    assert in_band_nbytes(thing) < 40_000
    back = travel(thing)
    for key, value in thing.items():
        assert same(back[key]["deep"][1], value["deep"][1])


def test_an_array_that_stands_twice_is_one_at_the_receiver():
    a = np.zeros(LARGE)[::2]
    frames = dumps([a, a])
    assert len(frames) == 2
    back = loads(list(map(bytes, frames)))
    assert back[0] is back[1]


def test_what_needs_cloudpickle_takes_its_arrays_out_of_band():
    thing = (lambda: 1, np.zeros(LARGE, "M8[s]"), np.zeros((LARGE, 2))[:, 1], b"x" * 10**6)
    assert in_band_nbytes(thing) < 5000
    back = travel(thing)
    assert back[0]() == 1
    assert back[2].shape == (LARGE,)
    assert back[3] == thing[3]


class Registered:
    pass


def test_reducers_that_are_registered_late_are_used():
    import copyreg

    assert type(travel(Registered())) is Registered
    copyreg.pickle(Registered, lambda _: (int, ("7",)))
    try:
        assert travel(Registered()) == 7
    finally:
        del copyreg.dispatch_table[Registered]


def test_metaclasses_and_named_things_pass():
    import enum

    thing = [enum.Enum, type, int, enum.Flag, sys.stdout.__class__, len, Registered, types.SimpleNamespace(a=1)]
    assert travel(thing) == thing


def test_the_limit_is_the_same_everywhere():
    assert objects.OUT_OF_BAND_NBYTES == arrays.OUT_OF_BAND_NBYTES


@pytest.mark.parametrize("n", [SMALL, LARGE])
def test_calls_are_dumped_by_the_same_rules(n):
    a = np.arange(n).reshape(2, 3, -1).transpose(1, 2, 0)[::-1]
    for args, kwargs in [
        ((a,), {}),
        (([a],), {}),
        (({"x": a},), {}),
        ((), {"x": a}),
        ((np.ma.array(a, hard_mask=True),), {}),
    ]:
        frames = dump_call(args, kwargs)
        assert [bytes(f) for f in frames] == [bytes(f) for f in dumps((args, kwargs))]
    blob = bytes(10**6)
    assert len(dump_call((blob,), {})) == len(dump_call(({"x": blob},), {})) == 2
    assert dump_call((1, "x", [2.0]), {"k": None}) == [pickle.dumps(((1, "x", [2.0]), {"k": None}), 5)]
