"""The peer's end of a connection over a unix socket, for processes on the controller's host."""

import contextlib
import os
import select
import socket
import time
import weakref
from collections.abc import Sequence
from typing import Any

from hpc.transport.connection import Connection, widen
from hpc.transport.framing import Decoder, Frame, advance, pack
from hpc.transport.link import Disconnected
from hpc.transport.shared import CONTROL_NBYTES, Rights, SharedFrame, mapped

# A write to a closed socket shall be an error, not a signal, also where somebody has restored SIGPIPE.
NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)
# The kernel takes no more pieces at once (IOV_MAX).
MAX_PIECES = 1024


CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_CONTROL, _DONTWAIT = (CONTROL_NBYTES,), (CLOEXEC | socket.MSG_DONTWAIT,)


def next_vector(pieces: list[Frame]) -> tuple[list[Frame], list[tuple[int, int, Any]]]:
    """Return what to hand to ``sendmsg`` next: pieces, and the file descriptors that go with the first of them."""
    first = pieces[0]
    control = first.control() if type(first) is Rights else []
    vector = pieces[:MAX_PIECES]
    if Rights in map(type, vector[1:]):
        n = next(i for i, piece in enumerate(vector) if i and type(piece) is Rights)
        vector = vector[:n]
    return vector, control


class UnixConnection(Connection):
    """A connection over a connected stream socket, which it owns from then on.

    Calls go straight to blocking system calls: one to send, and usually one to receive. How many bytes one has moved is
    recorded by the C code of ``list.extend`` and ``map``; a signal handler that raises comes before that or after it,
    never between.
    """

    route = "unix"

    def __init__(self, sock: socket.socket, address: str = "") -> None:
        sock.setblocking(True)
        widen(sock)
        self.address = address
        self._sock = sock
        self._up = True
        self._decoder = Decoder()
        self._ready: list[list[Frame] | None] = []
        self._next = 0
        self._outgoing: tuple[list[Frame], list[int]] | None = None
        self._recvmsg_into, self._send, self._sendmsg = sock.recvmsg_into, sock.send, sock.sendmsg
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN)
        _open.add(self)

    @property
    def connected(self) -> bool:  # noqa: D102
        return self._up

    def send(self, frames: Sequence[Frame]) -> None:  # noqa: D102
        pieces = pack(frames)
        sent: list[int] = []
        if self._outgoing is not None:  # left by a call that was interrupted
            begun, already = self._outgoing
            rest = advance(begun, sum(already))
            self._outgoing = ([*rest, pieces] if isinstance(pieces, bytes) else [*rest, *pieces], sent)
        elif isinstance(pieces, bytes):
            self._outgoing = ([pieces], sent)
            try:
                sent.extend(map(self._send, (pieces,), (NO_SIGNAL,)))
            except OSError as error:
                raise self._lost(error) from None
            if sent[0] == len(pieces):
                self._outgoing = None
                return
        else:
            self._outgoing = (pieces, sent)
        self._drain()

    def _drain(self) -> None:
        """Send the rest of what was begun."""
        while self._outgoing is not None:
            pieces, sent = self._outgoing
            rest = advance(pieces, sum(sent))
            if not rest:
                self._outgoing = None
                return
            sent = []
            self._outgoing = (rest, sent)
            try:
                vector, control = next_vector(rest)
                sent.extend(map(self._sendmsg, (vector,), (control,), (NO_SIGNAL,)))
            except OSError as error:
                raise self._lost(error) from None

    def recv(self, timeout_s: float | None = None) -> list[Frame] | None:  # noqa: D102
        decoder = self._decoder
        deadline = None if timeout_s is None else time.monotonic() + timeout_s if timeout_s else 0.0
        while True:
            ready, at = self._ready, self._next
            if at < len(ready):
                frames = ready[at]
                if frames is not None and SharedFrame in map(type, frames):
                    ready[at] = mapped(frames)
                # No call from here to the return: a signal handler runs before it or after.
                frames, ready[at], self._next = ready[at], None, at + 1
                return frames
            if decoder.state.got:  # from the last turn, or from a call that was interrupted
                frames = decoder.single()
                if frames is not None:
                    return frames
                self._ready = []
                self._next = 0
                self._ready = decoder.take()  # type: ignore[assignment]
                if self._ready:
                    continue
            # Not waiting in recv(): there, Linux wakes us each time that the other side has read what we sent.
            if deadline is None:
                self._poll.poll()
            elif timeout_s and not self._wait(deadline):
                return None
            got = decoder.state.got
            try:
                got.extend(map(self._recvmsg_into, ((decoder.target(),),), _CONTROL, _DONTWAIT))
            except BlockingIOError:
                if deadline is not None and time.monotonic() >= deadline:
                    return None
                continue
            except OSError as error:
                raise self._lost(error) from None
            if not got[-1][0]:
                raise self._lost(None)

    def _wait(self, deadline: float) -> bool:
        left_s = deadline - time.monotonic()
        return bool(self._poll.poll(max(0.0, left_s) * 1000))

    def fileno(self) -> int:  # noqa: D102
        return self._sock.fileno()

    def pending(self) -> bool:  # noqa: D102
        return self._next < len(self._ready) or self._decoder.pending()

    def close(self) -> None:  # noqa: D102
        self._up = False
        # Wakes a thread that waits in recv().
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def _lost(self, error: OSError | None) -> Disconnected:
        self._up = False
        why = f": {error.strerror}" if error else ""
        return Disconnected(f"the connection to {self.address or 'the controller'} is gone{why}")


_open: "weakref.WeakSet[UnixConnection]" = weakref.WeakSet()


def _after_fork() -> None:
    # A copy in a child that user code forked would keep the connection of a dead parent open.
    for connection in _open:
        connection._sock.close()


os.register_at_fork(after_in_child=_after_fork)
