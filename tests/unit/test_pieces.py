"""Data that goes in pieces: what arrives, and what becomes of those whose other side is busy, or goes."""

import os
import socket
import threading

import pytest

from hpc.dataplane import handover, segments
from hpc.dataplane.outgoing import PIECES_NBYTES, Outgoing
from hpc.errors import ProtocolError
from hpc.transport import framing, pieces, shared
from hpc.transport.pieces import PIECE_NBYTES, WINDOW_NBYTES
from hpc.transport.unix import UnixConnection
from hpc.wire.absent import Absent


@pytest.fixture
def pair():
    mine, theirs = (UnixConnection(sock) for sock in socket.socketpair())
    with mine, theirs:
        yield mine, theirs


@pytest.fixture
def outgoing(monkeypatch):
    monkeypatch.setattr(segments.Pool, "_start_sweeper", lambda _: None)
    return Outgoing()


@pytest.fixture
def patient(monkeypatch):
    """Have senders take nobody for busy who only gets to run late."""
    monkeypatch.setattr(handover, "PRESENT_S", 20)


class Receiver:
    """Receives one transmission in a thread of its own."""

    def __init__(self, connection):
        self._connection = connection
        self._frames = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        self._frames = self._connection.recv(20)

    def frames(self):
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self._frames[1:]


def noise(nbytes):
    return os.urandom(min(nbytes, 4096)) * (nbytes // 4096) + bytes(nbytes % 4096)


def announce(pair, outgoing, buffers):
    frames, hand_over = outgoing.hand_over(buffers, in_pieces=True)
    pair[0].send([b"head", *frames])
    return hand_over


@pytest.mark.parametrize(
    "sizes",
    [
        [PIECES_NBYTES],
        [PIECES_NBYTES + 1],
        [PIECES_NBYTES - 65, 1, 64],
        [PIECE_NBYTES] * 17 + [WINDOW_NBYTES, 3],
        [100_003] * 60,
    ],
    ids=["even", "a byte more", "end of a piece", "pieces", "many"],
)
def test_pieces_arrive_in_memory_of_ones_own(pair, outgoing, patient, sizes):
    data = [noise(nbytes) for nbytes in sizes]
    receiver = Receiver(pair[1])
    announce(pair, outgoing, data).finish()
    got = receiver.frames()
    assert [bytes(frame) for frame in got] == data
    assert not any(map(shared.is_mapped, got))
    outgoing.pool.trim()
    assert "0 segments on loan, 1 idle" in repr(outgoing.pool), "though the frames are there still"
    assert outgoing.pool.nbytes == WINDOW_NBYTES, "no more was touched"


def test_pieces_for_which_there_is_no_memory_hold_nobody_up(pair, outgoing, patient, monkeypatch):
    def no_room(_):
        raise ProtocolError("no memory")

    monkeypatch.setattr(framing, "allocate", no_room)
    receiver = Receiver(pair[1])
    announce(pair, outgoing, [noise(PIECES_NBYTES), noise(PIECES_NBYTES)]).finish()
    assert [type(frame) for frame in receiver.frames()] == [Absent, Absent]


def test_a_receiver_that_is_busy_finds_all_in_the_segment(pair, outgoing):
    data = noise(PIECES_NBYTES + 5)
    announce(pair, outgoing, [data]).finish()
    (frame,) = pair[1].recv(5)[1:]
    assert bytes(frame) == data
    assert shared.is_mapped(frame)


def test_bytes_that_will_not_come_are_not_waited_for(pair, outgoing):
    announce(pair, outgoing, [noise(PIECES_NBYTES)])  # and nobody finishes
    assert [len(frame) for frame in pair[1].recv(5)[1:]] == [0]


def test_an_interrupted_sender_is_not_waited_for(pair, outgoing, patient, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    hand_over = announce(pair, outgoing, [noise(PIECES_NBYTES)])
    receiver = Receiver(pair[1])
    monkeypatch.setattr(segments.Loan, "window", property(interrupt))
    with pytest.raises(KeyboardInterrupt):
        hand_over.finish()
    assert [len(frame) for frame in receiver.frames()] == [0]
    assert "0 segments on loan" in repr(outgoing.pool)


def test_a_receiver_that_goes_in_the_middle_is_not_waited_for(outgoing):
    frames, hand_over = outgoing.hand_over([noise(PIECES_NBYTES)], in_pieces=True)
    voice = pieces.Voice(frames[0].handle.token.fd)
    voice.say(pieces.PRESENT)
    voice.say(pieces.TAKEN)
    del frames, voice
    hand_over.finish()
    outgoing.pool.trim()
    assert "0 segments on loan" in repr(outgoing.pool)


def test_patience_is_limited_where_others_wait(outgoing):
    frames, hand_over = outgoing.hand_over([noise(PIECES_NBYTES)], in_pieces=True)
    assert len(frames[0].view(0.01)) == 0
    hand_over.finish()


def test_what_is_asked_for_again_is_made_warm(pair, outgoing):
    data = noise(PIECES_NBYTES)
    for hand_overs in (True, True, False):
        frames, hand_over = outgoing.hand_over([data], in_pieces=True)
        assert (hand_over is not None) is hand_overs
        pair[0].send([b"head", *frames])
        receiver = Receiver(pair[1])
        if hand_over is not None:
            hand_over.finish()
        assert bytes(receiver.frames()[0]) == data
        outgoing.pool.warm_up()


def test_small_data_and_other_receivers_take_no_pieces(outgoing):
    for nbytes, in_pieces in ((PIECES_NBYTES - 64, True), (PIECES_NBYTES, False)):
        frames, hand_over = outgoing.hand_over([bytes(nbytes)], in_pieces=in_pieces)
        assert hand_over is None
        assert not frames[0].handle.flags & shared.PIECES
