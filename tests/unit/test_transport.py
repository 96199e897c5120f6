"""Both routes, with real sockets: what every connection and every link has to do."""

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
import time

import pytest
from transport_harness import TIMEOUT_S, Harness

from hpc.errors import ConnectError
from hpc.transport import CLOSED, FRAMES, NOISE, OPENED, WATCH, Disconnected, Server, connect, new_keypair

MIB = 1024 * 1024


@pytest.fixture(params=["unix", "tcp"])
def harness(request, tmp_path):
    harness = Harness(request.param, tmp_path)
    yield harness
    harness.close()


def test_there_and_back(harness):
    connection, link = harness.pair()
    connection.send([b"a", b"", b"b" * 1000])
    assert harness.frames() == [[b"a", b"", b"b" * 1000]]
    harness.server.send(link, [b"c", bytearray(b"d"), memoryview(b"e")])
    assert harness.receive(connection) == [b"c", b"d", b"e"]
    assert connection.route == link.route == harness.route
    assert connection.connected
    assert connection.recv(0.01) is None
    assert connection.recv_nowait() is None
    assert not connection.pending()


def test_many_small_ones_keep_their_order(harness):
    connection, link = harness.pair()
    expected = [[b"%d" % i] * (i % 30 + 1) for i in range(3000)]
    for frames in expected:
        harness.server.send(link, frames)
    found = [harness.receive(connection) for _ in expected]
    assert found == expected
    with harness.working():
        for frames in expected:
            connection.send(frames)
    assert harness.frames(len(expected)) == expected


def test_large_frames_both_ways(harness):
    connection, link = harness.pair()
    big, middle = os.urandom(MIB) * 64, os.urandom(70000)
    frames = [b"head", big, b"", middle, b"tail"]
    sender = threading.Thread(target=connection.send, args=(frames,))
    sender.start()
    arrival = harness.await_arrivals(FRAMES)[0]
    sender.join()
    assert [bytes(frame) for frame in arrival.frames] == frames
    assert type(arrival.frames[0]) is bytes
    # As the controller passes it on; and the receiver may write into it.
    harness.server.send(link, arrival.frames)
    found = harness.until(connection.recv_nowait)
    assert [bytes(frame) for frame in found] == frames
    found[1][0] = found[1][0] ^ 1
    assert bytes(found[1][1:]) == big[1:]


def test_what_was_sent_before_the_end_arrives_before_the_end(harness):
    for _ in range(5):
        connection, link = harness.pair()
        for i in range(50):
            connection.send([b"%d" % i])
        connection.close()
        harness.await_arrivals(CLOSED)
        mine = [arrival for arrival in harness.arrivals if arrival.link is link]
        assert [arrival.kind for arrival in mine] == [OPENED] + [FRAMES] * 50 + [CLOSED]
        assert link.closed
        harness.arrivals.clear()


def test_a_link_is_never_used_again(harness):
    """Descriptors are: a new peer gets the number of one that has just gone."""
    links = []
    for i in range(20):
        connection, link = harness.pair()
        links.append(link)
        connection.send([b"%d" % i])
        assert harness.frames() == [[b"%d" % i]]
        harness.server.send(links[i - 1], [b"not for the new one"]) if i else None
        connection.close()
        harness.until(lambda link=link: link.closed)
    assert len({id(link) for link in links}) == 20
    assert [arrival.link for arrival in harness.of(CLOSED)] == links
    assert not harness.of(NOISE)


def test_close_link_delivers_what_is_queued_and_then_cuts(harness, monkeypatch):
    monkeypatch.setattr("hpc.transport.server.LINGER_S", 0.1)
    connection, link = harness.pair()
    harness.server.send(link, [b"refused"])
    harness.server.close_link(link)
    with contextlib.suppress(Disconnected):
        connection.send([b"too late"])
    assert harness.receive(connection) == [b"refused"]
    gone = disconnected if harness.route == "unix" else lambda connection: not connection.connected
    harness.until(lambda: gone(connection))
    assert not [a for a in harness.arrivals if a.link is link and a.kind != OPENED]
    harness.server.send(link, [b"into the void"])


def disconnected(connection):
    try:
        connection.recv_nowait()
    except Disconnected:
        return True
    return False


def test_close_link_at_once(harness):
    connection, link = harness.pair()
    other, other_link = harness.pair()
    harness.server.close_link(link, linger=False)
    harness.server.close_link(link)
    gone = disconnected if harness.route == "unix" else lambda connection: not connection.connected
    harness.until(lambda: gone(connection))
    harness.server.send(other_link, [b"still there"])
    assert harness.receive(other) == [b"still there"]


def test_a_peer_that_never_reads_holds_up_nobody(harness):
    lazy, lazy_link = harness.pair()
    other, other_link = harness.pair()
    for _ in range(64):
        harness.server.send(lazy_link, [bytes(MIB)])
        harness.turn()
    start = time.monotonic()
    for i in range(100):
        other.send([b"%d" % i])
        assert harness.frames() == [[b"%d" % i]]
        harness.server.send(other_link, [b"%d" % i])
        assert harness.receive(other) == [b"%d" % i]
    assert time.monotonic() - start < TIMEOUT_S
    # Whatever waited for the lazy one comes once it reads.
    assert sum(len(harness.receive(lazy)[0]) for _ in range(64)) == 64 * MIB


