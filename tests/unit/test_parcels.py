"""Parcels between peers and the relay, without sockets: every transmission is delivered by hand."""

import random
from collections import deque

import pytest

from hpc.controller import relay as relay_module
from hpc.controller.contacts import Contacts
from hpc.controller.relay import Relay
from hpc.errors import ProtocolError
from hpc.transport import Link
from hpc.transport import parcels as peer_side
from hpc.transport.parcels import TRAFFIC, Parcels
from hpc.wire import codec
from hpc.wire import messages as m

PIECE = 1000


def hello(role, session, channel=""):
    return m.Hello(1, "test", role, session, channel, 0, "here", 1, "me")


class PeerSide:
    """A peer: its parcels, the bodies that came, and what is on the way to it."""

    def __init__(self, house, contact):
        self.house, self.contact = house, contact
        self.parcels = Parcels()
        self.parcels.piece_nbytes, self.parcels.window_nbytes = PIECE, 4 * PIECE
        self.inbox = deque()
        self.bodies = []
        self.messages = []
        self.stopped = False
        self.n_served = 0

    def receive(self):
        frames = self.inbox.popleft()
        _, _, message = codec.from_controller(frames[0], self.contact.role)
        self.n_served += type(message) is m.Fetch
        if type(message) in TRAFFIC:
            self.say(self.parcels.handle(message, frames))
            return
        self.messages.append(message)
        if isinstance(message, (m.Run, m.Delivery)):
            self.bodies.append(self.parcels.contents(message.parcels, frames[1:]))
            self.parcels.forget(message.parcels)

    def say(self, transmissions):
        for frames in transmissions:
            self.house.outgoing.append((self.contact, frames))


class House:
    """A relay with a client (number 1) and engines; all that is sent waits until `run` delivers it."""

    def __init__(self, n_engines=1):
        self.contacts = Contacts()
        self.outgoing = deque()
        self.largest = 0
        self.relay = Relay(self, self.contacts, self.post)
        self.peers = {}
        self.client = self._add(self.contacts.add_client(hello("client", "c")))
        self.engines = []
        for i in range(n_engines):
            work = self.contacts.add_engine(hello("engine", f"e{i}", "work"), i)
            engine = self._add(self.contacts.add_engine(hello("engine", f"e{i}", "control"), i))
            work.link = engine.contact.link
            self.peers[work] = engine
            self.engines.append(engine)

    def _add(self, contact):
        link = Link(roles=frozenset(), route="unix", name=str(contact))
        contact.link, link.data = link, contact
        self.peers[contact] = PeerSide(self, contact)
        return self.peers[contact]

    def post(self, contact, message, frames=()):
        packed = contact.session.pack(message, frames)
        if contact.link is not None:
            self.send(contact.link, packed)

    def send(self, link, frames):
        self.peers[link.data].inbox.append(frames)

    def submit(self, body, *engines, first=1):
        """Send a body from the client to engines; return what stays with the client."""
        rest, lent = self.client.parcels.lend([b"head", *body])
        frames = self.relay.unpack(self.client.contact, lent.table if lent else [], tuple(rest))
        for engine in engines:
            work = self.contacts.work[engine]
            message = m.Run(1, first, 0, 1, m.Kind.CALLS, [b"f"])
            if self.relay.concerns(work, frames):
                self.relay.carry(work, message, frames)
            else:
                self.post(work, message, frames)
        return lent

    def run(self, n=10**6):
        """Deliver until nothing is under way, or ``n`` transmissions."""
        for _ in range(n):
            if self.outgoing:
                contact, frames = self.outgoing.popleft()
                _, _, message = codec.from_peer(frames[0], contact.role)
                self.relay.handle(contact, message, frames)
            else:
                able = [p for p in {id(p): p for p in self.peers.values()}.values() if p.inbox and not p.stopped]
                if not able:
                    self.relay.flush()
                    if not any(p.inbox and not p.stopped for p in self.peers.values()):
                        return
                    continue
                random.choice(able).receive()
            self.largest = max(self.largest, self.under_way())

    def under_way(self):
        """Count the bytes of pieces that are held by nobody but the controller."""
        queued = {id(f): len(f) for p in self.peers.values() for t in p.inbox for f in t[1:]}
        return sum(queued.values()) + self.relay.pieces.nbytes

    def cut(self, peer):
        """Break a peer's connection, with everything that is on the way, and make it anew."""
        self.outgoing = deque((contact, frames) for contact, frames in self.outgoing if contact is not peer.contact)
        seen = [codec.from_controller(t[0], peer.contact.role)[0] for t in peer.inbox]
        peer.inbox = deque(t for t, seq in zip(peer.inbox, seen, strict=True) if seq)  # the session repeats these
        self.relay.welcomed(peer.contact)
        peer.say(peer.parcels.resume())


