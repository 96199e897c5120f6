"""A message as the first frame of a multi-frame transmission, and back (docs/protocol.md, section 2).

The frame starts with a fixed prefix (magic, protocol version, sequence number, acknowledgement), followed by the
message in MessagePack. Bytes from the network give a message or a `ProtocolError`, nothing else.
"""

import struct
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from hpc.errors import ProtocolError
from hpc.wire import messages as m

PROTOCOL: Final = 1
MAGIC: Final = b"hpc"
PREFIX: Final = struct.Struct("<3sBQQ")

# One message is small by design; the largest carries the small arguments of a whole bundle in its frames, not here.
MAX_MESSAGE_NBYTES: Final = 16 * 1024 * 1024
MAX_FRAMES: Final = 65536

_CONNECTION = (m.Ack, m.Goodbye)
_FETCHES = (m.Fetch, m.Piece, m.Taken, m.Withdraw)
_OFFERS = (m.Offer, m.Withdraw, m.Fetch, m.Piece, m.Release)
# What each peer may say, by its role: a message that does not belong to the role does not even decode.
SPEAKS: Final[Mapping[str, tuple[type[m.Message], ...]]] = {
    "client": (*_CONNECTION, *_FETCHES, m.Define, m.Submit, m.Abort, m.Interrupt, m.Query, m.Shutdown, m.Order, m.Keys),
    "monitor": (*_CONNECTION, m.Query),
    "engine": (*_CONNECTION, *_FETCHES, m.Results, m.Output, m.Revoked, m.Need, m.Notice, m.Sight, m.Declined),
    "launcher": (*_CONNECTION, m.Exited, m.Group, m.Query, m.Shutdown, m.Answer),
    "stranger": (m.Hello,),
}
# What the controller says, by the role of the peer that listens.
HEARS: Final[Mapping[str, tuple[type[m.Message], ...]]] = {
    "client": (*_CONNECTION, *_OFFERS, m.Delivery, m.Engines, m.Ended, m.Answer, m.Output, m.Stalled, m.Credit),
    "monitor": (*_CONNECTION, m.Engines, m.Answer, m.Credit),
    "engine": (*_CONNECTION, *_OFFERS, m.Define, m.Run, m.Revoke, m.Interrupt, m.Stop, m.Look, m.Hold),
    "launcher": (*_CONNECTION, m.Start, m.Stop, m.Answer, m.Order),
}
_OPENING = (m.Identify, m.Welcome, m.Refused)

_encoder = msgspec.msgpack.Encoder()


def _decoder(kinds: tuple[type[m.Message], ...]) -> "msgspec.msgpack.Decoder[Any]":
    union: Any = kinds[0]
    for kind in kinds[1:]:
        union = union | kind
    return msgspec.msgpack.Decoder(union)


_from_peer = {role: _decoder(kinds) for role, kinds in SPEAKS.items()}
_from_controller = {role: _decoder(kinds + _OPENING) for role, kinds in HEARS.items()}
_entries = msgspec.msgpack.Decoder(list[m.Entry])
_calls = msgspec.msgpack.Decoder(list[tuple[int, int, bytes]])


def encode(message: m.Message, seq: int = 0, ack: int = 0) -> bytes:
    """Return the first frame of a transmission; ``seq`` is 0 for messages outside of a session's stream."""
    return PREFIX.pack(MAGIC, PROTOCOL, seq, ack) + _encoder.encode(message)


def from_peer(frame: bytes | bytearray | memoryview, role: str) -> tuple[int, int, m.Message]:
    """Decode a frame that reached the controller from a peer with that role, as ``(seq, ack, message)``.

    Raises
    ------
    ProtocolError
        The bytes are no message that this role may send.
    """
    return _decode(frame, _from_peer[role], role)


def from_controller(frame: bytes | bytearray | memoryview, role: str) -> tuple[int, int, m.Message]:
    """Decode a frame that reached a peer with that role from the controller, as ``(seq, ack, message)``.

    Raises
    ------
    ProtocolError
        The bytes are no message that the controller may send to this role.
    """
    return _decode(frame, _from_controller[role], "controller")


def _decode(
    frame: bytes | bytearray | memoryview, decoder: "msgspec.msgpack.Decoder[Any]", sender: str
) -> tuple[int, int, m.Message]:
    nbytes = len(frame)
    if nbytes < PREFIX.size:
        raise ProtocolError(f"{nbytes} bytes from {sender} are too few for a message")
    if nbytes > MAX_MESSAGE_NBYTES:
        raise ProtocolError(f"a message of {nbytes} bytes from {sender} is over the limit of {MAX_MESSAGE_NBYTES}")
    magic, version, seq, ack = PREFIX.unpack_from(frame)
    if magic != MAGIC:
        raise ProtocolError(f"bytes from {sender} are not of the hpc protocol")
    if version != PROTOCOL:
        raise ProtocolError(
            f"{sender} speaks version {version} of the hpc protocol, this side version {PROTOCOL}:"
            " install the same release of hpc on both sides"
        )
    try:
        message = decoder.decode(memoryview(frame)[PREFIX.size :])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"malformed message from {sender}: {error}") from None
    return seq, ack, message


def encode_entries(entries: list[m.Entry]) -> bytes:
    """Return frame 0 of the body of `messages.Results`."""
    return _encoder.encode(entries)


def decode_entries(frame: bytes | bytearray | memoryview) -> list[m.Entry]:
    """Read frame 0 of the body of `messages.Results`; `ProtocolError` if it is none."""
    try:
        return _entries.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"malformed results: {error}") from None


def encode_calls(calls: list[tuple[int, int, bytes]]) -> bytes:
    """Return frame 0 of the body of a bundle of kind CALLS or EACH: (function index, buffer count, pickle) a task."""
    return _encoder.encode(calls)


def decode_calls(frame: bytes | bytearray | memoryview) -> list[tuple[int, int, bytes]]:
    """Read frame 0 of the body of a bundle of kind CALLS or EACH; `ProtocolError` if it is none."""
    try:
        return _calls.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"malformed calls: {error}") from None
