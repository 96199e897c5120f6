"""Arrays on their way into one buffer of the client, to which all engines write at the same time.

In two steps, both operations that every engine has: `describe` says what there is, `deposit` writes it to its place.
"""

import itertools
import mmap
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from hpc.engine.namespace import Namespace
from hpc.transport.shared import SharedFrame, map_file

# Described arrays that no deposit has asked for yet; and how many segments of clients stay mapped, for how long.
MAX_PINNED: Final = 16
MAX_MAPPED: Final = 4
MAPPED_S: Final = 20.0


class Deposits:
    """What an engine needs to write arrays into segments of clients."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._tickets = itertools.count(1)
        self._pinned: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._mapped: dict[tuple[int, int], tuple[memoryview, float]] = {}
        self.builtins: Mapping[bytes, Callable[..., Any]] = {
            b"!describe": self.describe,
            b"!deposit": self.deposit,
        }

    def __repr__(self) -> str:
        return f"<Deposits, {len(self._pinned)} arrays described, {len(self._mapped)} segments mapped>"

    def describe(self, name: str, least_nbytes: int) -> tuple[int, Any]:
        """Say what a name holds, for a later `deposit`.

        Returns
        -------
        ticket, description
            If it is a plain array of so many bytes: a number above 0, and its type, shape and whether it is in Fortran
            order. Else 0 and the value itself.
        """
        value = self._namespace.lookup(name)
        kind = type(value)
        if kind.__module__ != "numpy" or kind.__name__ != "ndarray" or value.nbytes < least_nbytes:
            return 0, value
        if value.dtype.hasobject or not value.ndim:
            return 0, value
        ticket = next(self._tickets)
        # What the name means when the deposit is made is another matter.
        self._pinned[ticket] = value
        while len(self._pinned) > MAX_PINNED:
            del self._pinned[next(iter(self._pinned))]
        return ticket, (value.dtype, value.shape, bool(value.flags.f_contiguous and not value.flags.c_contiguous))

    def deposit(self, target: Any, dtype: Any, shape: tuple[int, ...], order: Any, places: Mapping[int, Any]) -> Any:
        """Write a described array to its place in a whole that stands in ``target``.

        ``places`` holds, for each engine id, the ticket and the index of its part. Returns None, or the part itself
        where the target is no memory that the client shares.
        """
        import numpy

        ticket, index = places[self._namespace.identity.id]
        part = self._pinned.pop(ticket)
        if type(target) is not SharedFrame:
            return part
        whole: Any = numpy.ndarray(shape, dtype, buffer=self._memory(target), order=order)
        numpy.copyto(whole[index], part, casting="no")
        return None

    def _memory(self, frame: SharedFrame) -> memoryview:
        """Return a frame's memory. Mapping it anew would cost more than the copy into it, so mappings are kept."""
        found, now = os.fstat(frame.handle.memory.fd), time.monotonic()
        key = found.st_dev, found.st_ino
        with self._lock:
            kept, _ = self._mapped.pop(key, (None, 0.0))
            if kept is None:
                kept = memoryview(map_file(mmap.mmap, frame.handle.memory.fd, found.st_size, shared=True))
            while len(self._mapped) >= MAX_MAPPED:
                del self._mapped[next(iter(self._mapped))]
            self._mapped[key] = kept, now
            self._set_timer()
        return kept[frame.offset : frame.offset + frame.nbytes]

    def _set_timer(self) -> None:
        """Have mappings that nobody needs any more removed, also when nothing is ever deposited again."""
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
