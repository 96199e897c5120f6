"""Segments of shared memory, written warm: fresh pages cost ten times what the copy into them does.

A `Pool` lends segments. A segment comes back by itself when nobody holds the token of the loan any more
(`hpc.transport.shared`), whether it was let go of or its holder was killed. Idle segments are kept for a while, within
a bound, and then given back to the system.

Data for which no segment is warm can go through the beginning of one that is (`hpc.transport.pieces`). When as much is
asked for again, a segment is made warm in the background.
"""

import contextlib
import mmap
import os
import select
import socket
import threading
import time
import weakref
from typing import Any, Final

from hpc.dataplane import memory
from hpc.errors import HpcError
from hpc.transport.pieces import WINDOW_NBYTES, Voice
from hpc.transport.shared import LATE, PIECES, WRITABLE, Descriptor, Handle, map_file, seal, supported

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
    """Anonymous memory that may grow, mapped here for as long as this object lives.

    Attributes
    ----------
    view : memoryview
        As much of it as is mapped.
    touched : int
        How many bytes from the beginning have been written before: those are warm.
    """

    __slots__ = ("idle_since", "memory", "nbytes", "touched", "view")

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.memory = Descriptor(os.memfd_create("hpc", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        os.ftruncate(self.memory.fd, nbytes)
        seal(self.memory.fd)
        self.view = self._map()
        self.touched = 0
        self.idle_since = 0.0

    def __repr__(self) -> str:
        return f"<Segment of {self.nbytes} bytes, {self.touched} warm>"

    def grow(self, nbytes: int) -> None:
        """Make it larger, without mapping or touching more of it."""
        if nbytes > self.nbytes:
            os.ftruncate(self.memory.fd, nbytes)
            self.nbytes = nbytes

    def whole(self) -> memoryview:
        """Return all of it, mapped."""
        if self.view.nbytes < self.nbytes:
            self.view = self._map()
        return self.view

    def _map(self) -> memoryview:
        mapping = map_file(mmap.mmap, self.memory.fd, self.nbytes, shared=True)
        if hasattr(mmap, "MADV_HUGEPAGE"):  # without effect unless the system permits it for shared memory
            with contextlib.suppress(OSError):
                mapping.madvise(mmap.MADV_HUGEPAGE)
        return memoryview(mapping)

    def discard(self) -> None:
        """Give the memory back; nobody holds the token, but engines may have it mapped to write to it again."""
        memory.discard(self.memory.fd, self.nbytes)


class Loan:
    """A segment on loan; it is over when this, its handle and everything made from that are gone.

    Attributes
    ----------
    nbytes : int
        As many as were asked for.
    warm : bool
        Whether they have been written before.
    in_pieces : bool
        Whether the bytes are to go through the window.
    late : bool
        Whether its receiver hears of it when they have been written.
    """

    __slots__ = ("_end", "_segment", "_token", "in_pieces", "late", "nbytes", "warm")

    def __init__(
        self, segment: Segment, ends: tuple[Descriptor, Descriptor], nbytes: int, *, in_pieces: bool, late: bool
    ) -> None:
        self._segment, self.nbytes, self.in_pieces, self.late = segment, nbytes, in_pieces, late
        self._end: Descriptor = ends[0]
        self._token: Descriptor | None = ends[1]
        self.warm = segment.touched >= nbytes
        if not in_pieces:
            segment.touched = max(segment.touched, nbytes)

    def __repr__(self) -> str:
        return f"<Loan of {self.nbytes} bytes of {self._segment!r}>"

    @property
    def view(self) -> memoryview:
        """As many bytes as were asked for, to be written."""
        self._segment.touched = max(self._segment.touched, self.nbytes)
        return self._segment.whole()[: self.nbytes]

    @property
    def window(self) -> memoryview:
        """The beginning, that pieces go through."""
        return self._segment.view[:WINDOW_NBYTES]

    def handle(self, writable: bool = False) -> Handle:
        """Return what to make shared frames of."""
        if self._token is None:
            raise ValueError("the loan is its receiver's alone by now")
        flags = (WRITABLE if writable else 0) | (PIECES if self.in_pieces else 0) | (LATE if self.late else 0)
        return Handle(self._segment.memory, self._token, self.nbytes, flags)

    def voice(self) -> Voice:
        """Return what speaks to the one receiver of pieces. From now on, only existing handles keep the loan."""
        self._token = None
        return Voice(self._end.fd)


class Pool:
    """Lends segments; may be used by several threads.

    Attributes
    ----------
    wanted : list of int
        Sizes that are to be made warm in the background.
    """

    def __init__(self) -> None:
        self._reset()
        self._sweeper: threading.Thread | None = None
        _pools.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Segment] = []
        self._lent: dict[int, tuple[Descriptor, Segment]] = {}
        self._poll = select.poll()
        # Sizes for which there was no warm segment lately, and when.
        self._cold: dict[int, float] = {}
        self.wanted: list[int] = []
        self._work = threading.Event()

    def __repr__(self) -> str:
        return f"<Pool of {len(self._lent)} segments on loan, {len(self._idle)} idle>"

    @property
    def nbytes(self) -> int:
        """How much memory the idle segments take."""
        return sum(segment.touched for segment in self._idle)

    def lend(self, nbytes: int, *, in_pieces: bool = False, late: bool = False) -> Loan:
        """Return a loan of at least so many bytes, warm ones if there are any.

        Parameters
        ----------
        in_pieces
            If there are none, the bytes can go to their one receiver in pieces: the loan then is `Loan.in_pieces`.
        late
            Otherwise the bytes may be written later: the loan then is `Loan.late`.

        Raises
        ------
        NoSegmentError
            The system has no shared memory, not enough memory, or no more file descriptors.
        """
        if not supported():
            raise NoSegmentError("this system has no sealed anonymous memory (memfd)")
        try:
            with self._lock:
                self._collect()
                segment = self._take(nbytes)
                if in_pieces and (segment is None or segment.touched < nbytes):
                    segment = self._take_window(nbytes, segment)
                else:
                    in_pieces = False
            if segment is None:
                segment = self._new(nbytes)
            late = late and not in_pieces
            here, there = socket.socketpair() if in_pieces or late else os.pipe()
            end, token = Descriptor(_fd(here)), Descriptor(_fd(there))
        except OSError as error:
            raise NoSegmentError(f"no shared memory for {nbytes} bytes: {error.strerror}") from None
        with self._lock:
            self._lent[end.fd] = end, segment
            self._poll.register(end.fd, 0)
            while len(self._lent) > MAX_LENT:
                self._forget(next(iter(self._lent)))
        if self._sweeper is None:
            self._start_sweeper()
        return Loan(segment, (end, token), nbytes, in_pieces=in_pieces, late=late)

    def _take(self, nbytes: int) -> Segment | None:
        """Take a segment that is large enough, but not much too large."""
        fitting = [s for s in self._idle if nbytes <= s.nbytes <= max(WASTE * nbytes, SMALLEST_NBYTES)]
        # The smallest that fits; of equal ones the youngest, which the caches may still know.
        segment = min(fitting, key=lambda s: (s.touched < nbytes, s.nbytes, -s.idle_since), default=None)
        if segment is not None:
            self._idle.remove(segment)
        return segment

    def _take_window(self, nbytes: int, cold: Segment | None) -> Segment:
        """Take a segment of which the beginning is warm, and remember that none was that is large enough."""
        now, size = time.monotonic(), _rounded(nbytes)
        if now - self._cold.get(size, -IDLE_S) < IDLE_S and size not in self.wanted:
            self.wanted.append(size)
            self._work.set()
        self._cold[size] = now
        if cold is not None:
            self._idle.append(cold)
        segment = min((s for s in self._idle if s.touched >= WINDOW_NBYTES), key=lambda s: s.touched, default=None)
        if segment is None:
            segment = self._new(WINDOW_NBYTES)
            segment.touched = WINDOW_NBYTES
        else:
            self._idle.remove(segment)
        segment.grow(size)
        return segment

    def retract(self, loan: Loan) -> None:
        """End a loan whose bytes will not come: its receivers hear of it."""
        with self._lock:
            if loan._end.fd in self._lent:
                self._forget(loan._end.fd)
            loan._end.close()

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
        self._trim(memory.available_nbytes(2 * SWEEP_S) // IDLE_SHARE)

    def _trim(self, limit_nbytes: int) -> None:
        excess = self.nbytes - limit_nbytes
        while excess > 0:
            oldest = min(self._idle, key=lambda segment: segment.idle_since)
            self._idle.remove(oldest)
            oldest.discard()
            excess -= oldest.touched

    def trim(self, idle_s: float = IDLE_S) -> None:
        """Give back to the system what has been idle for so long, or is too much by now."""
        memory.available_nbytes()  # looked at here, so that whoever sends need not wait for it
        with self._lock:
            self._collect()
            before = time.monotonic() - idle_s
            for segment in [segment for segment in self._idle if segment.idle_since <= before]:
                self._idle.remove(segment)
                segment.discard()

    # ------------------------------------------------------------ the thread that trims

    def want(self, nbytes: int) -> None:
        """Have a segment made warm in the background."""
        with self._lock:
            self.wanted.append(_rounded(nbytes))
            self._work.set()
        if self._sweeper is None:
            self._start_sweeper()

    def warm_up(self) -> None:
        """Make warm what is wanted."""
        while self.wanted:
            with self._lock:
                nbytes = self.wanted[0]
                segment = self._take(nbytes)
            try:
                segment = segment or self._new(nbytes)
                memory.touch(segment.whole())
                segment.touched, segment.idle_since = nbytes, time.monotonic()
            except (OSError, NoSegmentError):
                segment = None  # then it goes in pieces again
            with self._lock:
                self.wanted.pop(0)
                if segment is not None:
                    self._idle.append(segment)

    def _start_sweeper(self) -> None:
        arguments = weakref.ref(self), self._work
        self._sweeper = threading.Thread(target=_sweep, args=arguments, name="hpc-segments", daemon=True)
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


def _sweep(pool_ref: "weakref.ref[Pool]", work: threading.Event) -> None:
    while True:
        work.wait(SWEEP_S)
        work.clear()
        pool = pool_ref()
        if pool is None:
            return
        pool.warm_up()
        with contextlib.suppress(OSError):
            pool.trim()
        if pool._is_over():
            return
        del pool


def _fd(end: Any) -> int:
    return end if isinstance(end, int) else int(end.detach())


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
