"""The TCP route: connections that zmq hides, peers that vanish, and what else may answer."""

import errno
import os
import signal
import socket
import threading
import time

import pytest
import zmq
from transport_harness import KEYS, ROLES, SERVER, STRANGER, TIMEOUT_S, Harness, dealer

from hpc.errors import ConnectError
from hpc.transport import CLOSED, FRAMES, OPENED, Disconnected, Server, connect, tcp, zmtp


@pytest.fixture
def harness(tmp_path):
    harness = Harness("tcp", tmp_path)
    yield harness
    harness.close()


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
        harness.until(lambda: len(harness.of(OPENED)) == len(harness.of(CLOSED)) == 8)
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
    harness.until(lambda: binds(harness.server._tcp._router, harness.address))
    harness.until(lambda: connection.recv_nowait() or len(harness.of(OPENED)) == 2)
    connection.send([b"new"])
    # Whether zmq had a connection for the others in between does not matter: their session would send them again.
    harness.until(lambda: [b"new"] in harness.frames())


def binds(sock, address):
    """Bind, if the listener that was unbound has let go of the address: zmq closes it on another thread."""
    try:
        sock.bind(address)
    except zmq.ZMQError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    return True


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_ipv6():
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    server = Server(tcp=["tcp://[::1]:0"], server_public=SERVER[0], server_secret=SERVER[1], authorise=ROLES.get)
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
