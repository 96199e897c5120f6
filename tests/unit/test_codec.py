"""The codec: every message goes there and back; garbage gives ProtocolError and nothing else."""

import contextlib
import importlib.util
import math
import types
import typing
from enum import IntEnum
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc.errors import ProtocolError
from hpc.wire import codec
from hpc.wire import messages as m

PLAIN = {
    int: st.integers(-(2**63), 2**63 - 1),
    str: st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    bytes: st.binary(max_size=20),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    type(None): st.none(),
    typing.Any: st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5) | st.binary(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=5,
    ),
}


def values(kind):
    """Return a strategy for what a field of that type may hold."""
    if kind in PLAIN:
        return PLAIN[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*map(values, arguments))
    if origin is list:
        return st.lists(values(arguments[0]), max_size=3)
    if origin is tuple:
        return st.tuples(*map(values, arguments))
    if origin is dict:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=3)
    if issubclass(kind, IntEnum):
        return st.sampled_from(list(kind))
    return st.builds(kind, *[values(field.type) for field in msgspec.structs.fields(kind)])


FROM_PEER = [(role, kind) for role, kinds in codec.SPEAKS.items() for kind in kinds]
FROM_CONTROLLER = [
    (role, kind) for role, kinds in codec.HEARS.items() for kind in (*kinds, m.Identify, m.Welcome, m.Refused)
]
TAGGED = [
    kind
    for kind in vars(m).values()
    if isinstance(kind, type) and issubclass(kind, m.Message) and kind.__struct_config__.tag is not None
]
numbers = st.integers(0, 2**64 - 1)
few = settings(max_examples=15, deadline=None)


@pytest.mark.parametrize(("role", "kind"), FROM_PEER)
@given(data=st.data(), seq=numbers, ack=numbers)
@few
def test_from_a_peer_and_back(role, kind, data, seq, ack):
    message = data.draw(values(kind))
    assert codec.from_peer(codec.encode(message, seq, ack), role) == (seq, ack, message)


@pytest.mark.parametrize(("role", "kind"), FROM_CONTROLLER)
@given(data=st.data(), seq=numbers, ack=numbers)
@few
def test_from_the_controller_and_back(role, kind, data, seq, ack):
    message = data.draw(values(kind))
    frame = memoryview(bytearray(codec.encode(message, seq, ack)))
    assert codec.from_controller(frame, role) == (seq, ack, message)


@given(st.lists(values(m.Entry), max_size=5))
@few
def test_entries(entries):
    assert codec.decode_entries(codec.encode_entries(entries)) == entries


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100), st.binary(max_size=50)), max_size=5))
@few
def test_calls(calls):
    assert codec.decode_calls(codec.encode_calls(calls)) == calls


def test_every_message_has_a_speaker():
    spoken = {kind for kinds in (*codec.SPEAKS.values(), *codec.HEARS.values()) for kind in kinds}
    tagged = set(TAGGED)
    assert tagged == spoken | {m.Identify, m.Welcome, m.Refused}


@pytest.mark.parametrize("kind", TAGGED)
def test_a_peer_says_only_what_its_role_permits(kind):
    message = build(kind)
    for role, kinds in codec.SPEAKS.items():
        if kind in kinds:
            codec.from_peer(codec.encode(message), role)
        else:
            with pytest.raises(ProtocolError, match="malformed message"):
                codec.from_peer(codec.encode(message), role)


def build(kind):
    """Return some instance of a message."""
    samples = {int: 1, str: "s", bytes: b"b", float: 1.0, bool: True}

    def sample(hint):
        if hint in samples:
            return samples[hint]
        if isinstance(hint, type) and issubclass(hint, IntEnum):
            return next(iter(hint))
        return {list: [], dict: {}}.get(typing.get_origin(hint))

    return kind(*[sample(field.type) for field in msgspec.structs.fields(kind)])


@given(st.binary(max_size=200))
def test_garbage(data):
    for frame in (data, codec.PREFIX.pack(codec.MAGIC, codec.PROTOCOL, 1, 1) + data):
        for decode, roles in ((codec.from_peer, codec.SPEAKS), (codec.from_controller, codec.HEARS)):
            for role in roles:
                try:
                    _, _, message = decode(frame, role)
                except ProtocolError:
                    continue
                assert isinstance(message, m.Message)


@pytest.mark.parametrize("decode", [codec.decode_entries, codec.decode_calls])
@given(data=st.binary(max_size=100))
def test_garbage_as_a_body(decode, data):
    with contextlib.suppress(ProtocolError):
        assert isinstance(decode(data), list)


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (b"", "0 bytes from client are too few"),
        (b"x" * 19, "19 bytes from client are too few"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", "are not of the hpc protocol"),
        (codec.PREFIX.pack(b"hpc", 99, 0, 0) + b"\x91\x05", "client speaks version 99 of the hpc protocol, this side"),
        (codec.PREFIX.pack(b"hpc", 1, 0, 0), "malformed message"),
        (codec.encode(m.Ack()) + b"x", "malformed message"),
        (codec.PREFIX.pack(b"hpc", 1, 0, 0) + b"\x91" * 5000 + b"\x05", "malformed message"),
    ],
)
def test_what_is_wrong_is_said(frame, text):
    with pytest.raises(ProtocolError, match=text):
        codec.from_peer(frame, "client")


def test_the_size_of_a_message_is_limited(monkeypatch):
    frame = codec.encode(m.Goodbye("x" * 1000))
    codec.from_peer(frame, "client")
    monkeypatch.setattr(codec, "MAX_MESSAGE_NBYTES", 1000)
    with pytest.raises(ProtocolError, match="over the limit of 1000"):
        codec.from_peer(frame, "client")


def test_a_later_release_may_add_fields():
    frame = codec.PREFIX.pack(codec.MAGIC, codec.PROTOCOL, 7, 3) + msgspec.msgpack.encode(
        [52, "bye", 0, "new", {"x": 1}]
    )
    assert codec.from_peer(frame, "client") == (7, 3, m.Goodbye("bye"))


def test_times_that_are_no_numbers_do_not_come_in_as_others():
    message = m.Submit(1, 1, m.Kind.CALLS, [], None, math.nan)
    assert math.isnan(codec.from_peer(codec.encode(message), "client")[2].submitted)


def test_the_fuzz_target():
    path = Path(__file__).parents[1] / "fuzz" / "fuzz_codec.py"
    spec = importlib.util.spec_from_file_location("fuzz_codec", path)
    fuzz = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz)
    assert fuzz.main(["--inputs", "2000", "--seed", "1"]) == 0
