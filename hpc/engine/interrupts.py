"""SIGINT and SIGTERM in an engine: end the user's task, end the engine, or do nothing, but never break the loop."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Leave(BaseException):
    """The engine is to end; raised only where the main thread waits for messages."""


class Interrupts:
    """What a signal means at this moment.

    The runner sets ``in_task`` around user code, inside a ``try`` that turns every exception into the task's failure;
    the loop sets ``waiting`` around its blocking receive. Signal handlers run in the main thread, between bytecodes, so
    that at most one of the two is set when a handler looks. Everywhere else a handler only leaves a note.
    """

    __slots__ = ("_main", "_requested", "_say", "in_task", "interrupted", "leaving", "on_leave", "waiting")

    def __init__(self, say: Callable[[str], None]) -> None:
        self.in_task = False
        self.waiting = False
        self.interrupted = False  # the task's KeyboardInterrupt was asked for by a client
        self.leaving = ""  # the reason, once the engine is to end
        self.on_leave: Callable[[], None] = lambda: None
        self._requested = False
        self._main = threading.main_thread().ident or 0
        self._say = say

    def __repr__(self) -> str:
        doing = "in a task" if self.in_task else "waiting" if self.waiting else "between"
        return f"<Interrupts {doing}{self.leaving and ', leaving: ' + self.leaving}>"

    def install(self, wakeup_fd: int) -> Callable[[], None]:
        """Take over both signals; ``wakeup_fd`` hears of every signal at once, even while the main thread is in C.

        Call in the main thread. Returns what puts everything back.
        """
        before: list[tuple[int, Any]] = [
            (signum, signal.signal(signum, self._handle)) for signum in (signal.SIGINT, signal.SIGTERM)
        ]
        before_fd = signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)

        def restore() -> None:
            signal.set_wakeup_fd(before_fd)
            for signum, handler in before:
                signal.signal(signum, signal.SIG_DFL if handler is None else handler)

        return restore

    def interrupt_task(self) -> None:
        """Raise KeyboardInterrupt in the user code that runs, if any does. For the control thread."""
        if self.in_task:
            self._requested = True
            signal.pthread_kill(self._main, signal.SIGINT)

    def leave(self, reason: str) -> None:
        """Ask the main thread to end. From any thread, and again: a signal may hit just before a system call."""
        if not self.leaving:
            self.leaving = reason
        elif not self.waiting:
            return  # user code that cleans up is interrupted once, not again and again
        signal.pthread_kill(self._main, signal.SIGINT)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        requested, self._requested = self._requested, False
        if self.leaving:
            pass  # the nudge of `leave`
        elif requested:
            if self.in_task:
                self.interrupted = True
                raise KeyboardInterrupt
            return  # the task ended just before
        elif signum == signal.SIGINT and self.in_task:
            self._say("the running task gets a KeyboardInterrupt; Ctrl-C while the engine is idle ends the engine")
            raise KeyboardInterrupt
        else:
            self.leaving = signal.Signals(signum).name
            self.on_leave()
        if self.in_task:
            raise KeyboardInterrupt
        if self.waiting:
            raise Leave(self.leaving)


class Bell:
    """Wake a thread that waits in poll(): a pipe, which unlike an eventfd also takes signal numbers."""

    __slots__ = ("_write_fd", "fd")

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write_fd, False)

    def __repr__(self) -> str:
        return f"<Bell {self._write_fd} -> {self.fd}>"

    @property
    def write_fd(self) -> int:
        """Where to write any byte to ring."""
        return self._write_fd

    def ring(self) -> None:
        """Make `fd` readable; safe in signal handlers and from any thread."""
        try:
            os.write(self._write_fd, b"\0")
        except BlockingIOError:  # full: it rings already
            return

    def hush(self) -> bytes:
        """Make `fd` unreadable until the next `ring`; return what was written: zeros, and the numbers of signals."""
        heard = b""
        with contextlib.suppress(BlockingIOError):
            while len(heard) % 512 == 0:
                heard += os.read(self.fd, 512)
        return heard

    def close(self) -> None:
        """Close both ends."""
        os.close(self.fd)
        os.close(self._write_fd)
