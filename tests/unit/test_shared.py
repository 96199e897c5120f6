"""Frames in shared memory: what goes over a socket, what comes out, and that no descriptor is left behind."""

import gc
import os
import socket

import pytest
from transport_harness import Harness

from hpc.dataplane.outgoing import Outgoing
from hpc.dataplane.segments import Pool
from hpc.errors import ProtocolError
from hpc.transport import FRAMES, shared
from hpc.transport.framing import Decoder, pack
from hpc.transport.shared import Handle, SharedFrame
from hpc.transport.unix import UnixConnection
from hpc.wire import objects

BIG = 300_000


def fds():
    gc.collect()
    return sorted(os.listdir("/proc/self/fd"), key=int)[:-1]


@pytest.fixture
def pair():
    mine, theirs = (UnixConnection(sock) for sock in socket.socketpair())
    with mine, theirs:
        yield mine, theirs


@pytest.fixture
def outgoing():
    return Outgoing()


def texts(n, nbytes=BIG):
    return [bytes([65 + i]) * (nbytes + i) for i in range(n)]


def test_shared_frames_arrive_as_writable_memory_of_ones_own(pair, outgoing):
    data = texts(3)
    frames = outgoing.share(data)
    pair[0].send([b"head", frames[0], b"middle", *frames[1:]])
    head, first, middle, *rest = pair[1].recv(5)
    assert (head, middle) == (b"head", b"middle")
    assert [bytes(frame) for frame in (first, *rest)] == data
    first[0] = 0
    assert bytes(frames[0].view()) == data[0], "what the receiver writes is its own"
    assert shared.is_mapped(first)
    assert not shared.is_mapped(head)


def test_a_frame_for_which_there_is_no_memory_fails_alone(pair, outgoing, monkeypatch):
    payload = objects.dumps(b"x" * BIG)
    pair[0].send([b"head", payload[0], *outgoing.share(payload[1:])])
    pair[0].send([b"next"])
    with monkeypatch.context() as patch:
        patch.setattr(shared, "map_file", no_room)
        patch.setattr(Handle, "_copy", no_room)
        head, *frames = pair[1].recv(5)
    assert head == b"head"
    with pytest.raises(MemoryError, match=f"{BIG} bytes"):
        objects.loads(frames)
    assert pair[1].recv(5) == [b"next"]


def no_room(*_, **__):
    raise MemoryError


def test_frames_of_one_message_share_one_segment(outgoing):
    frames = outgoing.share(texts(50, 40_000))
    assert len({frame.handle for frame in frames}) == 1
    assert all(frame.offset % 64 == 0 for frame in frames)
    assert sum(len(piece) for piece in pack([b"x", *frames])) < 3000


@pytest.mark.parametrize("n", [1, 15, 16, 17, 40])
def test_many_segments_in_one_transmission(pair, n):
    senders = [Outgoing() for _ in range(n)]
    data = texts(n)
    pair[0].send([b"head", *(sender.share([each])[0] for sender, each in zip(senders, data, strict=True))])
    assert [bytes(frame) for frame in pair[1].recv(5)[1:]] == data


def test_large_frames_between_shared_ones(pair, outgoing):
    inline = bytes(200_000)
    data = texts(2)
    pair[0].send([b"a", inline, *outgoing.share(data[:1]), inline, *Outgoing().share(data[1:]), b"z"])
    got = pair[1].recv(5)
    assert [bytes(frame) for frame in got] == [b"a", inline, data[0], inline, data[1], b"z"]


def test_no_descriptor_is_left(pair, outgoing):
    pair[0].send([b"warm"])
    pair[1].recv(5)
    before = fds()
    for _ in range(20):
        pair[0].send([b"x", *Outgoing().share(texts(3))])
        assert len(pair[1].recv(5)) == 4
    assert fds() == before


def test_what_is_never_received_leaves_no_descriptor(outgoing):
    before = fds()
    mine, theirs = socket.socketpair()
    connection = UnixConnection(mine)
    connection.send([b"x", *Outgoing().share(texts(3))])
    decoder = Decoder()
    decoder.state.got.append(theirs.recvmsg_into([decoder.target()[:10]], shared.CONTROL_NBYTES))
    assert decoder.take() == []
    assert len(decoder.state.fds) == 2
    connection.close()
    theirs.close()
    del decoder, connection, mine
    assert fds() == before


