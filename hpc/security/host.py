"""The host and its processes: what tells a boot from the next, and a process from a later one with the same pid."""

import os
import socket
import sys
from functools import cache
from pathlib import Path


@cache
def boot_id() -> str:
    """Return what identifies this host since it was started."""
    if sys.platform == "linux":
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    else:  # noqa: RET505 - the type checker knows platforms by if and else
        import psutil

        return f"{socket.gethostname()}-{psutil.boot_time():.0f}"


@cache
def hostname() -> str:
    """Return the name of this host as it stands in connection files."""
    return socket.gethostname()


@cache
def pid_space() -> str:
    """Return what tells the pids that this process sees from those of containers with others; '' if it is not known."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux, or no /proc
        return ""


def start_ticks(pid: int) -> int:
    """Return when a process of this host began, in clock ticks since boot; 0 if there is none (or only its zombie)."""
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return 0
        # The name of the program, in parentheses, may contain anything; the fields after it count from the third.
        fields = stat[stat.rindex(b")") + 2 :].split()
        return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
    else:  # noqa: RET505
        import psutil

        try:
            return int(psutil.Process(pid).create_time() * 100)
        except psutil.NoSuchProcess:
            return 0


def own_start_ticks() -> int:
    """Return `start_ticks` of this process."""
    return start_ticks(os.getpid())
