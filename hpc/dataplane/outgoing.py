"""Large buffers of a message on their way into shared memory: one write, whatever the number of receivers."""

import logging
from collections.abc import Sequence
from typing import Any, Final

from hpc.dataplane import memory
from hpc.dataplane.chooser import SHARED_NBYTES
from hpc.dataplane.segments import NoSegmentError, Pool
from hpc.transport.shared import SharedFrame

ALIGNMENT: Final = 64

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
        sizes = [buffer.nbytes if type(buffer) is memoryview else len(buffer) for buffer in buffers]
        if sum(sizes) < least_nbytes:
            return None
        offsets, end = [], 0
        for nbytes in sizes:
            offsets.append(end)
            end += -(-nbytes // ALIGNMENT) * ALIGNMENT
        try:
            loan = self.pool.lend(end)
        except NoSegmentError as error:
            if str(error) != self.obstacle:
                self.obstacle = str(error)
                log.warning("data goes through the controller instead of shared memory: %s", error)
            return None
        for buffer, offset, nbytes in zip(buffers, offsets, sizes, strict=True):
            memory.copy(loan.view[offset : offset + nbytes], buffer)
        handle = loan.handle()
        return [SharedFrame(handle, offset, nbytes) for offset, nbytes in zip(offsets, sizes, strict=True)]
