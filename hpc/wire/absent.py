"""Frames for which there was no memory where they arrived: what they belong to fails, and nothing else does."""

from collections.abc import Sequence
from typing import Any


class Absent(bytes):
    """Stands, empty, in place of a frame of ``nbytes`` bytes."""

    nbytes: int

    def __repr__(self) -> str:
        return f"<Absent, {self.nbytes} bytes>"


def absent(nbytes: int) -> Absent:
    """Return what stands in place of a frame of that size."""
    frame = Absent()
    frame.nbytes = nbytes
    return frame


def check(frames: Sequence[Any]) -> None:
    """Raise MemoryError if one of the frames is not there."""
    if Absent in map(type, frames):
        nbytes = sum(frame.nbytes for frame in frames if type(frame) is Absent)
        raise MemoryError(f"it takes {nbytes} bytes, for which there is no memory here: ask for a part of it at a time")
