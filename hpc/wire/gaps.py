"""Pickles with gaps: large bytes, bytearrays and strings stand in frames of their own, not in the pickle.

Pickle knows out-of-band buffers for what can be viewed, not for bytes and strings. But it hands large ones to its file
in one piece, uncopied, and asks for them in one piece; so the stream is cut there. A payload with gaps begins with a
byte that no pickle begins with; then follow the number of gaps and, of each, where in the rest it belongs.
"""

import io
import pickle
import struct
from collections.abc import Sequence
from typing import Any, Final

from hpc.wire.session import Frame

MARK: Final = b"\xc1"
# Pickle writes what is smaller in pieces of 64 to 128 KiB, which are joined: a piece above that is one large object.
GAP_NBYTES: Final = 128 * 1024
# A payload that is larger in all becomes a frame as a whole, because messages are encoded with their payloads.
PAYLOAD_NBYTES: Final = 1024 * 1024

_COUNT: Final = struct.Struct("<I")
_PLACE: Final = struct.Struct("<Q")


class Sink:
    """A file for a pickler, that keeps what is written piece by piece."""

    __slots__ = ("pieces", "write")

    def __init__(self) -> None:
        self.pieces: list[Any] = []
        self.write = self.pieces.append

    def __repr__(self) -> str:
        return f"<Sink of {len(self.pieces)} pieces>"

    def mentions(self, word: bytes) -> bool:
        """Say whether a word stands in what is not one large object."""
        return any(word in piece for piece in self.pieces if len(piece) < GAP_NBYTES)

    def frames(self) -> list[Frame]:
        """Return the payload, and what stands in its gaps."""
        pieces = self.pieces
        if len(pieces) == 1 and len(pieces[0]) < PAYLOAD_NBYTES:
            return [pieces[0]]
        small: list[Any] = []
        gaps: list[Frame] = []
        places: list[int] = []
        at = 0
        for piece in pieces:
            if len(piece) >= GAP_NBYTES:
                gaps.append(memoryview(piece))
                places.append(at)
            else:
                small.append(piece)
                at += len(piece)
        if at >= PAYLOAD_NBYTES:
            if not gaps:
                return [_head([0]), memoryview(b"".join(small))]
            return self._cut_everywhere()
        rest = b"".join(small)
        return [_head(places) + rest, *gaps] if gaps else [rest]

    def _cut_everywhere(self) -> list[Frame]:
        """Return an empty payload whose gaps hold everything."""
        gaps: list[Frame] = []
        small: list[Any] = []
        for piece in [*self.pieces, None]:
            if piece is not None and len(piece) < GAP_NBYTES:
                small.append(piece)
                continue
            if small:
                gaps.append(memoryview(b"".join(small)))
                small = []
            if piece is not None:
                gaps.append(memoryview(piece))
        return [_head([0] * len(gaps)), *gaps]


def _head(places: list[int]) -> bytes:
    return MARK + _COUNT.pack(len(places)) + b"".join(map(_PLACE.pack, places))


def fill(frames: Sequence[Frame]) -> "tuple[Source, Sequence[Frame]]":
    """Return the file to unpickle a payload with gaps from, and the frames that are out-of-band buffers.

    Raises
    ------
    pickle.UnpicklingError
        The payload is damaged, or frames are missing.
    """
    payload = memoryview(frames[0])
    try:
        (n,) = _COUNT.unpack_from(payload, 1)
        start = 1 + _COUNT.size
        rest = start + n * _PLACE.size
        if n >= len(frames) or rest > len(payload):
            raise pickle.UnpicklingError(f"a pickle with {n} gaps came with {len(frames) - 1} frames")
        places = [_PLACE.unpack_from(payload, start + i * _PLACE.size)[0] for i in range(n)]
    except struct.error as error:
        raise pickle.UnpicklingError(f"damaged pickle: {error}") from None
    small, pieces, at = payload[rest:], [], 0
    for place, gap in zip(places, frames[1 : n + 1], strict=True):
        pieces += [small[at:place], memoryview(gap).cast("B")]
        at = place
    pieces.append(small[at:])
    return Source(pieces), frames[n + 1 :]


class Source:
    """A file for an unpickler, made of pieces."""

    def __init__(self, pieces: list[memoryview]) -> None:
        self._pieces = [piece for piece in reversed(pieces) if len(piece)]

    def __repr__(self) -> str:
        return f"<Source of {len(self._pieces)} pieces>"

    def readinto(self, target: Any) -> int:
        """Fill a buffer, as far as there is something."""
        view = memoryview(target).cast("B")
        done, pieces = 0, self._pieces
        while pieces and done < len(view):
            piece = pieces.pop()
            n = min(len(piece), len(view) - done)
            view[done : done + n] = piece[:n]
            done += n
            if n < len(piece):
                pieces.append(piece[n:])
        return done

    def read(self, n: int) -> bytes:
        """Return the next ``n`` bytes, or fewer at the end."""
        pieces = self._pieces
        if pieces and n < len(pieces[-1]):
            piece = pieces[-1]
            pieces[-1] = piece[n:]
            return bytes(piece[:n])
        whole = bytearray(min(n, sum(map(len, pieces))))
        self.readinto(whole)
        return bytes(whole)

    def readline(self) -> bytes:
        """Return what is left of a line; pickles of protocol 5 have none."""
        line = io.BytesIO()
        while byte := self.read(1):
            line.write(byte)
            if byte == b"\n":
                break
        return line.getvalue()
