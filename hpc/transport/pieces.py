"""Data that goes piece by piece from the memory of its sender to memory of its one receiver's own.

To fill fresh shared memory takes ten times as long as to fill fresh memory of one's own (docs/decisions/0007). So where
no segment is warm that is large enough, the bytes go through the beginning of one, its *window*: the message is sent
ahead of them, and sender and receiver talk over the token, which is a socket here. If the receiver is busy the sender
puts everything into the segment after all. A voice that ends before everything is there belonged to a sender that was
killed or interrupted.
"""

import os
import select
import socket
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from hpc.transport.meter import meter

# The window has room for this many pieces of this size. They stay in the processor's caches.
PIECE_NBYTES: Final = 256 * 1024
N_PIECES: Final = 4
WINDOW_NBYTES: Final = N_PIECES * PIECE_NBYTES

# What sender and receiver say.
PRESENT, TAKEN = b"p", b"t"
PIECE, WHOLE = b"s", b"w"

# How long to look again and again before sleeping: being woken takes longer than the copy of a piece.
SPIN_S: Final = 0.0003
_NO_SIGNAL: Final = getattr(socket, "MSG_NOSIGNAL", 0)
_DONT_WAIT: Final = getattr(socket, "MSG_DONTWAIT", 0)


class Voice:
    """One end of a token that is a socket; it does not own the descriptor."""

    def __init__(self, fd: int) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        # Whoever sleeps is woken on an idle processor: the two shall not begin as neighbours on one.
        self._spin_s = 0.0

    def __repr__(self) -> str:
        return f"<Voice on {self._sock.fileno()}>"

    def __del__(self) -> None:
        self._sock.detach()

    def say(self, word: bytes) -> None:
        """Say something; few enough words are under way that this never blocks."""
        self._sock.send(word, _NO_SIGNAL)

    def hear(self, patience_s: float | None = None) -> bytes:
        """Return what was said, word by word; nothing if the other side is gone or too slow."""
        poll = self._poll.poll
        give_up, self._spin_s = time.monotonic() + self._spin_s, SPIN_S
        while not poll(0):
            if time.monotonic() > give_up:
                if not poll(None if patience_s is None else 1000 * patience_s):
                    return b""
                break
            os.sched_yield()
        try:
            return self._sock.recv(N_PIECES + 1, _DONT_WAIT)
        except ConnectionError:
            return b""

    def is_whole(self, patience_s: float | None = None) -> bool:
        """Wait for the word that everything is there, which others may hear, too; False as `hear` returns nothing."""
        if not self._poll.poll(None if patience_s is None else 1000 * patience_s):
            return False
        try:
            return self._sock.recv(1, _DONT_WAIT | socket.MSG_PEEK) == WHOLE
        except ConnectionError:
            return False

    def end(self) -> None:
        """Say that nothing will be said any more."""
        self._sock.shutdown(socket.SHUT_WR)


class Arrival(NamedTuple):
    """Where the bytes of a segment go to.

    Attributes
    ----------
    window : memoryview
        The beginning of the segment.
    allocate : callable
        Makes the memory that pieces are copied to.
    whole : callable
        Maps the segment.
    """

    extent: int
    window: memoryview
    allocate: Callable[[int], memoryview]
    whole: Callable[[], memoryview]


def receive(voice: Voice, at: Arrival, patience_s: float | None = None) -> memoryview:
    """Return the bytes of a segment that come piece by piece, or, as the sender decides, stand in it.

    There are none if the sender has gone, or takes longer than ``patience_s`` for a piece.
    """
    memory, done = memoryview(b""), 0
    meter.expect(at.extent)
    try:
        voice.say(PRESENT)
        while done < at.extent:
            heard = voice.hear(patience_s)
            if not heard:
                voice.end()  # the sender is not to wait either
                return memoryview(b"")
            for word in heard:
                if word == WHOLE[0]:
                    return at.whole()
                memory = memory or at.allocate(at.extent)
                nbytes, start = min(PIECE_NBYTES, at.extent - done), done % WINDOW_NBYTES
                memory[done : done + nbytes] = at.window[start : start + nbytes]
                done += nbytes
                meter.count(nbytes)
                voice.say(TAKEN)
    except ConnectionError:
        return memoryview(b"")
    return memory
