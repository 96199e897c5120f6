"""Segments of shared memory, written warm: fresh pages cost ten times what the copy into them does.

A `Pool` lends segments. A segment comes back by itself when nobody holds the token of the loan any more
(`hpc.transport.shared`), whether it was let go of or its holder was killed. Idle segments are kept for a while, within
a bound, and then given back to the system.
"""

import contextlib
import mmap
import os
import select
import threading
import time
import weakref
from typing import Final

from hpc.dataplane import memory
from hpc.errors import HpcError
from hpc.transport.shared import Descriptor, Handle, map_file, seal, supported

SMALLEST_NBYTES: Final = 1 << 20
# A segment may be lent for data of no less than a quarter of its size.
WASTE: Final = 4
IDLE_S: Final = 20.0
SWEEP_S: Final = 5.0
# How much of the memory that is available may be idle segments, and how much one segment may take.
IDLE_SHARE: Final = 8
SEGMENT_SHARE: Final = 2
# More segments than this are not kept an eye on: the oldest then belong to their holders alone.
MAX_LENT: Final = 64


class NoSegmentError(HpcError):
    """There is no shared memory to be had; the text says why."""


class Segment:
    """Anonymous memory of a fixed size, mapped here for as long as this object lives.

    Attributes
    ----------
    view : memoryview
        All of it.
    touched : int
        How many bytes from the beginning have been written before: those are warm.
    """

    __slots__ = ("idle_since", "memory", "nbytes", "touched", "view")

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.memory = Descriptor(os.memfd_create("hpc", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        os.ftruncate(self.memory.fd, nbytes)
        seal(self.memory.fd)
        self.view = memoryview(map_file(mmap.mmap, self.memory.fd, nbytes, shared=True))
        self.touched = 0
        self.idle_since = 0.0

    def __repr__(self) -> str:
        return f"<Segment of {self.nbytes} bytes, {self.touched} warm>"

    def discard(self) -> None:
        """Give the memory back; nobody holds the token, but engines may have it mapped to write to it again."""
        memory.discard(self.memory.fd, self.nbytes)


class Loan:
    """A segment on loan; it is over when this, its handle and everything made from that are gone.

    Attributes
    ----------
    view : memoryview
        As many bytes as were asked for.
    warm : bool
        Whether they have been written before.
    """

    __slots__ = ("_segment", "_token", "view", "warm")

    def __init__(self, segment: Segment, token: Descriptor, nbytes: int) -> None:
        self._segment, self._token = segment, token
        self.view = segment.view[:nbytes]
        self.warm = segment.touched >= nbytes
        segment.touched = max(segment.touched, nbytes)

    def __repr__(self) -> str:
        return f"<Loan of {self.view.nbytes} bytes of {self._segment!r}>"

    def handle(self, writable: bool = False) -> Handle:
        """Return what to make shared frames of."""
        return Handle(self._segment.memory, self._token, self.view.nbytes, writable)


class Pool:
    """Lends segments; may be used by several threads."""

    def __init__(self) -> None:
        self._reset()
        self._sweeper: threading.Thread | None = None
        _pools.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Segment] = []
        self._lent: dict[int, tuple[Descriptor, Segment]] = {}
        self._poll = select.poll()

    def __repr__(self) -> str:
        return f"<Pool of {len(self._lent)} segments on loan, {len(self._idle)} idle>"

    @property
    def nbytes(self) -> int:
        """How much memory the idle segments take."""
        return sum(segment.touched for segment in self._idle)

    def lend(self, nbytes: int) -> Loan:
        """Return a loan of at least so many bytes, warm ones if there are any.

        Raises
        ------
        NoSegmentError
            The system has no shared memory, not enough memory, or no more file descriptors.
        """
        if not supported():
            raise NoSegmentError("this system has no sealed anonymous memory (memfd)")
        with self._lock:
            self._collect()
            fitting = [s for s in self._idle if nbytes <= s.nbytes <= max(WASTE * nbytes, SMALLEST_NBYTES)]
            # The smallest that fits; of equal ones the youngest, which the caches may still know.
            segment = min(fitting, key=lambda s: (s.touched < nbytes, s.nbytes, -s.idle_since), default=None)
        try:
            reading, writing = os.pipe()
            end, token = Descriptor(reading), Descriptor(writing)
            if segment is None:
                segment = self._new(nbytes)
        except OSError as error:
            raise NoSegmentError(f"no shared memory for {nbytes} bytes: {error.strerror}") from None
        with self._lock:
            if segment in self._idle:
                self._idle.remove(segment)
            elif fitting:  # another thread was quicker
                segment = self._new(nbytes)
            self._lent[reading] = end, segment
            self._poll.register(reading, 0)
            while len(self._lent) > MAX_LENT:
                self._forget(next(iter(self._lent)))
        if self._sweeper is None:
            self._start_sweeper()
        return Loan(segment, token, nbytes)

    def _new(self, nbytes: int) -> Segment:
        available = memory.available_nbytes()
        if nbytes > available // SEGMENT_SHARE:
            raise NoSegmentError(f"no shared memory for {nbytes} bytes: {available} bytes of memory are available")
        return Segment(_rounded(nbytes))

    def _forget(self, fd: int) -> Segment:
        _, segment = self._lent[fd]
        self._poll.unregister(fd)
        del self._lent[fd]
        return segment

    def _collect(self) -> None:
        """Take back what nobody holds any more."""
        if not self._lent:
            return
        now = time.monotonic()
        for fd, _ in self._poll.poll(0):
            segment = self._forget(fd)
            segment.idle_since = now
            self._idle.append(segment)
        self._trim(memory.available_nbytes() // IDLE_SHARE)

    def _trim(self, limit_nbytes: int) -> None:
        excess = self.nbytes - limit_nbytes
        while excess > 0:
            oldest = min(self._idle, key=lambda segment: segment.idle_since)
            self._idle.remove(oldest)
            oldest.discard()
            excess -= oldest.touched

    def trim(self, idle_s: float = IDLE_S) -> None:
        """Give back to the system what has been idle for so long."""
        with self._lock:
            self._collect()
            before = time.monotonic() - idle_s
            for segment in [segment for segment in self._idle if segment.idle_since <= before]:
                self._idle.remove(segment)
                segment.discard()

    # ------------------------------------------------------------ the thread that trims

    def _start_sweeper(self) -> None:
        self._sweeper = threading.Thread(target=_sweep, args=(weakref.ref(self),), name="hpc-segments", daemon=True)
        self._sweeper.start()

    def _is_over(self) -> bool:
        with self._lock:
            if self._idle or self._lent:
                return False
            self._sweeper = None
            return True

    def abandon(self) -> None:
        """Give up, in a forked child, the segments of the parent process."""
        self._reset()
        self._sweeper = None


def _sweep(pool_ref: "weakref.ref[Pool]") -> None:
    while True:
        time.sleep(SWEEP_S)
        pool = pool_ref()
        if pool is None:
            return
        with contextlib.suppress(OSError):
            pool.trim()
        if pool._is_over():
            return
        del pool


def _rounded(nbytes: int) -> int:
    """Return the size of a segment for so many bytes: one of four sizes between two powers of two."""
    nbytes = max(nbytes, SMALLEST_NBYTES)
    step = 1 << max(0, (nbytes - 1).bit_length() - 3)
    return -(-nbytes // step) * step


_pools: "weakref.WeakSet[Pool]" = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_pools):
        pool.abandon()


os.register_at_fork(after_in_child=_after_fork)
