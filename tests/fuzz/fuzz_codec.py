"""Fuzz target for everything that reads bytes from the network: the framing and the codec.

The invariant: any bytes at all give a value or a `ProtocolError`, nothing else, in any role. What gives a message gives
the same one again after it was encoded anew. And no input makes a reader take memory that it did not bring.

    python tests/fuzz/fuzz_codec.py --inputs 1000000        valid frames, damaged at random; the seed is printed
    python tests/fuzz/fuzz_codec.py --atheris               guided by coverage, if atheris is installed
"""

import argparse
import os
import random
import sys
import time
import typing
from enum import IntEnum

import msgspec

from hpc.errors import ProtocolError
from hpc.transport import framing
from hpc.wire import codec
from hpc.wire import messages as m

DECODERS = [
    *((codec.from_peer, role) for role in codec.SPEAKS),
    *((codec.from_controller, role) for role in codec.HEARS),
]
KINDS = [kind for kind in vars(m).values() if isinstance(kind, type) and issubclass(kind, m.Message)]
NUMBERS = [0, 1, -1, 127, 128, 255, 256, 2**31, 2**32, 2**53, 2**63 - 1, -(2**63)]
# What MessagePack, the framing and the codec look for: nil, never used, times, arrays, maps and texts without end, NaN.
TOKENS = [
    *(
        b"hpc\x01",
        b"\xc0",
        b"\xc1",
        b"\x80",
        b"\x90",
        b"\x91",
        b"\xa1\xff",
        b"\x81\x80\x80",
        b"\xc7\x0c\xff",
        b"\xd6\xff",
    ),
    *(b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\x7f\xff\xff\xff"),
    *(b"\xcf" + b"\xff" * 8, b"\xcb\x7f\xf8" + bytes(6), framing.WORD.pack(framing.MAGIC), b"\xff" * 8),
]


def some(rng: random.Random, hint: typing.Any, depth: int = 0) -> typing.Any:
    """Return a random value for a field of that type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is typing.Any:
        hint = rng.choice([int, str, bytes, float, bool, list[int], dict[str, int]])
        return some(rng, hint, depth + 1)
    if origin is list:
        return [some(rng, arguments[0], depth + 1) for _ in range(rng.choice([0, 1, 2, 20]))]
    if origin is dict:
        return {some(rng, str): some(rng, arguments[1], depth + 1) for _ in range(rng.choice([0, 1, 3]))}
    if arguments:
        return some(rng, rng.choice(arguments), depth + 1)
    if hint is type(None):
        return None
    if issubclass(hint, IntEnum):
        return rng.choice(list(hint))
    if issubclass(hint, m.Message):
        return hint(*[some(rng, field.type, depth + 1) for field in msgspec.structs.fields(hint)])
    return {
        int: lambda: rng.choice(NUMBERS),
        str: lambda: rng.choice(["", "x", "\0", "é€😀", "a" * 300]),
        bytes: lambda: rng.randbytes(rng.choice([0, 1, 16, 300])),
        float: lambda: rng.choice([0.0, -1.5, 1e308, float("inf")]),
        bool: lambda: rng.random() < 0.5,
    }[hint]()


def damage(rng: random.Random, data: bytes) -> bytes:
    """Return the data with a few things changed."""
    raw = bytearray(data)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 5])):
        at = rng.randrange(len(raw) + 1)
        what = rng.randrange(6)
        if what == 0 and at < len(raw):
            raw[at] ^= 1 << rng.randrange(8)
        elif what == 1 and at < len(raw):
            raw[at] = rng.randrange(256)
        elif what == 2:
            del raw[at : at + rng.choice([1, 2, 8, 100])]
        elif what == 3:
            raw[at:at] = rng.choice(TOKENS)
        elif what == 4:
            raw[at : at + 4] = rng.choice(TOKENS)
        else:
            raw[at:at] = raw[rng.randrange(len(raw) + 1) :][: rng.choice([1, 8, 64])]
    return bytes(raw)


def check_message(frame: bytes) -> int:
    """Hold the invariant for one frame; return in how many roles it is a message."""
    accepted = 0
    for decode, role in DECODERS:
        try:
            seq, ack, message = decode(frame, role)
        except ProtocolError:
            continue
        accepted += 1
        again = decode(codec.encode(message, seq, ack), role)
        # By their text, because NaN differs from itself.
        assert repr(again) == repr((seq, ack, message)), (again, message)
    return accepted


def check_body(frame: bytes) -> None:
    """Hold the invariant for the first frame of a body."""
    for decode in (codec.decode_entries, codec.decode_calls):
        try:
            assert isinstance(decode(frame), list)
        except ProtocolError:
            continue


def check_stream(stream: bytes, sizes: list[int]) -> None:
    """Hold the invariant for a stream that comes in pieces of these sizes; all cuts must give the same."""
    outcomes = [receive(stream, sizes), receive(stream, [])]
    assert outcomes[0] == outcomes[1], outcomes


def receive(stream: bytes, sizes: list[int]) -> list[list[bytes]]:
    decoder = framing.Decoder()
    decoder.max_frame_nbytes = 1 << 20
    found: list[list[bytes]] = []
    view, turn = memoryview(stream), 0
    try:
        while view:
            target = decoder.target()
            nbytes = min(len(target), len(view), sizes[turn % len(sizes)] if sizes else len(view))
            target[:nbytes] = view[:nbytes]
            decoder.state.got.append(framing.received(nbytes))
            view, turn = view[nbytes:], turn + 1
            single = decoder.single()
            found += [[bytes(frame) for frame in frames] for frames in (decoder.take() if single is None else [single])]
    except ProtocolError:
        # What was complete before is found or not, depending on the cut.
        return []
    return found


def check_random(rng: random.Random) -> int:
    """Make one input, and hold the invariant for it in all readers."""
    message = some(rng, rng.choice(KINDS))
    frame = codec.encode(message, rng.choice([0, 1, 2**64 - 1]), rng.choice([0, 7, 2**64 - 1]))
    accepted = check_message(damage(rng, frame))
    entries = codec.encode_entries([some(rng, m.Entry) for _ in range(rng.randrange(3))])
    check_body(damage(rng, entries))
    check_body(damage(rng, codec.encode_calls([(0, rng.choice(NUMBERS), rng.randbytes(9))])))
    frames = [frame, *(rng.randbytes(rng.choice([0, 1, 50, 70000])) for _ in range(rng.choice([0, 0, 1, 20])))]
    pieces = framing.pack(frames)
    stream = damage(rng, pieces if isinstance(pieces, bytes) else b"".join(pieces))
    check_stream(stream, [rng.randint(1, 5000) for _ in range(5)])
    return accepted


def check_bytes(data: bytes) -> None:
    """Hold the invariant for bytes that a fuzzer has made up."""
    check_message(data)
    check_message(codec.PREFIX.pack(codec.MAGIC, codec.PROTOCOL, 0, 0) + data)
    check_body(data)
    check_stream(data, [1 + (data[0] if data else 0)])


def guided(arguments: list[str]) -> None:
    """Let atheris look for inputs."""
    import atheris

    atheris.instrument_all()
    atheris.Setup([sys.argv[0], *arguments], check_bytes)
    atheris.Fuzz()


def main(argv: list[str] | None = None) -> int:
    """Run; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="how many inputs to try")
    parser.add_argument("--seed", type=int, default=None, help="to repeat a run")
    parser.add_argument(
        "--atheris", action="store_true", help="let atheris make the inputs; it gets all other arguments"
    )
    options, rest = parser.parse_known_args(argv)
    if options.atheris:
        guided(rest)
    seed = int.from_bytes(os.urandom(4)) if options.seed is None else options.seed
    accepted, begun = 0, time.monotonic()
    for number in range(options.inputs):
        rng = random.Random(f"{seed}-{number}")
        try:
            accepted += bool(check_random(rng))
        except BaseException:
            print(f"input {number} of seed {seed} breaks the invariant", file=sys.stderr)
            raise
    elapsed_s = time.monotonic() - begun
    print(f"seed {seed}: {options.inputs} inputs, {accepted} of them still messages, {elapsed_s:.1f} s, nothing else")
    return 0


if __name__ == "__main__":
    sys.exit(main())
