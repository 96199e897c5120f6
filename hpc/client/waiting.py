"""What threads wait with: a set of descriptors, a waker, a parking place."""

import os
import select
import selectors
import threading
from typing import Any


class Waker:
    """A pipe whose reading end can stand in a set of descriptors. Writing to it never blocks."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else _pipe()
        self._rung = False

    def __repr__(self) -> str:
        return f"<Waker fd {self._reading}{', rung' if self._rung else ''}>"

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
        return self._reading

    def ring(self) -> None:
        """Wake whoever waits; free of cost if it was rung already."""
        if self._rung:
            return
        self._rung = True
        try:
            os.write(self._writing, b"\0")
        except (BlockingIOError, OSError):
            return  # full: it is readable as it is; closed: nobody waits any more

    def quiet(self) -> None:
        """Take the rings away. What they were about must be looked at afterwards."""
        try:
            os.read(self._reading, 4096)
        except (BlockingIOError, OSError):
            return
        finally:
            # Last: a ring before this line writes nothing, but who called quiet() has not looked yet. The other way
            # round a ring could be read away with its mark left standing, and no ring would be heard ever after.
            self._rung = False

    def __del__(self) -> None:
        for fd in (self._reading, self._writing):
            os.close(fd)


def _pipe() -> tuple[int, int]:
    ends = os.pipe()
    for fd in ends:
        os.set_blocking(fd, False)
    return ends


class Watch:
    """A set of readable descriptors that other threads may change while one thread waits on it (epoll, kqueue)."""

    def __init__(self) -> None:
        self._epoll: Any = select.epoll() if hasattr(select, "epoll") else None
        self._selector = None if self._epoll is not None else selectors.DefaultSelector()

    def add(self, fd: int) -> None:
        """Watch a descriptor; no error if it is watched already."""
        try:
            if self._epoll is not None:
                self._epoll.register(fd, 1)  # EPOLLIN, level-triggered: what is there when it is added counts
            elif self._selector is not None:
                self._selector.register(fd, selectors.EVENT_READ)
        except (FileExistsError, KeyError):
            return

    def remove(self, fd: int) -> None:
        """Do not watch it any more; no error if it was not watched, or is closed."""
        try:
            if self._epoll is not None:
                self._epoll.unregister(fd)
            elif self._selector is not None:
                self._selector.unregister(fd)
        except (OSError, KeyError, ValueError):
            return

    def wait(self, timeout_s: float | None) -> list[int]:
        """Return the descriptors that are readable."""
        if self._epoll is not None:
            return [fd for fd, _ in self._epoll.poll(timeout_s)]
        assert self._selector is not None  # noqa: S101 - for the type checker
        return [key.fd for key, _ in self._selector.select(timeout_s)]


class Parker:
    """Where a thread waits while another one receives; it understands what the library's futures tell a waiter."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self, timeout_s: float | None) -> bool:
        """Block until `wake`; False after the timeout. Interruptible by signals."""
        return self._lock.acquire(timeout=-1 if timeout_s is None else max(0.0, timeout_s))

    def wake(self, _future: object = None) -> None:
        """End the wait, or the next one."""
        try:
            self._lock.release()
        except RuntimeError:
            return  # awake already

    add_result = add_exception = add_cancelled = wake


def jitter() -> float:
    """Return a factor between a half and one and a half, so that many who wait do not come back all at once."""
    return 0.5 + os.urandom(1)[0] / 255