@pytest.fixture(autouse=True)
def small_limits(monkeypatch):
    monkeypatch.setattr(peer_side, "LEND_NBYTES", 2000)
    monkeypatch.setattr(peer_side, "LEND_FRAME_NBYTES", 500)


def data(nbytes, seed=0):
    return random.Random(seed).randbytes(nbytes)


def test_small_bodies_stay_as_they_are():
    parcels = Parcels()
    body = [b"x" * 5000, b"y" * 499, b"z" * 1999]
    assert parcels.lend(body) == (body, None)


@pytest.mark.parametrize("nbytes", [2000, 2999, 3000, 3001, 12345])
def test_there(nbytes):
    house, sent = House(), data(nbytes)
    lent = house.submit([sent, b"small"], 0)
    house.run()
    (body,) = house.engines[0].bodies
    assert [bytes(frame) for frame in body] == [b"head", sent, b"small"]
    body[1][:2] = b"ab"  # writable
    assert not lent.left
    assert len(house.client.parcels.shelf) == 0
    assert house.relay.flow.under_way == 0


def test_back():
    house, sent = House(), data(7777)
    rest, lent = house.engines[0].parcels.lend([b"entries", sent])
    body = house.relay.unpack(house.contacts.work[0], lent.table, tuple(rest))
    house.relay.carry(house.client.contact, m.Delivery([m.Delivered(1, 0, 1, 0, False, 2)]), body)
    del body
    house.run()
    assert bytes(house.client.bodies[0][1]) == sent
    assert not lent.left


def test_memory_is_lent_while_somebody_may_want_it_again():
    house, sent = House(), data(5000)
    rest, lent = house.client.parcels.lend([b"head", sent])
    body = house.relay.unpack(house.client.contact, lent.table, tuple(rest))
    for _ in range(2):
        house.relay.carry(house.contacts.work[0], m.Run(1, 1, 0, 1, m.Kind.CALLS, []), body)
        house.run()
        assert lent.left
    del body
    house.run()
    assert not lent.left
    assert [bytes(b[1]) for b in house.engines[0].bodies] == [sent] * 2


def test_what_is_held_does_not_grow_with_the_payload():
    house = House(4)
    house.relay.flow.budget_nbytes, house.relay.pieces.limit_nbytes = 6 * PIECE, 3 * PIECE
    for i in range(4):
        house.submit([data(100 * PIECE, i)], i, first=i + 1)
    house.run()
    assert [bytes(e.bodies[0][1]) for e in house.engines] == [data(100 * PIECE, i) for i in range(4)]
    assert house.largest <= (6 + 4) * PIECE


def test_a_broadcast_is_fetched_about_once():
    house, sent = House(8), data(50 * PIECE)
    house.submit([sent], *range(8))
    house.run()
    assert all(bytes(engine.bodies[0][1]) == sent for engine in house.engines)
    assert house.client.n_served < 2 * 50
    assert house.relay.pieces.nbytes == 0


