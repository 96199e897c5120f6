"""Any Python object as frames, and back: dtypes, orders, writability, what travels out of band."""

import pickle
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc.errors import SerializationError
from hpc.wire import objects
from hpc.wire.objects import OUT_OF_BAND_NBYTES, Reference, dumps, loads

DTYPES = [
    "?",
    "i1",
    "<i4",
    ">i4",
    "u8",
    "f2",
    "f8",
    "g",
    "c16",
    "S3",
    "U4",
    "M8[s]",
    "m8[us]",
    [("a", "i4"), ("b", "f8", (2,))],
    "V5",
]
dtypes = st.sampled_from([np.dtype(d) for d in DTYPES])
# Lengths around a chosen number, and a prime: 0, 1, n - 1, n, n + 1, 7.
lengths = st.sampled_from([0, 1, 3, 4, 5, 7])
shapes = st.lists(lengths, max_size=3).map(tuple)


def travel(obj, *, as_bytes=True):
    """Send through frames of their own memory, read-only (bytes) or writable (bytearray)."""
    frames = [bytes(dumps(obj)[0]), *(bytes(f) if as_bytes else bytearray(f) for f in dumps(obj)[1:])]
    return loads(frames)


def filled(dtype, shape, order):
    """Return an array of that layout whose items differ."""
    count = int(np.prod(shape, dtype=int))
    if dtype.names:
        array = np.zeros(count, dtype)
        array["a"], array["b"][:, 0] = np.arange(count), 0.5
    elif dtype.kind == "V":
        array = np.frombuffer(bytes(i % 100 for i in range(count * dtype.itemsize)), dtype)
    else:
        array = (np.arange(count) % 100).astype(dtype)
    return np.array(array.reshape(shape), order=order)


@settings(deadline=None)
@given(
    dtype=dtypes, shape=shapes, order=st.sampled_from("CF"), frozen=st.booleans(), limit=st.sampled_from([0, 1 << 20])
)
def test_arrays_keep_dtype_shape_and_order_and_arrive_writable(dtype, shape, order, frozen, limit):
    array = filled(dtype, shape, order)
    array.flags.writeable = not frozen
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "OUT_OF_BAND_NBYTES", limit)  # in band and out of band must not differ
        for as_bytes in (True, False):
            back = travel(array, as_bytes=as_bytes)
            assert back.dtype == array.dtype
            assert back.shape == array.shape
            assert back.tobytes() == array.tobytes()
            assert back.flags.c_contiguous == array.flags.c_contiguous
            assert back.flags.f_contiguous == array.flags.f_contiguous
            assert back.flags.writeable


@pytest.mark.parametrize("rows", [0, 1, 6, 7, 8, 4099])
def test_strided_arrays_arrive_packed_and_equal(rows):
    array = np.arange(rows * 6.0).reshape(rows, 6)[::2, ::3]
    back = travel(array)
    np.testing.assert_array_equal(back, array)
    assert back.flags.writeable


@pytest.mark.parametrize(
    "array",
    [
        np.array(3.5),
        np.array([1, None, "x"], dtype=object),
        np.ma.masked_array(np.arange(5000.0), mask=np.arange(5000) % 2),
        np.rec.fromarrays([[1, 2], [3.0, 4.0]], names="a,b"),
        np.arange(6, dtype=">f8").reshape(2, 3).T,
        np.broadcast_to(np.arange(3), (4, 3)),
    ],
    ids=["0-d", "object", "masked", "record", "transposed", "broadcast"],
)
def test_unusual_arrays(array):
    back = travel(array)
    assert type(back) is type(array)
    assert back.dtype == array.dtype
    assert back.tolist() == array.tolist()
    assert back.flags.writeable


