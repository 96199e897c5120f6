"""Large buffers of a message on their way into shared memory: one write, whatever the number of receivers."""

import logging
from collections.abc import Sequence
from typing import Any, Final

from hpc.dataplane.chooser import SHARED_NBYTES
from hpc.dataplane.handover import HandOver, Part, copy
from hpc.dataplane.segments import Loan, NoSegmentError, Pool
from hpc.transport.pieces import WINDOW_NBYTES
from hpc.transport.shared import SharedFrame

ALIGNMENT: Final = 64
# From here on, data for which no segment is warm goes to a single receiver in pieces. The controller acknowledges a
# message of this size at once, which lets go of its frames: so the receiver is missed when it is gone.
PIECES_NBYTES: Final = 4 * WINDOW_NBYTES

log = logging.getLogger("hpc.dataplane")


class Outgoing:
    """Puts buffers into segments of a pool of its own, for as long as the system lets it."""

    def __init__(self) -> None:
        self.pool = Pool()
        self.obstacle = ""

    def __repr__(self) -> str:
        return f"<Outgoing {self.pool!r}{f', {self.obstacle}' if self.obstacle else ''}>"

    def share(self, buffers: Sequence[Any], least_nbytes: int = SHARED_NBYTES) -> list[Any] | None:
        """Return shared frames with a copy of the buffers; None if they are too small, or there is no shared memory.

        They all go into one segment, each at a multiple of `ALIGNMENT`.
        """
        if sum(map(_nbytes, buffers)) < least_nbytes:
            return None
        shared = self.hand_over(buffers, in_pieces=False)
        return None if shared is None else shared[0]

    def hand_over(
        self, buffers: Sequence[Any], *, in_pieces: bool, late: bool = False
    ) -> tuple[list[Any], HandOver | None] | None:
        """Return what `share` does and, if the copying is still to be done, what does it.

        With ``in_pieces`` there is one receiver, and it looks at the frames once. So if there is no warm memory the
        message can be sent ahead, and the bytes follow piece by piece. With ``late`` it can be sent ahead if there is,
        too: the receiver waits for the bytes before anything looks at them.
        """
        loan, parts = self._lend(buffers, in_pieces, late)
        if loan is None:
            return None
        handle = loan.handle()
        frames = [SharedFrame(handle, start, stop - start) for _, start, stop in parts]
        if loan.in_pieces or loan.late:
            return frames, HandOver(self.pool, loan, parts)
        copy(loan, parts)
        return frames, None

    def share_warm(self, buffers: Sequence[Any]) -> list[Any] | None:
        """Return what `share` does as frames that their one receiver maps as it likes; None if no segment is warm."""
        loan, parts = self._lend(buffers, in_pieces=True)
        if loan is None or loan.in_pieces:
            return None
        copy(loan, parts)
        handle = loan.handle(writable=True)
        return [SharedFrame(handle, start, stop - start) for _, start, stop in parts]

    def _lend(self, buffers: Sequence[Any], in_pieces: bool, late: bool = False) -> tuple[Loan | None, list[Part]]:
        parts, end = [], 0
        for buffer in buffers:
            nbytes = _nbytes(buffer)
            parts.append(Part(buffer, end, end + nbytes))
            end += -(-nbytes // ALIGNMENT) * ALIGNMENT
        try:
            return self.pool.lend(end, in_pieces=in_pieces and end >= PIECES_NBYTES, late=late), parts
        except NoSegmentError as error:
            if str(error) != self.obstacle:
                self.obstacle = str(error)
                log.warning("data goes through the controller instead of shared memory: %s", error)
            return None, parts


def _nbytes(buffer: Any) -> int:
    return buffer.nbytes if type(buffer) is memoryview else len(buffer)
