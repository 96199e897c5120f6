"""Whether the kernel has killed a process because memory ran out: its own log says so, or the counters of the cgroup.

A process that is killed so gets SIGKILL, as from anybody else, and can say nothing of it.
"""

import contextlib
import errno
import os
import re
import sys
from pathlib import Path
from typing import Final

_CGROUPS: Final = Path("/sys/fs/cgroup")
# Linux writes "Out of memory: Killed process 123 (name)", and "Memory cgroup out of memory: Killed process ...".
_KILLED: Final = re.compile(rb"out of memory: Killed process (\d+) ", re.IGNORECASE)
_COUNT: Final = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


class OomWatch:
    """What is known of processes, and of how often their cgroups ran out of memory."""

    def __init__(self) -> None:
        self._files: dict[int, Path] = {}
        self._counts: dict[Path, int] = {}
        self._log = _open_log()

    def __repr__(self) -> str:
        return f"<OomWatch of {len(self._files)} processes{', with the log of the kernel' if self._log >= 0 else ''}>"

    def watch(self, pid: int) -> None:
        """Take note of where a process is accounted for now."""
        file = _counter(pid)
        if file is not None:
            self._files[pid] = file
            self._counts.setdefault(file, _count(file))

    def forget(self, pid: int) -> None:
        """Watch a process no more."""
        self._files.pop(pid, None)

    def killed(self, pid: int) -> bool:
        """Say whether a process, which has ended by SIGKILL, was killed for want of memory."""
        if pid in self._read_log():
            return True
        # Whoever it was that moved it into another cgroup did so after `watch`; until it is reaped it is still there.
        file = _counter(pid) or self._files.get(pid)
        if file is None:
            return False
        before, now = self._counts.get(file, 0), _count(file)
        self._counts[file] = max(before, now)
        return now > before

    def close(self) -> None:
        """Close the log of the kernel."""
        if self._log >= 0:
            os.close(self._log)
            self._log = -1

    def _read_log(self) -> set[int]:
        found: set[int] = set()
        while self._log >= 0:
            try:
                found.update(int(pid) for pid in _KILLED.findall(os.read(self._log, 8192)))
            except OSError as error:
                if error.errno != errno.EPIPE:  # that one says that some lines were overwritten
                    break
        return found


def _open_log() -> int:
    """Return a descriptor at the end of the kernel's log, -1 where it cannot be read: mostly only root can."""
    log = -1
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(log, 0, os.SEEK_END)
    return log


def _counter(pid: int) -> Path | None:
    """Return the file that counts the kills in the cgroup of a process, of either version of cgroups."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            number, controllers, name = line.split(":", 2)
            if number == "0":
                file = _CGROUPS / name.lstrip("/") / "memory.events"
            elif "memory" in controllers.split(","):
                file = _CGROUPS / "memory" / name.lstrip("/") / "memory.oom_control"
            else:
                continue
            if file.exists():
                return file
    return None


def _count(file: Path) -> int:
    with contextlib.suppress(OSError):
        match = _COUNT.search(file.read_text())
        if match:
            return int(match[1])
    return 0
