"""What keys are good for, and what peers that mean harm achieve: nothing, and the others do not notice."""

import contextlib
import ctypes
import logging
import os
import resource
import signal
import socket
import sys
import time

import pytest
from controller_harness import RawPeer

from hpc.controller import reception
from hpc.controller.moderation import MAX_LINES, PERIOD_S, Moderation, OneLine
from hpc.errors import ConnectError, ProtocolError, SecurityError
from hpc.security import connection
from hpc.security.info import ConnectionInfo
from hpc.security.memory import close_to_others, no_core_file
from hpc.transport import NOISE, Disconnected, Server, connect
from hpc.transport.framing import FIRST, MAGIC
from hpc.wire import codec
from hpc.wire import messages as m

pytestmark = pytest.mark.usefixtures("hang_up")

FUNCTION = b"0123456789abcdef"
# One of everything that a client may say.
FROM_CLIENTS = [
    m.Define(FUNCTION, "f"),
    m.Submit(1, 1, m.Kind.CALLS, [FUNCTION], None, 0.0),
    m.Abort(1, 0, 1),
    m.Interrupt([0]),
    m.Shutdown(1, None, True),
    m.Order(1, "scale"),
    m.Keys(1, "list"),
]


def ping(client):
    client.say(m.Query(99, "ping"))
    assert client.hear(m.Answer)[0].value == "pong"


# ---------------------------------------------------------------- what a key is good for


def test_every_message_of_a_client_is_tried():
    assert {type(message) for message in FROM_CLIENTS} >= set(codec.SPEAKS["client"]) - {
        *codec.SPEAKS["engine"],
        *codec.SPEAKS["monitor"],
    }


@pytest.mark.parametrize("message", FROM_CLIENTS, ids=lambda message: type(message).__name__)
@pytest.mark.parametrize("role", ["engine", "monitor"])
def test_the_others_cannot_say_what_a_client_says(shared, role, message):
    client = shared.client()
    peer = shared.engine(tcp=True).work if role == "engine" else RawPeer(shared.name, role, tcp=True)
    if role == "monitor":
        peer.hear(m.Welcome)
    peer.say(message, (b"body",))
    assert "malformed message" in peer.hear(m.Refused)[0].reason
    ping(client)


def test_a_monitor_has_no_results_and_moves_no_data():
    looks = set(codec.SPEAKS["monitor"])
    assert looks == {m.Ack, m.Goodbye, m.Query}
    assert set(codec.HEARS["monitor"]) == {m.Ack, m.Goodbye, m.Engines, m.Answer, m.Credit}


def test_an_engine_does_not_get_the_data_of_others(shared):
    """Parcels have numbers that are easy to guess; they are only good for whom they were offered to."""
    client, holder, thief = shared.client(), shared.engine(), shared.engine()
    client.hear(m.Engines, where=lambda e: any(row.id == holder.id for row in e.joined))
    client.say(m.Define(FUNCTION, "f"), (b"", b"by value"))
    parcel = m.Label(1, 7, 1 << 20)
    client.say(m.Submit(1, 1, m.Kind.CALLS, [FUNCTION], [holder.id], 0.0, parcels=[parcel]), (b"body", b""))
    offer, _ = holder.control.hear(m.Offer)
    thief.control.say(m.Fetch(offer.number, 0, 1000))
    with pytest.raises((TimeoutError, Disconnected)):
        thief.control.hear(m.Piece, timeout_s=0.3)
    assert not any(isinstance(message, m.Fetch) for message in client.got)
    holder.close()
    thief.close()


def test_an_engine_cannot_answer_for_others(shared):
    client, holder, liar = shared.client(), shared.engine(), shared.engine()
    client.hear(m.Engines, where=lambda e: any(row.id == liar.id for row in e.joined))
    client.say(m.Define(FUNCTION, "f"), (b"", b"by value"))
    client.say(m.Submit(1, 1, m.Kind.CALLS, [FUNCTION], [holder.id], 0.0), (b"body",))
    run, _ = holder.work.hear(m.Run)
    liar.work.say(m.Results(run.client, 1, 0, 1, False, [], 0.0), (b"a lie",))
    holder.work.say(m.Results(run.client, 1, 0, 1, False, [], 0.0), (b"the truth",))
    delivery, frames = client.hear(m.Delivery)
    assert (delivery.items[0].engine, bytes(frames[0])) == (holder.id, b"the truth")
    holder.close()
    liar.close()


def test_what_identifies_an_engine_is_told_to_nobody(shared):
    client, engine = shared.client(), shared.engine()
    client.say(m.Query(1, "status"))
    answer = client.hear(m.Answer)[0].value
    assert any(row["id"] == engine.id for row in answer["engines"])
    assert engine.info.uuid not in str(answer) + str(client.got) + shared.log()
    engine.close()


