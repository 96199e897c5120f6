"""Waiting for many file descriptors: epoll where there is one, otherwise what `selectors` finds."""

import select
import sys
from typing import Protocol

READ, WRITE, ERROR, HANGUP = 0x1, 0x4, 0x8, 0x10


class Poller(Protocol):
    """The part of `select.epoll` that is used here, level-triggered."""

    def register(self, fd: int, eventmask: int = ..., /) -> None:
        """Begin to wait for events of a descriptor."""

    def modify(self, fd: int, eventmask: int, /) -> None:
        """Wait for other events of it."""

    def unregister(self, fd: int, /) -> None:
        """Wait for it no more."""

    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        """Return ``(fd, events)`` of those that are ready; ``timeout`` in seconds, None for ever."""

    def close(self) -> None:
        """Release it."""


if sys.platform == "linux":

    def new_poller() -> Poller:
        """Return a poller for this platform."""
        return select.epoll()

else:
    import selectors

    class _Selector:
        def __init__(self) -> None:
            self._selector = selectors.DefaultSelector()

        @staticmethod
        def _mask(events: int) -> int:
            return (selectors.EVENT_READ if events & READ else 0) | (selectors.EVENT_WRITE if events & WRITE else 0)

        def register(self, fd: int, eventmask: int = READ, /) -> None:
            self._selector.register(fd, self._mask(eventmask))

        def modify(self, fd: int, eventmask: int, /) -> None:
            self._selector.modify(fd, self._mask(eventmask))

        def unregister(self, fd: int, /) -> None:
            self._selector.unregister(fd)

        def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
            return [
                (
                    key.fd,
                    (READ if events & selectors.EVENT_READ else 0) | (WRITE if events & selectors.EVENT_WRITE else 0),
                )
                for key, events in self._selector.select(timeout)
            ]

        def close(self) -> None:
            self._selector.close()

    def new_poller() -> Poller:
        """Return a poller for this platform."""
        return _Selector()
