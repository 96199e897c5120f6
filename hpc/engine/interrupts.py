"""Signals in an engine: end the user's task, end the engine, announce its end, but never break the loop."""

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

# How long to wait for a handler before the signal is sent again.
REPEAT_S: Final = 0.05

_OURS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Leave(BaseException):
    """The engine is to end; raised only where the main thread waits for messages."""


class Interrupts:
    """What a signal means at this moment.

    The runner sets ``in_task`` around user code, inside a ``try`` that turns every exception into the task's failure;
    the loop sets ``waiting`` around its blocking receive. Signal handlers run in the main thread, between bytecodes, so
    that at most one of the two is set when a handler looks. Everywhere else a handler only leaves a note.
    """

    __slots__ = (
        "_main",
        "_overdue",
        "_say",
        "_sent_at",
        "expired",
        "in_task",
        "interrupted",
        "leaving",
        "notices",
        "on_leave",
        "pending",
        "since",
        "waiting",
    )

    def __init__(self, say: Callable[[str], None]) -> None:
        self.in_task = False
        self.waiting = False
        self.interrupted = False  # the task's KeyboardInterrupt was asked for by a client
        self.expired = False  # ... because it took longer than it may
        self.since: Callable[[], float] = lambda: 0.0  # when the running task began
        self._overdue = 0.0  # when the task began that is to be ended for that
        self.leaving = ""  # the reason, once the engine is to end
        # These announce the end; the control thread hears of them through the bell, and the main thread goes on.
        self.notices: tuple[signal.Signals, ...] = (signal.SIGUSR1,)
        self.on_leave: Callable[[], None] = lambda: None
        self.pending = False  # a signal was sent whose handler has not run yet
        self._sent_at = -math.inf
        self._main = threading.main_thread().ident or 0
        self._say = say

    def __repr__(self) -> str:
        doing = "in a task" if self.in_task else "waiting" if self.waiting else "between"
        return f"<Interrupts {doing}{self.leaving and ', leaving: ' + self.leaving}>"

    def install(self, wakeup_fd: int) -> Callable[[], None]:
        """Take over our signals; ``wakeup_fd`` hears of every signal at once, even while the main thread is in C.

        Call in the main thread. Returns what puts everything back.
        """
        before: list[tuple[int, Any]] = [(signum, signal.signal(signum, self._handle)) for signum in _OURS]
        before_fd = signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)

        def restore() -> None:
            signal.set_wakeup_fd(before_fd)
            for signum, handler in before:
                signal.signal(signum, signal.SIG_DFL if handler is None else handler)

        return restore

    def before_fork(self) -> None:
        """Hold signals back: a child that got one at once would write it to the wake-up pipe of its parent."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _OURS)

    def after_fork(self) -> None:
        """Let signals through again, in the parent."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _OURS)

    def forked(self) -> None:
        """Give the signals of a forked child back to the system."""
        signal.set_wakeup_fd(-1)
        for signum in _OURS:
            if signal.getsignal(signum) == self._handle:
                signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _OURS)

    def interrupt_task(self) -> None:
        """Raise KeyboardInterrupt in the user code that runs, if any does. For the control thread."""
        if self.in_task:
            self.pending, self._overdue = True, 0.0
            self._send()

    def expire(self, since: float) -> None:
        """Do the same to the task that began then, and to no other: its time is up. Once is enough."""
        if self.in_task and self._overdue != since:
            self.pending, self._overdue = True, since
            self._send()

    def leave(self, reason: str) -> None:
        """Ask the main thread to end, which unwinds user code once. From any thread; call it again until it works."""
        if not self.leaving:
            self.leaving = reason
            self.pending = True
        if self.pending or self.waiting:
            self._send()

    def repeat(self) -> None:
        """Signal again if the last one came just before a system call and did not end it. For the control thread."""
        if not self.in_task and not self.leaving:
            self.pending = False
        elif self.pending and time.monotonic() > self._sent_at + REPEAT_S / 2:
            self._send()

    def _send(self) -> None:
        self._sent_at = time.monotonic()
        signal.pthread_kill(self._main, signal.SIGINT)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if signum in self.notices or signum == signal.SIGUSR1:
            return
        asked, self.pending = self.pending, False
        if self.leaving:
            pass
        elif asked:
            if self.in_task and not (self._overdue and self._overdue != self.since()):
                self.interrupted, self.expired = not self._overdue, bool(self._overdue)
                raise KeyboardInterrupt
            return  # the task ended just before
        elif signum == signal.SIGINT and time.monotonic() < self._sent_at + 10 * REPEAT_S:
            return  # a repetition that turned out to be one too many
        elif signum == signal.SIGINT and self.in_task:
            self._say("the running task gets a KeyboardInterrupt; Ctrl-C while the engine is idle ends the engine")
            raise KeyboardInterrupt
        else:
            self.leaving = signal.Signals(signum).name
            self.on_leave()
            asked = True
        if self.in_task and asked:  # user code that cleans up is not interrupted again
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