def test_large_buffers_are_views_of_the_senders_memory_and_of_the_receivers():
    array = np.arange(OUT_OF_BAND_NBYTES, dtype=np.uint8)
    payload, frame = dumps(array)
    assert len(payload) < 500
    array[0] = 77
    assert bytes(frame)[0] == 77, "the frame is a copy"
    arrived = bytearray(frame)
    back = loads([payload, arrived])
    back[1] = 88
    assert arrived[1] == 88, "the array is a copy of the frame"


def test_one_byte_below_the_limit_rides_in_the_pickle():
    assert len(dumps(np.zeros(OUT_OF_BAND_NBYTES - 1, np.uint8))) == 1
    assert len(dumps(np.zeros(OUT_OF_BAND_NBYTES, np.uint8))) == 2


def test_a_container_of_arrays_is_not_pickled_in_band():
    thing = {"list": [np.full(OUT_OF_BAND_NBYTES, i, np.uint8) for i in range(100)], "deep": {"x": (1, np.zeros(9999))}}
    frames = dumps(thing)
    assert len(frames) == 102
    assert len(frames[0]) < 20_000
    back = loads(frames)
    assert [int(a[-1]) for a in back["list"]] == list(range(100))
    assert back["deep"]["x"][1].shape == (9999,)


def test_read_only_frames_of_read_only_arrays_are_copied_once_to_be_writable():
    array = np.arange(OUT_OF_BAND_NBYTES, dtype=np.uint8)
    array.flags.writeable = False
    payload, frame = dumps(array)
    back = loads([payload, memoryview(bytes(frame))])
    back[0] = 9
    assert array[0] == 0


def test_a_bytearray_keeps_its_kind():
    blob = bytearray(b"x" * OUT_OF_BAND_NBYTES)
    back = loads([bytes(dumps(blob)[0]), *map(bytearray, dumps(blob)[1:])])
    assert type(back) is bytearray
    assert back == blob


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner) | st.sets(st.integers())
    ),
    max_leaves=20,
)


@given(json_like)
def test_plain_objects(obj):
    assert travel(obj) == obj


def test_text_that_looks_like_the_marks_of_special_treatment_survives():
    obj = ["__main__", b"__main__", "_frombuffer", b"numpy._core.numeric _frombuffer"]
    assert travel(obj) == obj


def test_lambdas_and_local_classes_travel_with_what_they_hold():
    offset = 5

    class Local:
        def __init__(self, x):
            self.x = x

    f, thing = travel((lambda x: x + offset, Local(np.zeros(OUT_OF_BAND_NBYTES))))
    assert f(2) == 7
    assert thing.x.shape == (OUT_OF_BAND_NBYTES,)


@pytest.mark.parametrize("bad", [(i for i in "ab"), threading.Lock()], ids=["generator", "lock"])
def test_what_cannot_travel_is_named(bad):
    with pytest.raises(SerializationError, match=r"cannot pickle .*: TypeError.*stands at \['the bad one'\]") as caught:
        dumps({"the bad one": bad})
    assert isinstance(caught.value, TypeError)
    assert "execute()" in str(caught.value)


def test_an_object_whose_repr_raises_is_still_named():
    class Rude:
        def __repr__(self):
            raise RuntimeError("no")

        def __reduce__(self):
            raise pickle.PicklingError("never")

    with pytest.raises(SerializationError, match="Rude <repr raised RuntimeError>"):
        dumps(Rude())


@given(frame=st.binary(max_size=200))
def test_a_truncated_array_pickle_is_an_error_not_a_crash(frame):
    payload = bytes(dumps(np.arange(4))[0])
    cut = payload[: len(frame) % len(payload)]
    with pytest.raises((pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError)):
        loads([cut])


def test_references_compare_and_say_what_they_are():
    assert Reference("a.b") == Reference("a.b")
    assert Reference("a", engine=3) != Reference("a")
    assert len({Reference("a"), Reference("a")}) == 1
    assert travel(Reference("a", engine=3)) == Reference("a", engine=3)
    assert repr(Reference("a", engine=3)) == "Reference('a', engine=3)"
    assert repr(Reference("x.y")) == "Reference('x.y')"
