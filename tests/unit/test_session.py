"""Sessions over a fake link that drops, repeats and breaks: everything arrives, once, in order."""

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc.errors import ProtocolError
from hpc.wire import codec, session
from hpc.wire import messages as m
from hpc.wire.session import Peer, Session

HELLO = m.Hello(codec.PROTOCOL, "1.0", "client", "5e55", "", 0, "here", 1, "me")
CLUSTER = "c1"


class Line:
    """A connection between a `Peer` and the controller's half of its session, with what is under way on it."""

    def __init__(self):
        self.peer, self.controller = Peer(HELLO), Session()
        self.to_peer, self.to_controller = deque(), deque()
        self.peer_got, self.controller_got = [], []
        self.peer_said = self.controller_said = 0
        self.known = False  # the controller has heard Hello over this connection

    def break_(self):
        """Lose what is under way; begin a new connection."""
        self.to_peer.clear()
        self.to_controller.clear()
        self.peer.disconnected()
        self.known = False
        self.to_peer.append([codec.encode(m.Identify(codec.PROTOCOL, "1.0", CLUSTER))])

    def reconnect_unseen(self):
        """As zmq does: the peer does not know, and may say things before it hears the new Identify."""
        self.known = False
        self.to_peer.clear()
        self.to_controller.clear()
        self.to_peer.append([codec.encode(m.Identify(codec.PROTOCOL, "1.0", CLUSTER))])

    def peer_says(self):
        self.peer_said += 1
        frames = self.peer.pack(m.Query(self.peer_said, "ping"), [b"body"])
        if frames is not None:
            self.to_controller.append(frames)

    def controller_says(self):
        self.controller_said += 1
        frames = self.controller.pack(m.Answer(self.controller_said, "pong"))
        if self.known:
            self.to_peer.append(frames)

    def peer_hears(self):
        if not self.to_peer:
            return
        message, answers = self.peer.receive(self.to_peer.popleft())
        if isinstance(message, m.Answer):
            self.peer_got.append(message.request)
        self.to_controller.extend(answers)

    def controller_hears(self):
        if not self.to_controller:
            return
        frames = self.to_controller.popleft()
        if not self.known:
            try:
                _, _, hello = codec.from_peer(frames[0], "stranger")
            except ProtocolError:
                return  # stale, from before the reconnection
            self.known = True
            self.to_peer.append([codec.encode(m.Welcome(self.controller.received, True, 1))])
            self.to_peer.extend(self.controller.resume(hello.received))
            return
        seq, ack, message = codec.from_peer(frames[0], "client")
        if self.controller.accept(seq, ack, frames):
            if isinstance(message, m.Query):
                self.controller_got.append(message.request)
            if self.controller.ack_due():
                self.to_peer.append(self.controller.acknowledge())

    def repeat_to_controller(self):
        """What comes twice; a resumption does this when an acknowledgement was lost."""
        if self.known and self.to_controller:
            self.to_controller.appendleft(self.to_controller[0])

    def settle(self):
        while self.to_peer or self.to_controller:
            self.peer_hears()
            self.controller_hears()


STEPS = [
    Line.peer_says,
    Line.controller_says,
    Line.peer_hears,
    Line.controller_hears,
    Line.repeat_to_controller,
    Line.break_,
    Line.reconnect_unseen,
]


@given(st.lists(st.sampled_from(STEPS), max_size=150), st.integers(1, 5))
@settings(max_examples=300, deadline=None)
def test_nothing_is_lost_or_doubled(steps, ack_every):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "ACK_EVERY_MESSAGES", ack_every)
        line = Line()
        line.break_()
        for step in steps:
            step(line)
            # In order and once, at any time.
            assert line.controller_got == list(range(1, len(line.controller_got) + 1))
            assert line.peer_got == list(range(1, len(line.peer_got) + 1))
        line.break_()
        line.settle()
        assert line.controller_got == list(range(1, line.peer_said + 1))
        assert line.peer_got == list(range(1, line.controller_said + 1))
        # A last break tells both how far the other is: nothing is kept for ever.
        line.break_()
        line.settle()
        assert line.peer.session.unacknowledged == line.controller.unacknowledged == 0
        assert line.peer.connected


