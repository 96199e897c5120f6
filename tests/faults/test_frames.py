"""Frames that go wrong on their way, and peers that should not be here."""

import contextlib
import os
import socket
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from hpc.security import connection
from hpc.transport import framing
from hpc.wire import messages as m
from tests.system.conftest import Processes
from tests.unit.controller_harness import RawPeer, RunningController, close_connections, knock_with_an_unknown_key

from .table import fault

FUNCTION = b"0123456789abcdef"


@pytest.fixture
def controller(processes: Processes) -> Iterator[Any]:
    running = RunningController()
    yield running
    close_connections()
    assert running.stop() == 0


def submit(first: int, engine: int) -> m.Submit:
    return m.Submit(first, 1, m.Kind.CALLS, [FUNCTION], [engine], 0.0)


def pair(controller: Any, tcp: bool) -> tuple[Any, Any]:
    """Return a client that has defined a function, and an engine."""
    client, engine = controller.client(tcp=tcp), controller.engine(tcp=tcp)
    client.hear(m.Engines, where=lambda e: any(row.id == engine.id for row in e.joined))
    client.say(m.Define(FUNCTION, "f"), (b"", b"by value"))
    return client, engine


def finish(client: Any, engine: Any, first: int) -> None:
    """Have the engine run a task; assert that it comes once, and the client gets its result."""
    run, _ = engine.work.hear(m.Run)
    assert (run.first, run.start, run.stop) == (first, 0, 1)
    engine.work.say(m.Results(run.client, first, 0, 1, False, [], 0.0), (b"entries",))
    delivery, _ = client.hear(m.Delivery)
    assert [(item.first, item.start, item.stop) for item in delivery.items] == [(first, 0, 1)]


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
@fault("a message is lost between two calls of its sender", "the session finds the gap and repeats it")
def test_dropped(controller: Any, tcp: bool) -> None:
    client, engine = pair(controller, tcp)
    client.peer.pack(submit(1, engine.id), (b"body",))  # and never sent
    client.say(submit(2, engine.id), (b"body",))
    client.hear(m.Welcome)
    finish(client, engine, 1)
    finish(client, engine, 2)
    engine.close()


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
@fault("a message comes twice", "the second is dropped: its task runs once")
def test_doubled(controller: Any, tcp: bool) -> None:
    client, engine = pair(controller, tcp)
    packed = client.peer.pack(submit(1, engine.id), (b"body",))
    for _ in range(2):
        client.connection.send(packed)
    finish(client, engine, 1)
    client.say(submit(2, engine.id), (b"body",))
    finish(client, engine, 2)
    engine.close()


@fault("a transmission is cut short", "the link is closed, the others do not notice, and its peer resumes its session")
def test_cut_short(controller: Any) -> None:
    client, engine = pair(controller, tcp=False)
    packed = client.peer.pack(submit(1, engine.id), (b"body" * 100_000,))
    pieces = framing.pack(packed)
    whole = pieces if isinstance(pieces, bytes) else b"".join(map(bytes, pieces))
    os.write(client.connection.fileno(), whole[:1000])
    client.cut()
    other = controller.client()
    other.say(m.Query(1, "ping"))
    other.hear(m.Answer)
    client.connect()
    client.hear(m.Welcome)
    finish(client, engine, 1)
    engine.close()


@fault("a peer has a key that is not known", "it gets no answer; the log says so")
def test_badly_keyed(controller: Any) -> None:
    knock_with_an_unknown_key(controller.name)
    controller.wait_for_log("is not known here")
    other = controller.client(tcp=True)
    other.say(m.Query(1, "ping"))
    other.hear(m.Answer)


@fault("a peer speaks another version", "it is told both versions and what to install, and is refused")
def test_wrong_version(controller: Any) -> None:
    peer = RawPeer(controller.name, "client", protocol=99)
    assert "install the same release" in peer.hear(m.Refused)[0].reason


@fault("something else connects to the port", "it is closed; the log says who; others do not notice")
def test_foreign_bytes(controller: Any) -> None:
    info = connection.find("client", name=controller.name)
    host, _, port = info.addresses[0].removeprefix("tcp://").rpartition(":")
    with socket.create_connection((host, int(port)), 5) as browser:
        browser.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        browser.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            while browser.recv(4096):
                pass
    other = controller.client(tcp=True)
    other.say(m.Query(1, "ping"))
    other.hear(m.Answer)


@fault("a message makes no sense", "that client is refused; the others do not notice")
def test_nonsense(controller: Any) -> None:
    client, other = controller.client(session=uuid.uuid4().hex), controller.client()
    client.say(m.Submit(0, 1, m.Kind.SPAN, [FUNCTION], None, 0.0), (b"body",))
    client.hear(m.Refused)
    other.say(m.Query(1, "ping"))
    other.hear(m.Answer)
