"""Arrays that are announced before they are copied: when they may be looked at, and what becomes of broken promises."""

import os
import socket

import numpy as np
import pytest

from hpc.client.calls import BIND, PUSH, dump_call
from hpc.client.placement import operation
from hpc.controller.parcel import SegmentParcel
from hpc.dataplane import handover, segments
from hpc.dataplane.outgoing import Outgoing
from hpc.engine.current import Identity
from hpc.engine.late import Late
from hpc.engine.namespace import Namespace
from hpc.transport import shared
from hpc.transport.shared import LATE, SharedFrame
from hpc.transport.unix import UnixConnection
from hpc.wire import objects

NBYTES = 1 << 20


@pytest.fixture
def outgoing(monkeypatch):
    monkeypatch.setattr(segments.Pool, "_start_sweeper", lambda _: None)
    return Outgoing()


@pytest.fixture
def pair():
    mine, theirs = (UnixConnection(sock) for sock in socket.socketpair())
    with mine, theirs:
        yield mine, theirs


@pytest.fixture
def late():
    return Late(Namespace(Identity(0)))


def announce(pair, outgoing, *arrays):
    """Send what is not copied yet; return what copies it, and what arrives."""
    frames, hand_over = outgoing.hand_over([memoryview(array) for array in arrays], in_pieces=True, late=True)
    pair[0].send([b"head", *frames])
    del frames
    return hand_over, pair[1].recv(5)[1:]


def array(seed=1):
    return np.random.default_rng(seed).integers(0, 255, NBYTES, np.uint8)


def test_frames_are_there_before_their_bytes(pair, outgoing):
    one, two = array(1), array(2)
    hand_over, frames = announce(pair, outgoing, one, two)
    handle = frames[0].handle
    assert [type(frame) for frame in frames] == [SharedFrame] * 2
    memory = handle.early_view()
    assert not handle.is_written(0.01)
    hand_over.finish()
    assert handle.is_written(5)
    assert handle.is_written(5), "whoever asks later hears it, too"
    assert [bytes(frame.view()) for frame in frames] == [one.tobytes(), two.tobytes()]
    memory[:4] = b"mine"
    assert one.tobytes() != bytes(frames[0].view())


def test_whoever_looks_waits(pair, outgoing):
    hand_over, (frame,) = announce(pair, outgoing, array())
    assert not len(frame.view(0.01)), "no bytes rather than some"
    hand_over.finish()


def test_where_descriptors_are_scarce_it_is_copied_and_waited_for(pair, outgoing, monkeypatch):
    monkeypatch.setattr(shared, "_may_map", lambda: False)
    hand_over, (frame,) = announce(pair, outgoing, array())
    hand_over.finish()
    assert bytes(frame.handle.early_view()) == array().tobytes()
    assert not shared.is_mapped(frame.handle.early_view())


@pytest.mark.parametrize("ends", ["interrupted", "never begun"])
def test_a_sender_that_ends_before_it_has_copied(pair, outgoing, monkeypatch, ends):
    def interrupt(*_):
        raise KeyboardInterrupt

    hand_over, (frame,) = announce(pair, outgoing, array())
    if ends == "interrupted":
        monkeypatch.setattr(handover, "copy", interrupt)
        with pytest.raises(KeyboardInterrupt):
            hand_over.finish()
    del hand_over
    assert not frame.handle.is_written()
    assert not len(frame.view())
    assert "0 segments on loan" in repr(outgoing.pool)


def test_a_receiver_that_has_gone_is_not_waited_for(pair, outgoing):
    hand_over, frames = announce(pair, outgoing, array())
    del frames
    hand_over.finish()
    outgoing.pool.trim()
    assert "0 segments on loan" in repr(outgoing.pool)


def test_the_segment_comes_back(pair, outgoing):
    hand_over, frames = announce(pair, outgoing, array())
    hand_over.finish()
    del hand_over
    memory = frames[0].handle.early_view()
    frames = None
    outgoing.pool.trim()
    assert "1 segments on loan" in repr(outgoing.pool), "it is mapped"
    del memory
    outgoing.pool.trim()
    assert "0 segments on loan, 1 idle" in repr(outgoing.pool)


