"""Framing: what goes in comes out, however it is cut into pieces; garbage gives ProtocolError and nothing else."""

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc.errors import ProtocolError
from hpc.transport import framing
from hpc.transport.framing import Decoder, advance, pack, received

# Small limits, so that every path is taken with little data.
LARGE, JOIN, HUGE, LONG = 64, 32, 256, 20


@pytest.fixture(autouse=True, scope="module")
def small_limits():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(framing, "LARGE_NBYTES", LARGE)
        patch.setattr(framing, "JOIN_NBYTES", JOIN)
        patch.setattr(framing, "HUGE_NBYTES", HUGE)
        patch.setattr(framing, "LONG_HEADER", LONG)
        yield


def joined(pieces):
    return pieces if isinstance(pieces, bytes) else b"".join(pieces)


def feed(decoder, data, cuts=()):
    """Receive the data in pieces: the sizes in ``cuts`` by turns, then as much as fits."""
    found = []
    sizes = iter(cuts)
    view = memoryview(data)
    while view:
        target = decoder.target()
        n = min(next(sizes, len(target)), len(target), len(view))
        target[:n] = view[:n]
        decoder.state.got.append(received(n))
        view = view[n:]
        single = decoder.single()
        found += decoder.take() if single is None else [single]
    return found


def plain(transmissions):
    return [[bytes(frame) for frame in frames] for frames in transmissions]


lengths = st.one_of(st.integers(0, 80), st.sampled_from([JOIN - 1, JOIN, LARGE - 1, LARGE, LARGE + 1, HUGE, 5000]))
frame = st.builds(lambda n, fill: bytes([fill]) * n, lengths, st.integers(0, 255))
transmission = st.lists(frame, min_size=1, max_size=25)


@given(st.lists(transmission, max_size=5), st.lists(st.integers(1, 200), max_size=50))
@settings(deadline=None, max_examples=200)
def test_round_trip_however_cut(transmissions, cuts):
    data = b"".join(joined(pack(frames)) for frames in transmissions)
    decoder = Decoder(memoryview(bytearray(512)))
    assert plain(feed(decoder, data, cuts)) == transmissions
    assert repr(decoder) == "<Decoder between transmissions>"


def test_one_byte_at_a_time():
    transmissions = [[b"a" * LARGE, b""], [b""], [b"b"] * (LONG + 1), [b"c" * HUGE]]
    data = b"".join(joined(pack(frames)) for frames in transmissions)
    assert plain(feed(Decoder(), data, [1] * len(data))) == transmissions


def test_small_frames_are_bytes_and_large_ones_are_writable():
    small, large, huge = feed(Decoder(), joined(pack([b"s", b"l" * LARGE, b"h" * HUGE])))[0]
    assert type(small) is bytes
    for frame in (large, huge):
        frame[0] = 1
        assert frame[0] == 1


def test_decoders_may_share_a_buffer():
    buffer = memoryview(bytearray(512))
    first, second = Decoder(buffer), Decoder(buffer)
    a, b = joined(pack([b"a" * 50, b"A" * 50])), joined(pack([b"b" * 50, b"B" * 90]))
    assert not feed(first, a[:70])
    assert not feed(second, b[:60])
    assert plain(feed(first, a[70:])) == [[b"a" * 50, b"A" * 50]]
    assert plain(feed(second, b[60:])) == [[b"b" * 50, b"B" * 90]]


def test_memory_of_any_shape_is_sent_as_its_bytes():
    numbers = memoryview(struct.pack("4d", 1, 2, 3, 4)).cast("d")
    many = memoryview(bytes(8 * JOIN)).cast("d")
    square = memoryview(bytes(6)).cast("B", (2, 3))
    assert plain(feed(Decoder(), joined(pack([numbers, many, square])))) == [[bytes(numbers), bytes(many), bytes(6)]]


def test_large_frames_are_not_copied_to_be_sent():
    data = bytearray(JOIN)
    pieces = pack([b"x", data, b"y"])
    data[0] = 7
    assert joined(pieces)[-1 - JOIN] == 7


@given(st.binary(max_size=300), st.lists(st.integers(1, 30), max_size=30))
@settings(deadline=None)
def test_garbage_gives_an_error_or_nothing(data, cuts):
    with contextlib.suppress(ProtocolError):
        feed(Decoder(), data, cuts)


@given(transmission, st.data())
@settings(deadline=None)
def test_damaged_transmissions_give_an_error_or_frames(frames, data):
    raw = bytearray(joined(pack(frames)))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    decoder = Decoder()
    decoder.max_frame_nbytes = 1 << 20
    try:
        found = feed(decoder, raw[: data.draw(st.integers(0, len(raw)))])
    except ProtocolError:
        return
    assert all(isinstance(frame, bytes | memoryview) for frames in found for frame in frames)


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "no transmission of the hpc protocol"),
        (struct.pack("<IQ", framing.MAGIC, 1 << 40), f"limit is {framing.MAX_FRAME_NBYTES} bytes"),
        (struct.pack("<IQQ", framing.MAGIC + 1, 3, 1 << 40), f"limit is {framing.MAX_FRAME_NBYTES} bytes"),
    ],
)
def test_limits(header, text):
    with pytest.raises(ProtocolError, match=text):
        feed(Decoder(), header)


def test_too_many_frames():
    decoder = Decoder()
    decoder.max_frames = 10
    with pytest.raises(ProtocolError, match="11 frames is announced, the limit is 10"):
        feed(decoder, joined(pack([b""] * 11)))
    with pytest.raises(ProtocolError, match="over the limit"):
        pack([b""] * 65537)


def test_no_memory_for_what_is_announced(monkeypatch):
    monkeypatch.setattr(framing.mmap, "mmap", lambda *_, **__: (_ for _ in ()).throw(OSError("no")))
    with pytest.raises(ProtocolError, match="no memory for a frame of 1000000 bytes"):
        feed(Decoder(), struct.pack("<IQ", framing.MAGIC, 1000000))


@given(st.lists(frame, max_size=8), st.data())
def test_advance(pieces, data):
    whole = b"".join(pieces)
    n = data.draw(st.integers(0, len(whole)))
    assert b"".join(advance(pieces, n)) == whole[n:]


@given(st.lists(st.binary(max_size=12), min_size=1, max_size=40))
def test_a_piece_is_unpacked_to_what_was_packed(frames):
    piece = pack(frames)
    if type(piece) is bytes:
        assert framing.unpack(piece) == frames
    else:
        assert sum(map(len, frames)) >= JOIN


@given(st.binary(max_size=200))
def test_what_is_no_piece_stays_as_it_is(text):
    assert framing.unpack(b"hpc" + text) == [b"hpc" + text]
    announced = framing.WORD.pack(framing.MAGIC + 1) + text
    if announced != pack(framing.unpack(announced)):
        assert framing.unpack(announced) == [announced]
