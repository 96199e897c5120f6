"""What the controller does with peers that break the rules, or lose what they send."""

import contextlib
import socket

import pytest
from controller_harness import (
    RawPeer,
    connections,
    knock_with_an_unknown_key,
)

from hpc.security import connection
from hpc.transport import connect
from hpc.wire import codec
from hpc.wire import messages as m

FUNCTION = b"0123456789abcdef"

pytestmark = pytest.mark.usefixtures("hang_up")


def test_keys_bind_the_role(shared):
    peer = RawPeer(shared.name, "client", key_of="engine", tcp=True)
    assert "client.json" in peer.hear(m.Refused)[0].reason
    shared.wait_for_log("permits it to be engine, not client")


def test_a_wrong_key_gets_no_answer(shared):
    secret = knock_with_an_unknown_key(shared.name)
    shared.wait_for_log("is not known here")
    assert secret not in shared.log()


def test_another_version_is_told_so(shared):
    peer = RawPeer(shared.name, "client", protocol=99)
    assert "same release" in peer.hear(m.Refused)[0].reason
    shared.wait_for_log("version 99")


@pytest.mark.parametrize(
    ("frame", "line"),
    [
        (b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", "not of the hpc protocol"),
        (codec.PREFIX.pack(codec.MAGIC, 77, 0, 0) + b"\x90", "version 77"),
    ],
)
def test_garbage_before_hello_is_logged_and_cut(shared, frame, line):
    info = connection.find("client", name=shared.name)
    peer = connect(unix=info.unix)
    connections.append(peer)
    peer.send([frame])
    shared.wait_for_log(line)
    with contextlib.suppress(ConnectionError):
        while peer.recv(5) is not None:
            pass
        pytest.fail("the connection stays open")
    client = shared.client()
    client.say(m.Query(1, "ping"))
    assert client.hear(m.Answer)[0].value == "pong"


def test_bytes_that_are_no_transmission_are_logged_and_cut(shared):
    info = connection.find("client", name=shared.name)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(info.unix)
        sock.sendall(b"\xff" * 1000)
        sock.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            while sock.recv(4096):
                pass


def test_late_messages_of_an_earlier_connection_are_dropped_in_silence(shared):
    info = connection.find("client", name=shared.name)
    before = shared.log()
    peer = connect(unix=info.unix)
    connections.append(peer)
    peer.send([codec.encode(m.Query(1, "ping"), 5, 3)])
    client = shared.client()
    client.say(m.Query(1, "ping"))
    client.hear(m.Answer)
    # Peers of earlier tests may still be missed in these lines; nobody is refused in them.
    assert "refused" not in shared.log().removeprefix(before)
    peer.close()


@pytest.mark.parametrize(
    "message",
    [
        m.Submit(0, 1, m.Kind.SPAN, [FUNCTION], None, 0.0),
        m.Submit(1, 0, m.Kind.SPAN, [FUNCTION], None, 0.0),
        m.Submit(1, 3, m.Kind.EACH, [FUNCTION], [0], 0.0),
        m.Submit(1, 1, m.Kind.EACH, [FUNCTION], None, 0.0),
        m.Submit(1, 1, m.Kind.CALLS, [], [0], 0.0),
    ],
)
def test_nonsense_from_a_client_ends_that_client_only(shared, message):
    client, other = shared.client(), shared.client()
    client.say(message, (b"body",))
    client.hear(m.Refused)
    other.say(m.Query(1, "ping"))
    other.hear(m.Answer)


# ---------------------------------------------------------------- start and end


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_a_message_lost_before_it_was_sent_is_asked_for(shared, tcp):
    """A client that was interrupted between packing and sending goes on as if nothing had been."""
    client, engine = shared.client(tcp=tcp), shared.engine(tcp=tcp)
    client.hear(m.Engines, where=lambda e: any(row.id == engine.id for row in e.joined))
    client.peer.pack(m.Define(FUNCTION, "f"), (b"", b"by value"))  # and never sent
    client.say(m.Submit(1, 2, m.Kind.CALLS, [FUNCTION], [engine.id], 0.0), (b"body",))
    client.hear(m.Welcome)
    run, _ = engine.work.hear(m.Run)
    engine.work.say(m.Results(run.client, 1, 0, 2, False, [], 0.0), (b"entries",))
    delivery, _ = client.hear(m.Delivery)
    assert (delivery.items[0].first, delivery.items[0].stop) == (1, 2)
    engine.close()