def test_a_relay_reads_nothing_too_early(pair, outgoing, monkeypatch):
    monkeypatch.setattr("hpc.controller.parcel.PATIENCE_S", 0.01)
    hand_over, (frame,) = announce(pair, outgoing, array())
    with pytest.raises(OSError, match="its sender has gone"):
        SegmentParcel(frame).read(0, 100)
    hand_over.finish()
    assert bytes(SegmentParcel(frame).read(5, 100)) == array().tobytes()[5:100]


# ---------------------------------------------------------------- the engine


def test_a_name_is_bound_when_its_bytes_are_there(pair, outgoing, late):
    hand_over, frames = announce(pair, outgoing, array())
    head, memory = late.expect([b"head", *frames])
    assert head == b"head"
    late.bind({"x": np.frombuffer(memory, np.uint8)})
    assert late
    assert "x" in repr(late)
    assert "x" not in late._namespace.names
    hand_over.finish()
    late.settle()
    assert not late
    assert np.array_equal(late._namespace.names["x"], array())


def test_half_an_array_is_none(pair, outgoing, late, caplog):
    late._namespace.names["x"] = 1
    hand_over, frames = announce(pair, outgoing, array())
    late.bind({"x": late.expect([b"head", *frames])[1]})
    del hand_over
    late.settle()
    assert late._namespace.names["x"] == 1
    assert "x: the client ended while it sent" in caplog.text
    assert not late


def test_what_is_there_is_bound_at_once(late):
    body = [b"head", memoryview(b"x")]
    assert late.expect(body) is body
    late.bind({"x": 1})
    assert late._namespace.names["x"] == 1
    assert not late


# ---------------------------------------------------------------- the client


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"a": np.ones(3)}, BIND),
        ({"a": np.ones(3), "b": np.zeros((2, 2), "M8[s]", "F")[::2]}, BIND),
        ({"a": np.ones(3), "b": 1}, PUSH),
        ({"a.b": np.ones(3)}, PUSH),
        ({"a": [np.ones(3)]}, PUSH),
        ({"a": np.array([None])}, PUSH),
        ({"a": np.ma.ones(3)}, PUSH),
        ({"a": os}, PUSH),
        ({"a": np.broadcast_to(np.ones(1), (3, 3))}, PUSH),
        ({"a": np.frombuffer(bytes(8))}, PUSH),
    ],
)
def test_only_what_is_unpickled_without_a_look_at_its_bytes(names, expected):
    assert operation(names) == expected


@pytest.mark.parametrize(
    "value",
    [
        np.arange(60_000.0),
        np.asfortranarray(np.arange(60_000.0).reshape(6, -1)),
        np.arange(120_000.0).reshape(6, -1)[:, ::2],
        np.arange(60_000)[::-1],
        np.arange(60_000).reshape(2, 3, -1).transpose(2, 0, 1),
        np.arange(60_000).astype("M8[s]"),
        np.arange(60_000).astype("S8"),
        np.ones(60_000, [("a", "i2"), ("b", "f8")]),
    ],
    ids=["C", "F", "strided", "negative", "transposed", "dates", "bytes", "records"],
)
def test_what_may_be_late_is_not_looked_at_by_unpickling(value):
    assert operation({"a": value}) == BIND
    head, *buffers = dump_call(({"a": value},), {})
    empty = [memoryview(bytearray(memoryview(buffer).nbytes)) for buffer in buffers]
    assert empty
    (names,), _ = objects.loads([head, *empty])
    for late, buffer in zip(empty, buffers, strict=True):
        late[:] = memoryview(buffer).cast("B")
    assert names["a"].dtype == value.dtype
    assert np.array_equal(names["a"], value)


def test_nothing_is_late_unless_asked_for(outgoing):
    frames, hand_over = outgoing.hand_over([memoryview(array())], in_pieces=False)
    assert hand_over is None
    assert not frames[0].handle.flags & LATE