def test_a_peer_that_floods_holds_up_nobody(harness):
    flooding, flooding_link = harness.pair()
    other, other_link = harness.pair()
    stop = threading.Event()

    def flood():
        while not stop.is_set():
            flooding.send([b"x" * 1000] * 50)

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        for _ in range(20):
            other.send([b"me"])
            harness.until(lambda: any(a.link is other_link for a in harness.of(FRAMES)))
            harness.arrivals.clear()
    finally:
        stop.set()
        while thread.is_alive():
            harness.turn(0.01)
    assert not flooding_link.closed


def test_watched_descriptors(harness):
    reading, writing = os.pipe()
    harness.server.watch(reading, "token")
    os.write(writing, b"x")
    assert harness.await_arrivals(WATCH)[0].token == "token"
    harness.server.unwatch(reading)
    harness.server.unwatch(reading)
    harness.arrivals.clear()
    harness.turn(0.01)
    assert not harness.arrivals
    os.close(reading)
    os.close(writing)


def test_adopted_links(harness):
    mine, theirs = socket.socketpair()
    from hpc.transport.unix import UnixConnection

    link = harness.server.adopt(theirs, "launcher")
    assert link.roles == {"launcher"}
    with UnixConnection(mine) as connection:
        connection.send([b"exited"])
        assert harness.frames() == [[b"exited"]]
        harness.server.send(link, [b"start"])
        assert harness.receive(connection) == [b"start"]
    assert harness.await_arrivals(CLOSED)[0].link is link


def test_recv_waits_as_long_as_it_is_told(harness):
    connection, link = harness.pair()
    start = time.monotonic()
    assert connection.recv(0.2) is None
    assert 0.19 < time.monotonic() - start < 2
    harness.server.send(link, [b"x"])
    with harness.working():
        assert connection.recv() == [b"x"]
        connection.send([b"y"])
        connection.send([b"z"])
    assert harness.frames(2) == [[b"y"], [b"z"]]


def test_pending_tells_what_the_descriptor_does_not(harness):
    connection, link = harness.pair()
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    for i in range(3):
        harness.server.send(link, [b"%d" % i])
    harness.turn()
    for i in range(3):
        if not connection.pending():
            assert poll.poll(TIMEOUT_S * 1000)
        found = None
        while found is None:  # the descriptor of zmq may also tell of other things
            found = connection.recv(0.1)
        assert found == [b"%d" % i]
    assert not connection.pending()


def test_nobody_there(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
    public, secret = new_keypair()
    with pytest.raises(ConnectError) as error:
        connect(
            unix=str(tmp_path / "none"),
            addresses=[address],
            server_key=public,
            public_key=public,
            secret_key=secret,
            timeout_s=2,
        )
    assert str(tmp_path / "none") in str(error.value)
    assert f"{address}: Connection refused" in str(error.value)
    with pytest.raises(ConnectError, match="no address is known"):
        connect()
    with pytest.raises(ConnectError, match="tcp://host:port is needed"):
        connect(addresses=["tcp://nowhere"])


def test_reprs(harness):
    connection, link = harness.pair()
    where = harness.path if harness.route == "unix" else harness.address
    assert repr(connection) == f"<Connection {harness.route} to {where}, up>"
    assert "may be client" in repr(link)
    count = "1 unix links, 0 tcp links" if harness.route == "unix" else "0 unix links, 1 tcp links"
    assert repr(harness.server) == f"<Server at {where}: {count}>"
    connection.close()
    assert repr(connection).endswith("down>")


def test_both_routes_at_once(tmp_path):
    public, secret = new_keypair()
    path = str(tmp_path / "s")
    server = Server(
        unix_path=path,
        tcp=["tcp://127.0.0.1:0", "tcp://127.0.0.1:0"],
        server_public=public,
        server_secret=secret,
        authorise=lambda key: None,
    )
    assert len(set(server.ports)) == 2
    with pytest.raises(OSError, match="cannot listen on"):
        Server(tcp=[f"tcp://127.0.0.1:{server.ports[0]}"], server_public=public, server_secret=secret)
    connect(unix=path, addresses=[f"tcp://127.0.0.1:{server.ports[0]}"]).close()
    server.close()
    assert not os.path.exists(path)


def test_the_unix_route_never_imports_zmq(tmp_path):
    code = f"""
import sys
from hpc.transport import Server, connect
server = Server(unix_path={str(tmp_path / "s")!r})
connection = connect(unix={str(tmp_path / "s")!r})
connection.send([b"x"])
server.poll()
connection.close()
server.close()
assert not [name for name in sys.modules if name.partition(".")[0] in ("zmq", "numpy")], sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