def test_a_token_is_held_by_whoever_holds_the_memory(pair, outgoing):
    pool = outgoing.pool
    pair[0].send([b"x", *outgoing.share(texts(1))])
    pool.trim()
    assert "1 segments on loan" in repr(pool)
    frames = pair[1].recv(5)
    pool.trim()
    assert "1 segments on loan" in repr(pool)
    part = frames[1][10:20]
    del frames
    pool.trim()
    assert "1 segments on loan" in repr(pool), "a view of it is enough"
    del part
    pool.trim()
    assert "0 segments on loan, 1 idle" in repr(pool)


def test_the_server_passes_frames_on_unopened(tmp_path, outgoing):
    harness = Harness("unix", tmp_path)
    try:
        sender, _ = harness.pair()
        receiver, link = harness.pair()
        sender.send([b"x", *outgoing.share(texts(1))])
        arrival = harness.await_arrivals(FRAMES)[-1]
        assert type(arrival.frames[1]) is SharedFrame
        assert arrival.frames[1].handle._view is None
        harness.server.send(link, arrival.frames)
        harness.server.flush()
        assert bytes(receiver.recv(5)[1]) == texts(1)[0]
    finally:
        harness.close()


def test_over_tcp_the_bytes_themselves_go(tmp_path, outgoing):
    harness = Harness("tcp", tmp_path)
    try:
        connection, link = harness.pair()
        connection.send([b"up", *outgoing.share(texts(1))])
        arrival = harness.await_arrivals(FRAMES)[-1]
        assert bytes(arrival.frames[1]) == texts(1)[0]
        harness.server.send(link, [b"down", *outgoing.share(texts(1))])
        harness.server.flush()
        frames = None
        while frames is None:
            harness.server.poll(0.01)
            frames = connection.recv_nowait()
        assert bytes(frames[1]) == texts(1)[0]
    finally:
        harness.close()


def test_a_writable_frame_arrives_as_it_is(pair, outgoing):
    loan = outgoing.pool.lend(BIG)
    pair[0].send([b"x", SharedFrame(loan.handle(writable=True), 64, 1000)])
    frame = pair[1].recv(5)[1]
    assert type(frame) is SharedFrame
    os.pwrite(frame.handle.memory.fd, b"hello", frame.offset)
    assert bytes(loan.view[64:69]) == b"hello"


def test_scarce_descriptors_make_receivers_copy(pair, outgoing, monkeypatch):
    monkeypatch.setattr(shared, "_may_map", lambda: False)
    data = texts(2)
    pair[0].send([b"x", *outgoing.share(data)])
    frames = pair[1].recv(5)
    assert [bytes(frame) for frame in frames[1:]] == data
    outgoing.pool.trim()
    assert "0 segments on loan" in repr(outgoing.pool), "nobody holds the segment"


def test_a_segment_that_is_too_short_is_refused(pair):
    loan = Pool().lend(BIG)
    handle = loan.handle()
    long = Handle(handle.memory, handle.token, 1 << 30)
    pair[0].send([b"x", SharedFrame(long, 0, 100)])
    with pytest.raises(ProtocolError, match="shorter"):
        pair[1].recv(5)


@pytest.mark.parametrize(
    ("descriptor", "nbytes"),
    [((1000, 500, 0, 0), 100), ((0, 500, 3, 0), 100), ((0, 500, 0, 0), 100)],
    ids=["beyond the end", "a number too high", "no descriptors"],
)
def test_nonsense_is_refused(descriptor, nbytes):
    with pytest.raises(ProtocolError):
        shared.unpack(shared.DESCRIPTOR.pack(*descriptor), nbytes, [b"head"], [])


def test_a_segment_cannot_be_made_shorter():
    loan = Pool().lend(BIG)
    with pytest.raises(PermissionError):
        os.ftruncate(loan.handle().memory.fd, 10)
