"""Segments of clients that stay mapped here for a while: mapping one anew costs more than a copy into it."""

import mmap
import os
import threading
import time
from typing import Final

from hpc.errors import ProtocolError
from hpc.transport.shared import SharedFrame, map_file

# How many segments stay mapped, and for how long.
MAX_MAPPED: Final = 4
MAPPED_S: Final = 20.0


class Mappings:
    """Shared mappings by segment. They do not keep a segment on loan: whoever uses their memory holds the frame."""

    def __init__(self) -> None:
        self._mapped: dict[tuple[int, int], tuple[memoryview, float]] = {}
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def __repr__(self) -> str:
        return f"<Mappings of {len(self._mapped)} segments>"

    def memory(self, frame: SharedFrame) -> memoryview:
        """Return a frame's memory, which is the sender's own.

        Raises
        ------
        ProtocolError
            The segment is shorter than was said.
        """
        found, now = os.fstat(frame.handle.memory.fd), time.monotonic()
        key, end = (found.st_dev, found.st_ino), frame.offset + frame.nbytes
        if found.st_size < end:
            raise ProtocolError(f"a shared segment is shorter than the {end} bytes that were announced")
        with self._lock:
            kept, _ = self._mapped.pop(key, (memoryview(b""), 0.0))
            if kept.nbytes < end:  # a new one, or one that has grown
                kept = memoryview(map_file(mmap.mmap, frame.handle.memory.fd, found.st_size, shared=True))
            while len(self._mapped) >= MAX_MAPPED:
                del self._mapped[next(iter(self._mapped))]
            self._mapped[key] = kept, now
            self._set_timer()
        return kept[frame.offset : end]

    def _set_timer(self) -> None:
        """Have mappings that nobody needs any more removed, also when nothing ever comes again."""
        if self._timer is None:
            self._timer = threading.Timer(MAPPED_S, self._expire)
            self._timer.daemon = True
            self._timer.start()

    def _expire(self) -> None:
        before = time.monotonic() - MAPPED_S
        with self._lock:
            self._timer = None
            for key in [key for key, (_, used) in self._mapped.items() if used <= before]:
                del self._mapped[key]
            if self._mapped:
                self._set_timer()
