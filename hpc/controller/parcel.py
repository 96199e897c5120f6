"""A large frame that is not here: it stands in bodies, and is fetched where it is when somebody wants it."""

import os
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from hpc.errors import ProtocolError
from hpc.transport.framing import MAX_FRAME_NBYTES
from hpc.transport.shared import PIECES, SharedFrame
from hpc.wire import messages as m
from hpc.wire.session import Frame

# Whose it is: ``client`` or ``engine``, and the number.
Key: TypeAlias = tuple[str, int]

# What goes to another host out of shared memory takes the way of parcels from this size on.
SEGMENT_FRAME_NBYTES: Final = 64 * 1024
# How long the bytes of a frame that come piece by piece may take; everybody waits meanwhile.
PATIENCE_S: Final = 5.0


class Parcel:
    """A frame of ``nbytes`` that ``owner`` keeps as ``number``. When nothing refers to it any more it is ``released``.

    Attributes
    ----------
    n_readers : int
        How many receivers are fetching it.
    asked : dict
        Pieces that the owner was asked for, (start, stop), and who waits for each.
    cached : set
        Pieces that are kept for other readers.
    """

    __slots__ = ("asked", "cached", "n_readers", "nbytes", "number", "owner", "released")

    def __init__(self, owner: Key, number: int, nbytes: int, released: list[tuple[Key, int]]) -> None:
        self.owner, self.number, self.nbytes, self.released = owner, number, nbytes, released
        self.n_readers = 0
        self.asked: dict[tuple[int, int], list[Any]] = {}
        self.cached: set[tuple[int, int]] = set()

    def __repr__(self) -> str:
        return f"<Parcel {self.number} of {self.owner[0]} {self.owner[1]}, {self.nbytes} bytes>"

    def __len__(self) -> int:
        return self.nbytes

    def __del__(self) -> None:
        self.released.append((self.owner, self.number))

    def read(self, start: int, stop: int) -> Frame | None:
        """Return bytes that can be had without asking; None if there are none."""
        return None


class SegmentParcel(Parcel):
    """A frame in shared memory of this host, for a receiver elsewhere. Read in pieces, it is never mapped here."""

    __slots__ = ("frame",)

    def __init__(self, frame: SharedFrame) -> None:
        super().__init__(("", 0), 0, frame.nbytes, [])
        self.frame = frame

    def read(self, start: int, stop: int) -> Frame | None:  # noqa: D102
        handle = self.frame.handle
        if handle.flags & PIECES:  # its sender took the receiver for a process that shares memory with it
            piece = self.frame.view(PATIENCE_S)[start:stop]
        elif not handle.is_written(PATIENCE_S):
            raise OSError("its sender has gone")
        else:
            piece, done = memoryview(bytearray(stop - start)), 0
            while done < len(piece):
                nbytes = os.preadv(handle.memory.fd, [piece[done:]], self.frame.offset + start + done)
                done += nbytes
                if not nbytes:
                    raise OSError("a shared segment is shorter than was announced")
        if len(piece) != stop - start:
            raise OSError("its sender has gone")
        return piece


def unpack(
    table: Sequence[m.Label], body: Sequence[Frame], owner: Key, released: list[tuple[Key, int]]
) -> tuple[Any, ...]:
    """Return a body with its parcels in their places.

    Raises
    ------
    ProtocolError
        The table does not fit the body.
    """
    frames: list[Any] = list(body)
    for label in table:
        place, nbytes = label.place, label.nbytes
        if not 0 < place < len(frames) or len(frames[place]) or not 0 < nbytes <= MAX_FRAME_NBYTES:
            raise ProtocolError(f"a parcel of {nbytes} bytes as frame {place} of {len(frames)} is impossible")
        frames[place] = Parcel(owner, label.number, nbytes, released)
    return tuple(frames)


def for_elsewhere(frames: Sequence[Any]) -> list[Any]:
    """Return frames for a peer on another host, which no shared memory reaches.

    What stands in it is a parcel, or, if small, bytes. What is there to be written to is empty.
    """
    return [_for_elsewhere(frame) if type(frame) is SharedFrame else frame for frame in frames]


def _for_elsewhere(frame: SharedFrame) -> Any:
    if frame.handle.writable:
        return b""
    parcel = SegmentParcel(frame)
    return parcel if frame.nbytes >= SEGMENT_FRAME_NBYTES else parcel.read(0, frame.nbytes)
