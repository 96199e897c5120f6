"""Processes as the kernel sees them: signals as readable events, dying with one's parent, who is alive and whose child.

Linux gives all of it. On macOS nothing dies with its parent by itself and orphans cannot be adopted: there the
supervisor ends process groups, and whatever loses its controller ends by its own lease.
"""

import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from hpc.security.host import start_ticks

LINUX: Final = sys.platform == "linux"

# linux/prctl.h
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_PR_SET_CHILD_SUBREAPER: Final = 36

_libc = ctypes.CDLL(None, use_errno=True) if LINUX else None


def _prctl(option: int, value: "int | bytes") -> None:
    if _libc is not None:
        argument = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
        _libc.prctl(option, argument, 0, 0, 0)


def die_with_parent(signum: int, parent: int) -> None:
    """Have the kernel send this process a signal (0: none) when its parent, which must be single-threaded, ends.

    The setting outlives exec. Ends this process at once if the parent has ended already.
    """
    _prctl(_PR_SET_PDEATHSIG, int(signum))
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parents end, so that none can slip away."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def name_process(name: str) -> None:
    """Set the name that ``top`` and ``ps -o comm`` show (15 bytes at most)."""
    _prctl(_PR_SET_NAME, name.encode()[:15])


def is_alive(pid: int, started: int) -> bool:
    """Say whether this very process, not a later one with the same pid, is running."""
    return pid > 0 and start_ticks(pid) == started != 0


def children() -> list[int]:
    """Return the pids of this process's children, adopted ones included; on macOS nothing is known: []."""
    if not LINUX:
        return []
    me = b"%d" % os.getpid()
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue  # it ended while we looked
            if fields[1] == me:
                found.append(int(entry))
    return found


def wait_gone(pid: int, started: int, timeout_s: float) -> bool:
    """Wait until this very process has ended; False if it has not after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    if LINUX:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            pidfd = -1  # it is gone, or this kernel has no pidfds
        try:
            if pidfd >= 0 and is_alive(pid, started):
                select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))
        finally:
            if pidfd >= 0:
                os.close(pidfd)
    # A process that is gone for its pidfd may still await its parent: `is_alive` takes zombies for gone.
    while is_alive(pid, started):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)
    return True


def send_signal(pid: int, signum: int, *, group: bool = False) -> None:
    """Send a signal to a process, or to its whole process group; nothing happens if it is gone."""
    try:
        if group:
            os.killpg(pid, signum)
        else:
            os.kill(pid, signum)
    except (ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
        return


def describe_exit(exit_code: int, signum: int) -> str:
    """Say in words how a process ended."""
    if not signum:
        return f"exit code {exit_code}"
    try:
        return f"signal {signum} ({signal.Signals(signum).name})"
    except ValueError:
        return f"signal {signum}"


def tail(path: str | Path, n_lines: int = 20, start: int = 0) -> tuple[str, ...]:
    """Return the last lines of a log, of what was written after byte ``start``; () if that is nothing, or gone."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - 400 * n_lines))
            text = file.read().decode(errors="replace")
    except OSError:
        return ()
    return tuple(line.rstrip() for line in text.splitlines() if line.strip())[-n_lines:]


def size_of(path: str | Path) -> int:
    """Return how large a log is; 0 if it is not there."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def what_it_said(lines: Sequence[str]) -> list[str]:
    """Return the lines of a log without what engines and launchers log when all is well."""
    return [line for line in lines if " INFO: " not in line and " DEBUG: " not in line]


def take_over_output(log: Path) -> None:
    """Have whatever this process prints from now on written to its log."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.close(output)


class Signals:
    """Signals as events of a readable file descriptor, for a select loop; `close` gives them back to Python.

    A SIGHUP that is ignored stays so: that is what ``nohup`` asks for.
    """

    def __init__(self, signums: Iterable[int]) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        nohup = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
        self._before = {signum: signal.signal(signum, _noted) for signum in signums if signum not in nohup}
        self._fd_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def __repr__(self) -> str:
        return f"<Signals {', '.join(signal.Signals(s).name for s in self._before)}>"

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when a signal has come."""
        return self._read

    def take(self) -> list[int]:
        """Return the signals that have come since, without blocking."""
        try:
            return list(os.read(self._read, 4096))
        except BlockingIOError:
            return []

    def close(self) -> None:
        """Restore what each signal did before."""
        signal.set_wakeup_fd(self._fd_before)
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        os.close(self._read)
        os.close(self._write)


def _noted(signum: int, frame: object) -> None:
    """Do nothing: the byte in the wake-up pipe says it all."""