def test_an_engine_key_does_not_make_a_controller(shared):
    """Whoever has engine.json listens in the controller's place: clients do not talk to it."""
    theirs, info = connection.find("engine", name=shared.name), connection.find("client", name=shared.name)
    impostor = Server(tcp=["tcp://127.0.0.1:0"], server_secret=theirs.secret_key, server_public=theirs.public_key)
    try:
        with pytest.raises(ConnectError):
            connect(
                addresses=[f"tcp://127.0.0.1:{impostor.ports[0]}"],
                server_key=info.server_key,
                public_key=info.public_key,
                secret_key=info.secret_key,
                timeout_s=1,
            )
        assert [arrival.kind for arrival in impostor.poll(0)] in ([], [NOISE])
    finally:
        impostor.close()


# ---------------------------------------------------------------- slow and silent ones


@pytest.mark.parametrize("beginning", [b"", b"\x00", FIRST.pack(MAGIC, 100)[:7], FIRST.pack(MAGIC, 100) + b"h"])
def test_peers_that_do_not_get_to_the_point_are_cut(shared, monkeypatch, beginning):
    monkeypatch.setattr(reception, "HELLO_WAIT_S", 0.5)
    client, info = shared.client(), connection.find("client", name=shared.name)
    with contextlib.ExitStack() as stack:
        slow = []
        for _ in range(100):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(info.unix)
            sock.sendall(beginning)
            slow.append(sock)
        began = time.monotonic()
        ping(client)
        assert time.monotonic() - began < 5
        for sock in slow:
            sock.settimeout(10)
            with contextlib.suppress(ConnectionError):
                while sock.recv(4096):
                    pass
    ping(client)


def test_a_stranger_cannot_announce_much(shared):
    info = connection.find("client", name=shared.name)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(info.unix)
        sock.sendall(FIRST.pack(MAGIC, 1 << 30))
        sock.settimeout(10)
        with contextlib.suppress(ConnectionError):
            while sock.recv(4096):
                pass


def test_a_monitor_stays_small(shared):
    peer = RawPeer(shared.name, "monitor")
    peer.hear(m.Welcome)
    with contextlib.suppress(Disconnected):
        peer.say(m.Query(1, "ping"), (bytes(2 << 20),))
    peer.hear_end()
    assert not any(isinstance(message, m.Answer) for message in peer.got)


def test_a_client_may_say_much(shared):
    client = shared.client()
    client.say(m.Query(1, "ping"), (bytes(2 << 20),))
    assert client.hear(m.Answer)[0].value == "pong"


# ---------------------------------------------------------------- the log


def record(text, *args):
    return logging.LogRecord("hpc", logging.WARNING, "file", 1, text, args, None)


def test_a_flood_of_lines_ends_soon_and_is_counted(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("hpc.controller.moderation.time.monotonic", lambda: now[0])
    moderation = Moderation()
    assert sum(moderation.filter(record("refused %s", n)) for n in range(1000)) == MAX_LINES
    now[0] += PERIOD_S
    last = record("refused %s", "x")
    assert moderation.filter(last)
    assert last.getMessage() == f"refused x (before that, {1000 - MAX_LINES} more lines like this one)"
    after = record("refused %s", "y")
    assert moderation.filter(after)
    assert after.getMessage() == "refused y"


def test_nobody_forges_a_line():
    shown = OneLine("%(levelname)s: %(message)s").format(record("refused %s", "me\n2026 INFO: all is well\x1b[2J é"))
    assert shown == "WARNING: refused me\\n2026 INFO: all is well\\x1b[2J é"


# ---------------------------------------------------------------- files and memory


def test_a_pipe_in_the_place_of_a_file_makes_nobody_wait(tmp_path):
    os.mkfifo(tmp_path / "client.json", 0o600)
    with pytest.raises(SecurityError, match="no regular file"):
        ConnectionInfo.load(tmp_path / "client.json")


def crash(before):
    """Return the status of a child that does something and then crashes, with core files permitted as far as can be."""
    pid = os.fork()
    if not pid:
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
        before()
        os.kill(os.getpid(), signal.SIGABRT)
        os._exit(99)
    return os.waitpid(pid, 0)[1]


@pytest.mark.parametrize("measure", [no_core_file, close_to_others])
def test_no_core_file_is_written(tmp_path, monkeypatch, measure):
    monkeypatch.chdir(tmp_path)
    if not os.WCOREDUMP(crash(lambda: None)):
        pytest.skip("this system writes no core files")
    status = crash(measure)
    assert os.WTERMSIG(status) == signal.SIGABRT
    assert not os.WCOREDUMP(status)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_a_process_closed_to_others():
    pid = os.fork()
    if not pid:
        close_to_others()
        os._exit(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))  # PR_GET_DUMPABLE
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 1


def test_a_message_of_another_role_does_not_decode():
    for role in ("engine", "monitor"):
        for message in FROM_CLIENTS:
            with pytest.raises(ProtocolError):
                codec.from_peer(codec.encode(message), role)