def test_those_that_stop_hold_up_nobody():
    house = House(5)
    house.relay.flow.budget_nbytes = 6 * PIECE
    for engine in house.engines[:4]:
        engine.stopped = True
    for i in range(5):
        house.submit([data(40 * PIECE, i)], i, first=i + 1)
    for engine in house.engines[:3]:  # they ask, and then read nothing
        engine.stopped = False
        while not any(len(t) > 1 for t in engine.inbox):
            house.run(1)
        engine.stopped = True
    house.run()
    assert bytes(house.engines[4].bodies[0][1]) == data(40 * PIECE, 4)
    assert not house.engines[0].bodies
    for engine in house.engines:
        engine.stopped = False
    house.run()
    assert all(engine.bodies for engine in house.engines)


def test_small_messages_overtake_on_the_way_to_a_client_but_not_to_an_engine():
    house = House()
    house.engines[0].stopped = True
    house.submit([data(40 * PIECE)], 0)
    house.submit([b"tiny"], 0, first=2)
    house.engines[0].stopped = False
    house.run()
    assert [message.first for message in house.engines[0].messages] == [1, 2]


@pytest.mark.parametrize("seed", range(10))
def test_cut_connections_cost_nothing_but_time(seed):
    random.seed(seed)
    house = House(3)
    sent = [data(30 * PIECE + i, i) for i in range(3)]
    lent = [house.submit([sent[i], sent[i][:2500]], i, first=i + 1) for i in range(3)]
    everybody = house.submit([sent[0]], 0, 1, 2, first=9)
    for _ in range(12):
        house.run(random.randrange(40))
        house.cut(random.choice([house.client, *house.engines]))
    house.run()
    for i, engine in enumerate(house.engines):
        first, second = engine.bodies
        assert [bytes(f) for f in first[1:]] == [sent[i], sent[i][:2500]]
        assert bytes(second[1]) == sent[0]
    assert not everybody.left
    assert not any(each.left for each in lent)
    assert house.relay.flow.under_way == 0
    assert house.relay.pieces.nbytes == 0


def test_a_sender_that_goes_ends_what_needs_its_data():
    house = House(2)
    house.submit([data(30 * PIECE)], 0, 1)
    house.submit([b"tiny"], 0, first=2)
    house.run(20)
    house.contacts.remove(house.client.contact)
    house.relay.gone("client", 1)
    house.run()
    assert [(said.engine, said.message.failed) for said in house.relay.said] == [(0, [0]), (1, [0])]
    assert "client 1, which is gone" in str(codec.decode_entries(house.relay.said[0].frames[0])[0].payload)
    assert [message.first for message in house.engines[0].messages] == [2]  # what waited behind it is not held up
    assert all(not e.parcels._incoming and not e.parcels._asked_nbytes for e in house.engines)
    assert house.relay.flow.under_way == 0


def test_a_sender_that_does_not_come_back_is_not_waited_for():
    house = House(2)
    house.submit([data(30 * PIECE)], 0, 1)
    house.run(20)
    house.relay.cut(house.client.contact, now=100.0)
    house.client.contact.link = None
    due = house.relay.next_deadline()
    house.relay.expire(due - 0.01)
    assert not house.relay.said
    house.relay.expire(due)
    house.run()
    assert [said.engine for said in house.relay.said] == [0, 1]
    assert house.relay.next_deadline() is None
    assert house.relay.flow.under_way == 0


def test_a_result_whose_engine_has_gone_is_reported_as_lost():
    house = House()
    rest, lent = house.engines[0].parcels.lend([b"entries", data(9000)])
    body = house.relay.unpack(house.contacts.work[0], lent.table, tuple(rest))
    house.relay.carry(house.client.contact, m.Delivery([m.Delivered(7, 2, 3, 0, False, 2)]), body)
    house.run(4)
    for table in (house.contacts.control, house.contacts.work):
        house.contacts.remove(table[0])
    house.relay.gone("engine", 0)
    house.run()
    (ended,) = house.client.messages
    assert (ended.first, ended.start, ended.stop, ended.reason) == (7, 2, 3, m.EndReason.VANISHED)


