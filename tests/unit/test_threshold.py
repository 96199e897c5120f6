"""Peers at the TCP port that do not say who they are: how many, how long, how much."""

import contextlib
import os
import socket

import pytest
from transport_harness import Harness

from hpc.transport import FRAMES, NOISE, threshold
from hpc.transport.tcp_link import Channel
from hpc.transport.threshold import Threshold

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(15) + b"\0" + bytes(31)


class Door:
    """A connection that only is there; ``nbytes`` is what it has sent."""

    def __init__(self, address="10.0.0.1:1"):
        self.address, self.quiet, self.open, self.nbytes = address, False, True, 0

    def nbytes_received(self):
        return self.nbytes

    def cut(self):
        self.open = False


@pytest.fixture
def watch():
    return Threshold()


def test_nobody_is_watched_who_is_known(watch):
    door = Door()
    watch.came(door, 0.0)
    assert watch.watched
    watch.known(door, "engine")
    assert not watch.watched
    watch.known(door, "monitor")  # it was not a stranger any more
    assert not watch.watched


def test_the_silent_are_cut_after_a_while(watch):
    early, late = Door(), Door()
    watch.came(early, 0.0)
    watch.came(late, 5.0)
    assert watch.look(threshold.PATIENCE_S - 0.1) == []
    assert len(watch.look(threshold.PATIENCE_S)) == 1
    assert (early.open, late.open) == (False, True)
    assert early.quiet


def test_it_looks_only_when_it_is_time(watch):
    watch.came(Door(), 10.0)
    assert watch.wait_s(10.0) == pytest.approx(threshold.LOOK_S)
    assert watch.look(10.0) == []
    watch.look(10.2)
    assert watch.wait_s(10.2) == pytest.approx(threshold.LOOK_S)


def test_loud_strangers_are_cut(watch):
    loud, quiet = Door(), Door()
    watch.came(loud, 0.0)
    watch.came(quiet, 0.0)
    loud.nbytes = threshold.MAX_NBYTES + 1
    (said,) = watch.look(1.0)
    assert "a stranger that sends" in said
    assert (loud.open, quiet.open) == (False, True)


def test_a_monitor_may_go_on_for_long_but_not_at_once(watch):
    door = Door()
    watch.came(door, 0.0)
    watch.known(door, "monitor")
    for turn in range(1, 10):
        door.nbytes += threshold.MAX_NBYTES // 2
        assert watch.look(float(turn)) == []
    door.nbytes += threshold.MAX_NBYTES + 1
    assert "a monitor that sends" in watch.look(20.0)[0]
    assert not door.open


def test_a_crowd_is_thinned_out_where_it_comes_from(watch, monkeypatch):
    monkeypatch.setattr(threshold, "MAX_STRANGERS", 10)
    crowd = [Door(f"10.0.0.9:{n}") for n in range(30)]
    others = [Door(f"10.0.0.{n}:1") for n in range(5)]
    for door in [*others, *crowd]:
        watch.came(door, 0.0)
    assert len(watch.look(1.0)) == 25
    assert all(door.open for door in others)
    assert [door.open for door in crowd] == [False] * 25 + [True] * 5


def test_who_is_gone_is_forgotten(watch):
    door = Door()
    watch.came(door, 0.0)
    watch.gone(door)
    watch.gone(door)
    assert not watch.watched
    assert watch.look(100.0) == []


# ---------------------------------------------------------------- with sockets


@pytest.fixture
def harness(tmp_path):
    harness = Harness("tcp", tmp_path)
    yield harness
    harness.close()


def stranger(harness):
    return socket.create_connection(("127.0.0.1", harness.server.ports[0]))


def test_a_flood_before_the_handshake_is_cut(harness, monkeypatch):
    monkeypatch.setattr(threshold, "MAX_NBYTES", 64 * 1024)
    connection, _ = harness.pair()
    with stranger(harness) as sock:
        sock.sendall(GREETING + b"\x06" + (1 << 33).to_bytes(8, "big"))
        sock.setblocking(False)

        def pour():
            with contextlib.suppress(BlockingIOError, ConnectionError):
                sock.send(bytes(32 * 1024))
            return harness.of(NOISE)

        assert "a stranger that sends" in harness.until(pour)[0].detail
    connection.send([b"I am fine"])
    assert harness.frames() == [[b"I am fine"]]
    assert not harness.of(FRAMES)


def test_connections_that_say_nothing_keep_nobody_out(harness, monkeypatch):
    monkeypatch.setattr(threshold, "MAX_STRANGERS", 20)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(stranger(harness)) for _ in range(60)]
        harness.until(lambda: len(harness.of(NOISE)) >= 40)
        connection, _ = harness.pair()
        connection.send([b"let in"])
        assert harness.frames() == [[b"let in"]]
        left = 0
        for sock in silent:
            sock.setblocking(False)
            try:
                while sock.recv(100):
                    pass
            except BlockingIOError:
                left += 1
            except ConnectionError:
                pass
        assert left == 20


def test_known_peers_are_not_watched(harness):
    harness.pair("client")
    harness.pair("engine")
    tcp = harness.server._tcp
    assert not tcp.threshold.watched
    connection, link = harness.pair("monitor")
    assert len(tcp.threshold.watched) == 1
    connection.close()
    harness.until(lambda: link.closed)
    assert not tcp.threshold.watched


def test_the_kernel_tells_how_much_has_come():
    here, there = socket.create_server(("127.0.0.1", 0)), socket.socket()
    with here, there:
        there.connect(here.getsockname())
        accepted, _ = here.accept()
        with accepted:
            there.sendall(bytes(12345))
            received = 0
            while received < 12345:
                received += len(accepted.recv(65536))
            channel = Channel(accepted.fileno())
            assert channel.nbytes_received() == 12345
            assert channel.address == "{}:{}".format(*there.getsockname())
    assert channel.nbytes_received() == 0


def test_only_its_own_connection_is_cut():
    """The number of a descriptor that zmq has closed may be that of another connection at once, or of a file."""
    with contextlib.ExitStack() as stack:
        here = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        file = stack.enter_context(open(os.devnull))
        stack.enter_context(socket.create_connection(here.getsockname()))
        accepted, _ = here.accept()
        channel = Channel(accepted.fileno())
        accepted.close()
        channel.cut()
        second = stack.enter_context(socket.create_connection(here.getsockname()))
        other = stack.enter_context(here.accept()[0])
        channel.fd = other.fileno()
        channel.cut()
        second.sendall(b"x")
        assert other.recv(1) == b"x"
        Channel(other.fileno()).cut()
        assert second.recv(1) == b""
        channel.fd = file.fileno()
        channel.cut()
        assert (channel.nbytes_received(), Channel(file.fileno()).address) == (0, "")
