"""The stack of a process whose interpreter does not answer, for other processes of the same user on its host.

The process has prepared for it: on a signal a handler in C, which needs no interpreter, writes the stack of the main
thread to anonymous memory, and others read that through /proc (docs/decisions/0017-stacks.md).
"""

import contextlib
import faulthandler
import fcntl
import linecache
import os
import re
import signal
import sys
import time
from typing import Final

# No library and hardly any program uses the real-time signals at the end of the range.
_BEHIND: Final = 3
_NAME: Final = "stack"
_LINE: Final = re.compile(r'  File "(.*)", line (\d+) in (.*)')
# The handler writes within a millisecond, unless the process is stopped or waits in the kernel for a disk.
WAIT_S: Final = 0.5
_NAP_S: Final = 0.005

RawFrame = tuple[str, int, str, str]


def _signal() -> int:
    return int(signal.SIGRTMAX) - _BEHIND


def prepare() -> None:
    """Make this process one that `peek` can look into; nothing happens where the system lacks what it takes."""
    if sys.platform != "linux":
        return
    fd = os.memfd_create(_NAME)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)  # who reads empties it first
    faulthandler.register(_signal(), file=fd, all_threads=False)


def peek(pid: int) -> tuple[str, list[RawFrame]] | None:
    """Return the state (``held`` or ``stopped``) and the frames, the outermost first, of a process that was prepared.

    None if there is no such process, if it belongs to somebody else, or if the kernel keeps it.
    """
    if sys.platform != "linux":
        return None
    with contextlib.suppress(OSError):
        path = _find(pid)
        if path is not None:
            if _state(pid) in "Tt":
                return "stopped", []
            text = _dump(pid, path)
            if text:
                return "held", _frames(text)
    return None


def _find(pid: int) -> str | None:
    """Return the path to the memory of a prepared process; that it has such memory proves that it takes the signal."""
    for entry in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{entry}"
        with contextlib.suppress(FileNotFoundError):  # closed while we looked
            if os.readlink(path).startswith(f"/memfd:{_NAME}"):
                return path
    return None


def _state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def _dump(pid: int, path: str) -> str:
    deadline = time.monotonic() + WAIT_S
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.ftruncate(fd, 0)
        os.kill(pid, _signal())
        before = -1
        while time.monotonic() < deadline:
            time.sleep(_NAP_S)
            size = os.fstat(fd).st_size
            if size and size == before:
                break
            before = size
        return os.pread(fd, 1 << 20, 0).decode(errors="replace")
    finally:
        os.close(fd)


def _frames(text: str) -> list[RawFrame]:
    found = []
    for line in text.splitlines():
        match = _LINE.match(line)
        if match:
            name, number, function = match[1], int(match[2]), match[3]
            found.append((name, number, function, linecache.getline(name, number).strip()))
    return found[::-1]