def test_a_receiver_that_goes_is_forgotten():
    house = House(2)
    lent = house.submit([data(30 * PIECE)], 0)
    house.run(20)
    for table in (house.contacts.control, house.contacts.work):
        house.contacts.remove(table[0])
    house.relay.gone("engine", 0)
    house.run()
    assert not lent.left
    assert not house.relay._fetched
    assert house.relay.flow.under_way == 0


def test_a_receiver_without_memory_says_so(monkeypatch):
    def refuse(nbytes):
        raise ProtocolError(f"no memory for a frame of {nbytes} bytes")

    monkeypatch.setattr(peer_side, "allocate", refuse)
    house = House()
    house.submit([data(5000)], 0)
    house.run()
    (said,) = house.relay.said
    assert b"no memory" in codec.decode_entries(said.frames[0])[0].payload


def test_a_sender_that_has_lost_it_says_so():
    house = House()
    house.submit([data(5000)], 0)
    house.client.parcels.shelf._places.clear()
    house.run()
    (said,) = house.relay.said
    assert b"has lost its data" in codec.decode_entries(said.frames[0])[0].payload


@pytest.mark.parametrize(
    "label", [m.Label(0, 1, 5), m.Label(2, 1, 5), m.Label(1, 1, 0), m.Label(1, 1, 1 << 40), m.Label(-1, 1, 5)]
)
def test_impossible_labels(label):
    house = House()
    with pytest.raises(ProtocolError, match="impossible"):
        house.relay.unpack(house.client.contact, [label], (b"head", b""))


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (0, 5001), (9, 3)])
def test_impossible_requests(start, stop):
    house = House()
    house.submit([data(5000)], 0)
    (reader,) = house.relay._consumers["engine", 0].readers.values()
    with pytest.raises(ProtocolError, match="no piece"):
        house.relay.handle(house.engines[0].contact, m.Fetch(reader.number, start, stop), [])
    house.relay.handle(house.client.contact, m.Fetch(reader.number, 0, 5), [])  # not its own: as if unknown
    assert not house.relay.flow.under_way


def test_more_requests_than_an_honest_peer_makes(monkeypatch):
    monkeypatch.setattr(relay_module, "MAX_REQUESTS", 3)
    house = House()
    house.relay.flow.budget_nbytes = 0
    house.submit([data(5000)], 0)
    (reader,) = house.relay._consumers["engine", 0].readers.values()
    for _ in range(4):  # the first is served
        house.relay.handle(house.engines[0].contact, m.Fetch(reader.number, 0, 5), [])
    with pytest.raises(ProtocolError, match="at once"):
        house.relay.handle(house.engines[0].contact, m.Fetch(reader.number, 0, 5), [])


def test_a_piece_of_another_length_is_refused():
    parcels = Parcels()
    parcels.handle(m.Offer(1, 5000), [])
    with pytest.raises(ProtocolError, match="another length"):
        parcels.handle(m.Piece(1, 0), [b"", b"short"])


def test_they_say_what_they_are():
    house = House()
    lent = house.submit([data(5000)], 0)
    assert repr(lent) == "<Lent 1 frames, 1 not released>"
    (consumer,) = house.relay._consumers.values()
    (reader,) = consumer.readers.values()
    assert repr(reader) == f"<Reader {reader.number} of <Parcel 1 of client 1, 5000 bytes>, 0 bytes there>"
    assert "1 parcels missing" in repr(reader.held)
    assert repr(consumer) == "<Consumer engine 0, 1 parcels, 0 bytes under way>"
    assert "Flow 0 bytes" in repr(house.relay)
    assert "1 parcels" in repr(house.client.parcels)
