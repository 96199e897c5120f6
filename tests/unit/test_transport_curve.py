"""The TCP route: who is let in, as what, and what is said of the others."""

import os
import socket
import time

import pytest
from transport_harness import KEYS, STRANGER, TIMEOUT_S, Harness, dealer

from hpc.errors import ConnectError
from hpc.transport import CLOSED, FRAMES, NOISE, OPENED, zmtp

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(15) + b"\0" + bytes(31)


@pytest.fixture
def harness(tmp_path):
    harness = Harness("tcp", tmp_path)
    yield harness
    harness.close()


@pytest.mark.parametrize("role", KEYS)
def test_the_key_decides_the_role(harness, role):
    connection, link = harness.pair(role)
    assert link.roles == {role}
    assert not link.local
    assert link.pid == 0
    assert link.name.startswith("127.0.0.1:")
    connection.send([b"x"])
    assert harness.frames() == [[b"x"]]


def test_a_key_that_is_not_known(harness):
    start = time.monotonic()
    with pytest.raises(ConnectError, match="refused: wrong key"):
        harness.connect(public_key=STRANGER[0], secret_key=STRANGER[1])
    assert time.monotonic() - start < TIMEOUT_S / 2
    noise = harness.await_arrivals(NOISE)
    assert f"its key {STRANGER[0][:8]}... is not known here" in noise[0].detail
    assert "127.0.0.1" in noise[0].detail
    harness.turn(0.1)
    assert len(harness.of(NOISE)) == 1
    assert not harness.of(OPENED)


def test_a_controller_with_another_key(harness):
    start = time.monotonic()
    with pytest.raises(ConnectError, match="refused: wrong key of the controller"):
        harness.connect(server_key=STRANGER[0])
    assert time.monotonic() - start < TIMEOUT_S / 2
    assert "wrong key for the controller" in harness.await_arrivals(NOISE)[0].detail


@pytest.mark.parametrize("key", ["", "short", "x" * 41, "\0" * 40])
def test_no_key_at_all(harness, key):
    with pytest.raises(ConnectError, match="cannot connect to"):
        harness.connect(server_key=key)


def test_a_peer_that_does_not_encrypt(harness):
    with socket.create_connection(("127.0.0.1", harness.server.ports[0])) as sock:
        sock.sendall(GREETING.replace(b"CURVE", b"NULL\0"))
        assert "does not encrypt" in harness.await_arrivals(NOISE)[0].detail
    assert not harness.of(OPENED)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: example\r\n\r\n",
        b"abc",
        os.urandom(300),
        b"\xff" + os.urandom(300),
        GREETING + os.urandom(300),
        GREETING + b"\x02" + b"\x7f" * 8,
    ],
    ids=["http", "short", "random", "random after ff", "random after greeting", "huge frame"],
)
def test_garbage_is_noise_and_others_go_on(harness, data):
    connection, link = harness.pair()
    with socket.create_connection(("127.0.0.1", harness.server.ports[0])) as sock:
        sock.sendall(data)
        harness.turn(0.05)
    noise = harness.await_arrivals(NOISE)
    assert len(noise) == 1
    assert "refused a peer at" in noise[0].detail
    connection.send([b"I am fine"])
    assert harness.frames() == [[b"I am fine"]]
    harness.server.send(link, [b"me too"])
    assert harness.receive(connection) == [b"me too"]


def test_a_large_announcement_and_then_nothing(harness):
    with socket.create_connection(("127.0.0.1", harness.server.ports[0])) as sock:
        sock.sendall(GREETING + b"\x06" + (1 << 34).to_bytes(8, "big") + b"x")
        harness.turn(0.05)
        harness.pair()[0].send([b"I am fine"])
        assert harness.frames() == [[b"I am fine"]]


def test_a_probe_is_no_noise(harness):
    for _ in range(3):
        socket.create_connection(("127.0.0.1", harness.server.ports[0])).close()
    harness.pair()
    harness.turn(0.05)
    assert not harness.of(NOISE)


def test_a_silent_peer_is_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr(zmtp, "HANDSHAKE_MS", 100)
    harness = Harness("tcp", tmp_path)
    with socket.create_connection(("127.0.0.1", harness.server.ports[0])) as sock:
        assert "127.0.0.1" in harness.await_arrivals(NOISE)[0].detail
        assert "no handshake within 0.1 s" in harness.of(NOISE)[0].detail
        sock.recv(100)
        assert sock.recv(1) == b""
    harness.close()


def test_a_frame_over_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(zmtp, "MAX_FRAME_NBYTES", 100000)
    harness = Harness("tcp", tmp_path)
    connection, link = harness.pair()
    connection.send([bytes(50000)])
    harness.frames()
    connection.send([bytes(200000)])
    assert harness.await_arrivals(CLOSED)[0].link is link
    assert not harness.of(FRAMES)
    harness.close()


def test_a_routing_id_of_its_own_is_refused(harness):
    connection, link = harness.pair()
    for name in (b"me", link.routing_id):
        harness.arrivals.clear()
        with dealer(harness, routing_id=name, reconnect_ivl=-1) as sock:
            sock.send(b"in disguise")
            if name != link.routing_id:  # zmq itself refuses one that is taken
                assert "brings a routing id of its own" in harness.await_arrivals(NOISE)[0].detail
            harness.turn(0.05)
            assert not harness.of(OPENED)
            assert not harness.of(FRAMES)
            sock.linger = 0
    connection.send([b"the true one"])
    assert harness.frames() == [[b"the true one"]]


def test_routing_ids_cannot_be_guessed(tmp_path):
    first = set()
    for i in range(3):
        (tmp_path / str(i)).mkdir()
        harness = Harness("tcp", tmp_path / str(i))
        first.add(harness.pair()[1].routing_id)
        harness.close()
    assert len(first) == 3