def test_what_is_kept_is_let_go_when_it_is_acknowledged():
    one, other = Session(), Session()
    for i in range(session.ACK_EVERY_MESSAGES):
        assert not other.ack_due()
        frames = one.pack(m.Query(i, "ping"))
        seq, ack, _ = codec.from_peer(frames[0], "client")
        assert other.accept(seq, ack, frames)
    assert other.ack_due()
    assert one.unacknowledged == session.ACK_EVERY_MESSAGES
    seq, ack, _ = codec.from_controller(other.acknowledge()[0], "client")
    assert one.accept(seq, ack, [b""])
    assert one.unacknowledged == 0
    assert not other.ack_due()


def test_large_messages_are_acknowledged_soon():
    one, other = Session(), Session()
    frames = one.pack(m.Query(1, "ping"), [bytes(session.ACK_EVERY_NBYTES)])
    assert other.accept(1, 0, frames)
    assert other.ack_due()


def test_any_message_carries_an_acknowledgement():
    one, other = Session(), Session()
    other.accept(1, 0, one.pack(m.Query(1, "ping")))
    seq, ack, _ = codec.from_controller(other.pack(m.Answer(1, None))[0], "client")
    assert (seq, ack) == (1, 1)


@pytest.mark.parametrize(
    ("seq", "ack", "text"),
    [(2, 0, "message 2 came where 1 was due"), (1, 5, "acknowledges message 5, only 2 were sent")],
)
def test_impossible_numbers(seq, ack, text):
    here = Session()
    here.pack(m.Query(1, "ping"))
    here.pack(m.Query(2, "ping"))
    with pytest.raises(ProtocolError, match=text):
        here.accept(seq, ack, [b""])


@pytest.mark.parametrize("received", [-1, 0, 3])
def test_impossible_resumptions(received):
    here = Session()
    for i in range(2):
        here.pack(m.Query(i, "ping"))
    here.accept(0, 1, [b""])
    assert [codec.from_peer(frames[0], "client")[0] for frames in here.resume(1)] == [2]
    with pytest.raises(ProtocolError, match="2 were sent and 1 acknowledged"):
        here.resume(received)


def identify(**changed):
    fields = {"protocol": codec.PROTOCOL, "software": "1.0", "cluster": CLUSTER, **changed}
    return [codec.encode(m.Identify(**fields))]


def test_another_version_is_refused_with_what_to_do():
    with pytest.raises(ProtocolError, match="install the same release"):
        Peer(HELLO).receive(identify(protocol=9))


def test_another_cluster_at_the_same_address_is_refused():
    peer = Peer(HELLO)
    peer.receive(identify())
    peer.receive(identify())
    with pytest.raises(ProtocolError, match="another cluster"):
        peer.receive(identify(cluster="c2"))


def test_before_the_welcome_messages_wait():
    peer = Peer(HELLO)
    assert peer.pack(m.Query(1, "ping")) is None
    _, (hello,) = peer.receive(identify())
    assert codec.from_peer(hello[0], "stranger")[2] == HELLO
    assert peer.pack(m.Query(2, "ping")) is None
    welcome, resumed = peer.receive([codec.encode(m.Welcome(0, False, 7))])
    assert welcome.id == peer.welcome.id == 7
    assert [codec.from_peer(frames[0], "client")[2].request for frames in resumed] == [1, 2]
    assert peer.pack(m.Query(3, "ping"))


def test_a_hello_says_how_far_this_side_has_received():
    peer = Peer(HELLO)
    peer.receive(identify())
    peer.receive([codec.encode(m.Welcome(0, False, 7))])
    peer.receive([codec.encode(m.Answer(1, None), 1, 0)])
    _, (hello,) = peer.receive(identify())
    assert codec.from_peer(hello[0], "stranger")[2].received == 1


def test_a_refusal_comes_through():
    peer = Peer(HELLO)
    message, answers = peer.receive([codec.encode(m.Refused("no"))])
    assert message == m.Refused("no")
    assert not answers
    assert not peer.connected


def test_reprs():
    peer = Peer(HELLO)
    assert repr(peer) == "<Peer client 5e55  not connected, <Session sent 0 (acknowledged 0), received 0>>"
