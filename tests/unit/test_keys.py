"""The keys of a controller: handed out, renewed, revoked."""

import contextlib
import os

import pytest
from controller_harness import RawPeer, RunningController, connections

from hpc.controller.keyring import MAX_KEYS, ROLES, KeyRing
from hpc.errors import ConnectError
from hpc.security import connection
from hpc.transport import Disconnected, connect, new_keypair
from hpc.wire import messages as m

pytestmark = pytest.mark.usefixtures("hang_up")


def ask(client, what, **fields):
    client.say(m.Keys(7, what, **fields))
    return client.hear(m.Answer)[0]


def keyed(shared, role, keys):
    """Return a peer with keys of its own."""
    return RawPeer(shared.name, role, tcp=True, keys=keys)


def refused(info):
    with pytest.raises(ConnectError, match="revoked or renewed"):
        connect(
            addresses=info.addresses,
            server_key=info.server_key,
            public_key=info.public_key,
            secret_key=info.secret_key,
            timeout_s=5,
        )


# ---------------------------------------------------------------- the ring


def test_every_role_has_a_key():
    ring = KeyRing()
    assert {ring.authorise(ring.own(role).public) for role in ROLES} == set(ROLES)
    assert ring.authorise(new_keypair()[0]) is None


def test_keys_that_are_there_already_go_on():
    pair = new_keypair()
    ring = KeyRing({"engine": pair})
    assert (ring.own("engine").public, ring.own("engine").secret) == pair
    assert ring.authorise(pair[0]) == "engine"


def test_secrets_are_in_no_text():
    ring = KeyRing()
    text = f"{ring!r} {ring.rows()} {[ring.own(role) for role in ROLES]}"
    assert not any(ring.own(role).secret in text for role in ROLES)


def test_a_new_key_takes_the_place_of_the_old_one():
    ring = KeyRing()
    old = ring.own("engine")
    assert ring.renew("engine") is old
    assert ring.authorise(old.public) is None
    assert ring.authorise(ring.own("engine").public) == "engine"


def test_a_key_admitted_and_revoked():
    ring = KeyRing()
    public = new_keypair()[0]
    key = ring.admit(public, "monitor", "wall")
    assert ring.authorise(public) == "monitor"
    assert [row["label"] for row in ring.rows() if row["name"] == key.name] == ["wall"]
    assert ring.revoke(key.name) is key
    assert ring.authorise(public) is None


@pytest.mark.parametrize("public", ["", "x" * 39, "x" * 41, "\0" * 40, "é" * 40])
def test_what_is_no_key_is_not_admitted(public):
    with pytest.raises(LookupError, match="no public key"):
        KeyRing().admit(public, "client", "")


def test_roles_that_nobody_has():
    for wrong in ("launcher", "controller", ""):
        with pytest.raises(LookupError, match="no role"):
            KeyRing().admit(new_keypair()[0], wrong, "")
        with pytest.raises(LookupError, match="no role"):
            KeyRing().renew(wrong)


def test_the_key_of_a_file_cannot_be_revoked_without_another_one():
    ring = KeyRing()
    with pytest.raises(LookupError, match="ipcluster keys renew client"):
        ring.revoke(ring.own("client").name)
    for wrong in ("", "nothing"):
        with pytest.raises(LookupError, match="no key begins"):
            ring.revoke(wrong)


def test_keys_are_bounded(monkeypatch):
    ring = KeyRing()
    monkeypatch.setattr("hpc.controller.keyring.MAX_KEYS", 4)
    ring.admit(new_keypair()[0], "client", "")
    with pytest.raises(LookupError, match="4 keys already"):
        ring.admit(new_keypair()[0], "client", "")
    assert MAX_KEYS == 1000


# ---------------------------------------------------------------- the controller


def test_the_list_says_who_is_connected(shared):
    client, there = shared.client(), shared.client(tcp=True)
    rows = ask(client, "list").value
    public = connection.find("client", name=shared.name).public_key
    assert [row["connections"] >= 1 for row in rows if row["public"] == public] == [True]
    secrets = [connection.find(role, name=shared.name).secret_key for role in ROLES]
    assert not any(secret in str(rows) for secret in secrets)
    there.cut()


def test_a_key_handed_out_works_until_it_is_revoked(shared):
    client, keys = shared.client(), new_keypair()
    answer = ask(client, "admit", key=keys[0], role="client", label="guest")
    assert not answer.error
    guest = keyed(shared, "client", keys)
    guest.hear(m.Welcome)
    guest.say(m.Query(1, "ping"))
    assert guest.hear(m.Answer)[0].value == "pong"

    assert ask(client, "revoke", key=answer.value).value == answer.value
    guest.say(m.Query(2, "ping"))
    with pytest.raises((Disconnected, TimeoutError)):
        guest.hear(m.Answer, timeout_s=0.5)
    refused(guest.info)
    client.say(m.Query(3, "ping"))
    client.hear(m.Answer)
    assert keys[1] not in shared.log()


def test_a_role_is_not_more_than_its_key(shared):
    client, keys = shared.client(), new_keypair()
    ask(client, "admit", key=keys[0], role="monitor")
    assert "permits it to be monitor" in keyed(shared, "client", keys).hear(m.Refused)[0].reason


def test_renewal_writes_the_file_and_cuts_the_old_key_off():
    alone = RunningController()
    try:
        old = connection.find("engine", name=alone.name)
        engine, client = alone.engine(tcp=True), alone.client()
        assert not ask(client, "renew", role="engine").error
        new = connection.find("engine", name=alone.name)
        assert new.public_key != old.public_key
        assert os.stat(alone.directory / "engine.json").st_mode & 0o777 == 0o600
        refused(old)
        # Whoever can read the file goes on as the engine that it was.
        for peer in (engine.work, engine.control):
            peer.cut()
            peer.info = new
            peer.connect()
            assert peer.hear(m.Welcome)[0].resumed
        assert engine.id == 0
    finally:
        for each in connections:
            with contextlib.suppress(Disconnected):
                each.close()
        connections.clear()
        alone.stop()


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"what": "steal"}, "can be done with keys"),
        ({"what": "admit", "key": "x", "role": "client"}, "no public key"),
        ({"what": "renew", "role": "controller"}, "no role"),
        ({"what": "revoke", "key": "zzz"}, "no key begins"),
    ],
)
def test_what_cannot_be_done_is_said(shared, fields, error):
    assert error in ask(shared.client(), **fields).error


@pytest.mark.parametrize("role", ["engine", "monitor"])
def test_only_clients_manage_keys(shared, role):
    peer = shared.engine(tcp=True).work if role == "engine" else RawPeer(shared.name, role, tcp=True)
    if role == "monitor":
        peer.hear(m.Welcome)
    peer.say(m.Keys(1, "list"))
    assert "malformed message" in peer.hear(m.Refused)[0].reason
