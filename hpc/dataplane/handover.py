"""Handing buffers over to the receiver of a message that was sent ahead of them."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from hpc.dataplane import memory
from hpc.dataplane.segments import Loan, Pool
from hpc.transport.meter import meter
from hpc.transport.pieces import N_PIECES, PIECE, PIECE_NBYTES, WHOLE, WINDOW_NBYTES, Voice

# A receiver that is idle says so within this time. One that is busy finds everything in the segment later; to fill a
# cold one takes ten times as long as to hand the bytes over, so that it pays to wait a little.
PRESENT_S: Final = 0.01


class Part(NamedTuple):
    """A buffer, and where in the segment it goes."""

    buffer: Any
    start: int
    stop: int


def copy(loan: Loan, parts: Sequence[Part]) -> None:
    """Copy buffers into a segment, and tell nobody."""
    view = loan.view
    for buffer, start, stop in parts:
        memory.copy(view[start:stop], buffer)


class HandOver:
    """What is to be copied while the message is on its way.

    Whoever sends the message must call `finish`, whatever happens: the receiver waits for it.
    """

    __slots__ = ("_finished", "_loan", "_parts", "_pool")

    def __init__(self, pool: Pool, loan: Loan, parts: list[Part]) -> None:
        self._pool, self._loan, self._parts, self._finished = pool, loan, parts, False

    def __repr__(self) -> str:
        return f"<HandOver of {self._loan!r}>"

    def __del__(self) -> None:
        if not self._finished:
            self._pool.retract(self._loan)

    def finish(self) -> None:
        """Copy the buffers, which are the caller's again after that. If this is interrupted the receiver fails."""
        self._finished = True
        voice = self._loan.voice()
        try:
            if self._loan.in_pieces and voice.hear(PRESENT_S):
                self._copy_pieces(voice)
            else:
                copy(self._loan, self._parts)
                voice.say(WHOLE)
        except ConnectionError:
            return  # the receiver has ended
        except BaseException:
            self._pool.retract(self._loan)
            raise

    def _copy_pieces(self, voice: Voice) -> None:
        window = self._loan.window
        free, begin, parts = N_PIECES, 0, list(self._parts)
        while begin < self._loan.nbytes:
            while not free:
                taken = len(voice.hear())
                if not taken:
                    return  # it has ended
                free += taken
            target = window[begin % WINDOW_NBYTES :][:PIECE_NBYTES]
            while parts and parts[0].stop <= begin:
                parts.pop(0)
            for buffer, start, stop in parts:
                first, last = max(start, begin), min(stop, begin + PIECE_NBYTES)
                if first >= begin + PIECE_NBYTES:
                    break
                target[first - begin : last - begin] = memoryview(buffer).cast("B")[first - start : last - start]
            voice.say(PIECE)
            free -= 1
            begin += PIECE_NBYTES
            meter.count(PIECE_NBYTES)
        voice.end()
