"""The TCP route: keys, garbage, connections that zmq hides, and peers that vanish."""

import errno
import os
import signal
import socket
import threading
import time
from contextlib import contextmanager

import pytest
import zmq
from transport_harness import KEYS, SERVER, STRANGER, TIMEOUT_S, Harness

from hpc.errors import ConnectError
from hpc.transport import CLOSED, FRAMES, NOISE, OPENED, Disconnected, connect, tcp, zmtp

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(15) + b"\0" + bytes(31)


@pytest.fixture
def harness(tmp_path):
    harness = Harness("tcp", tmp_path)
    yield harness
    harness.close()


@contextmanager
def dealer(harness, **options):
    """Give a socket of bare zmq with a client's keys, connected; what it sent is out at the end."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as sock:
        sock.linger = 1000
        sock.probe_router = 1
        sock.curve_serverkey = SERVER[0].encode()
        sock.curve_publickey, sock.curve_secretkey = (key.encode() for key in KEYS["client"])
        for name, value in options.items():
            setattr(sock, name, value)
        sock.connect(harness.address)
        yield sock


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


def test_a_peer_without_a_probe_is_met_by_its_first_message(harness):
    with dealer(harness, probe_router=0) as sock:
        sock.send_multipart([b"first", b"words"])
        assert harness.frames() == [[b"first", b"words"]]
        assert [arrival.kind for arrival in harness.arrivals] == [OPENED]
    harness.await_arrivals(CLOSED)


def test_a_killed_peer_is_noticed_at_once(harness):
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.read(read, 1)
        public, secret = KEYS["engine"]
        connection = connect(
            addresses=[harness.address], server_key=SERVER[0], public_key=public, secret_key=secret, timeout_s=TIMEOUT_S
        )
        connection.send([b"alive"])
        signal.pause()
    os.write(write, b"x")
    assert harness.frames() == [[b"alive"]]
    os.kill(pid, signal.SIGKILL)
    start = time.monotonic()
    assert harness.await_arrivals(CLOSED)[0].link is harness.of(OPENED)[0].link
    assert time.monotonic() - start < 0.5
    os.waitpid(pid, 0)
    os.close(read)
    os.close(write)


def test_a_peer_that_stops_answering_is_noticed_by_the_heartbeat(tmp_path, monkeypatch):
    """As when a cable is cut: nothing is closed, nothing comes."""
    monkeypatch.setattr(zmtp, "HEARTBEAT_IVL_MS", 100)
    monkeypatch.setattr(zmtp, "HEARTBEAT_TIMEOUT_MS", 200)
    harness = Harness("tcp", tmp_path)
    pid = os.fork()
    if not pid:
        public, secret = KEYS["engine"]
        with_timeout = {"timeout_s": TIMEOUT_S}
        connect(addresses=[harness.address], server_key=SERVER[0], public_key=public, secret_key=secret, **with_timeout)
        signal.pause()
    link = harness.await_arrivals(OPENED)[0].link
    os.kill(pid, signal.SIGSTOP)
    start = time.monotonic()
    assert harness.await_arrivals(CLOSED)[0].link is link
    assert time.monotonic() - start < 2
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    harness.close()


def test_a_broken_connection_comes_back_with_a_new_link(harness):
    connection, link = harness.pair()
    link.channel.cut()
    assert harness.until(lambda: connection.recv_nowait() or len(harness.of(OPENED)) == 2) is True
    assert harness.of(CLOSED)[0].link is link
    second = harness.of(OPENED)[1].link
    assert second is not link
    harness.until(lambda: connection.connected)
    connection.send([b"back"])
    assert harness.frames() == [[b"back"]]
    harness.server.send(link, [b"to the old one"])
    harness.server.send(second, [b"to the new one"])
    assert harness.receive(connection) == [b"to the new one"]


def test_descriptors_are_matched_when_they_are_reused_unseen(harness):
    """Peers come, speak and go while the server looks elsewhere; each still has its beginning and its end."""
    for _ in range(3):
        for i in range(8):
            with dealer(harness) as sock:
                monitor = sock.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
                harness.until(lambda monitor=monitor: monitor.poll(0))
                sock.send(b"%d" % i)
                sock.disable_monitor()
                monitor.close()
            # Now it is gone; the server may not even have seen it come.
        harness.until(lambda: len(harness.of(OPENED)) == len(harness.of(CLOSED)) >= 1)
        harness.turn(0.05)
        opened = [arrival.link for arrival in harness.of(OPENED)]
        assert len(set(opened)) == len(opened) == 8
        assert {arrival.link for arrival in harness.of(CLOSED)} == set(opened)
        for link in opened:
            kinds = [arrival.kind for arrival in harness.arrivals if arrival.link is link]
            assert kinds == [OPENED, FRAMES, CLOSED]
        harness.arrivals.clear()


def test_what_answers_is_no_controller():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def speak():
            for _ in range(2):
                conn, _ = listener.accept()
                conn.sendall(b"SSH-2.0-Something\r\n")
                conn.settimeout(5)
                try:
                    while conn.recv(100):
                        pass
                except OSError:
                    pass
                conn.close()

        thread = threading.Thread(target=speak)
        thread.start()
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        public, secret = STRANGER
        with pytest.raises(ConnectError, match=f"what answers at {address} is no controller of hpc"):
            connect(addresses=[address], server_key=SERVER[0], public_key=public, secret_key=secret, timeout_s=5)
        thread.join()


def test_what_answers_says_nothing():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        public, secret = STRANGER
        start = time.monotonic()
        with pytest.raises(ConnectError, match="did not complete the handshake in time"):
            connect(addresses=[address], server_key=SERVER[0], public_key=public, secret_key=secret, timeout_s=0.3)
        assert time.monotonic() - start < 1


def test_the_next_address_is_tried_when_somebody_else_answers_at_the_first(harness):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        wrong = f"tcp://127.0.0.1:{other.getsockname()[1]}"

        def hang_up():
            for _ in range(2):
                other.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        public, secret = KEYS["client"]
        with harness.working():
            connection = connect(
                addresses=[wrong, harness.address], server_key=SERVER[0], public_key=public, secret_key=secret
            )
        assert connection.address == harness.address
        for _ in range(2):  # whichever answered first
            socket.create_connection(other.getsockname()).close()
        thread.join()
        connection.close()


def test_a_closed_connection_says_so(harness):
    connection, _ = harness.pair()
    connection.close()
    connection.close()
    for call in (connection.recv, connection.recv_nowait, lambda: connection.send([b"x"])):
        with pytest.raises(Disconnected):
            call()


def test_an_interrupted_recv_loses_nothing_or_the_connection(harness):
    """Real signals, at any time. Nothing is missing in what comes before a Disconnected."""
    n, interrupts, torn, inside = 300, 0, 0, tcp.TcpConnection.recv.__code__

    def handler(_, frame):
        while frame is not None:
            if frame.f_code is inside:
                raise KeyboardInterrupt
            frame = frame.f_back

    def receive(connection):
        nonlocal interrupts, torn
        for i in range(n):
            found = None
            while found is None:
                try:
                    found = connection.recv(5)
                except KeyboardInterrupt:
                    interrupts += 1
                except Disconnected:
                    torn += 1
                    assert connection.pending()
                    return
            assert [bytes(frame) for frame in found] == [b"%d" % i, b"", b"x" * i]

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for _ in range(3):
            connection, link = harness.pair()
            with harness.working():
                for i in range(n):
                    harness.server.send(link, [b"%d" % i, b"", b"x" * i])
                signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0003)
                receive(connection)
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupts >= torn


def test_sending_while_the_connection_is_down_neither_blocks_nor_raises(harness):
    connection, link = harness.pair()
    harness.server._tcp._router.unbind(harness.address)
    link.channel.cut()
    harness.until(lambda: not connection.connected)
    for _ in range(100):
        connection.send([b"lost", b"of course"])
    harness.server._tcp._router.bind(harness.address)
    harness.until(lambda: connection.recv_nowait() or len(harness.of(OPENED)) == 2)
    connection.send([b"new"])
    assert harness.frames() == [[b"new"]]


def test_ipv6(tmp_path):
    from hpc.transport import Server

    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError as error:
        assert error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
        return
    server = Server(tcp=["tcp://[::1]:0"], server_public=SERVER[0], server_secret=SERVER[1], authorise=lambda _: "client")
    stop = threading.Event()
    thread = threading.Thread(target=lambda: [server.poll(0.01) for _ in iter(stop.is_set, True)])
    thread.start()
    public, secret = KEYS["client"]
    address = f"tcp://[::1]:{server.ports[0]}"
    with connect(addresses=[address], server_key=SERVER[0], public_key=public, secret_key=secret) as connection:
        assert connection.connected
    stop.set()
    thread.join()
    server.close()
