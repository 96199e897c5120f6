"""Deaths of local engines, as the kernel tells them: at once, whatever the interpreter was doing."""

import contextlib
import os
import signal
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpc.controller import events as ev
from hpc.security.host import start_ticks
from hpc.security.oom import OomWatch
from hpc.transport import Link, Server
from hpc.wire import messages as m

# linux/pidfd.h: struct pidfd_info begins with the mask (64 bits) and, in its first version, ends with the status.
_PIDFD_GET_INFO: Final = 0xC040FF0B
_PIDFD_INFO_EXIT: Final = 1 << 3
_INFO_NBYTES: Final = 64
_STATUS_AT: Final = 60
# How often to look for the status of a process that has died, and for how long: its parent is to take it first.
LOOK_AGAIN_S: Final = 0.003
LOOK_FOR_S: Final = 0.06
# What it sent before it died is read first; that its sockets are at their end says that all is read. Children of the
# engine that live on may hold them open.
DRAIN_S: Final = 0.02


@dataclass(slots=True)
class Watched:
    """The process of an engine. ``died_at`` is 0 while it lives; ``told`` says whether the brain has heard of it."""

    engine: int
    pid: int
    fd: int
    died_at: float = 0.0
    told: bool = False


class Life:
    """Watches the processes of the engines on this host."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._watched: dict[int, Watched] = {}
        self.dead: list[Watched] = []
        self._oom = OomWatch()

    def __repr__(self) -> str:
        return f"<Life of {len(self._watched)} engines, {len(self.dead)} of them just died>"

    def watch(self, engine: int, link: Link, info: m.EngineInfo) -> None:
        """Watch the process of an engine, if the kernel confirms that it is what the engine says it is."""
        if engine in self._watched or sys.platform != "linux" or not link.pid or link.pid != info.pid:
            return
        try:
            fd = os.pidfd_open(info.pid)
        except OSError:
            return
        # Asked after the descriptor was opened: the pid cannot have gone to another process in between.
        if start_ticks(info.pid) != info.started:
            os.close(fd)
            return
        watched = self._watched[engine] = Watched(engine, info.pid, fd)
        self._server.watch(fd, watched)
        self._oom.watch(info.pid)

    def died(self, watched: Watched, now: float) -> None:
        """Take note that the descriptor has become readable."""
        if not watched.died_at and self._watched.get(watched.engine) is watched:
            self._server.unwatch(watched.fd)
            watched.died_at = now
            self.dead.append(watched)

    def news(self, watched: Watched, drained: bool, now: float) -> ev.EngineDied | None:
        """Return what is new of a death: that it happened, later its status.

        ``drained`` says that all that the process sent has been read.
        """
        if not drained and now < watched.died_at + DRAIN_S:
            return None
        signum, code = exit_status(watched)
        known = signum >= 0 or code >= 0
        if known or now >= watched.died_at + LOOK_FOR_S:
            self.dead.remove(watched)
        if watched.told and not known:
            return None
        watched.told = True
        return ev.EngineDied(watched.engine, signum, code, signum == signal.SIGKILL and self._oom.killed(watched.pid))

    def forget(self, engine: int) -> None:
        """Watch an engine no more."""
        watched = self._watched.pop(engine, None)
        if watched is not None:
            self._server.unwatch(watched.fd)
            os.close(watched.fd)
            self._oom.forget(watched.pid)
            if watched in self.dead:
                self.dead.remove(watched)

    def close(self) -> None:
        """Let go of all."""
        for engine in list(self._watched):
            self.forget(engine)
        self._oom.close()


def exit_status(watched: Watched) -> tuple[int, int]:
    """Return signal and exit code of a process that has died, as far as known: -1 for what is not.

    Before its parent has taken the status it stands in /proc; afterwards the descriptor tells it, from Linux 6.15 on.
    """
    status = _of_zombie(watched.pid)
    if status is None:
        status = _of_reaped(watched.fd)
    if status is None:
        return -1, -1
    code = os.waitstatus_to_exitcode(status)
    return (-code, -1) if code < 0 else (0, code)


def _of_zombie(pid: int) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        fields = stat[stat.rindex(b")") + 2 :].split()
        # proc_pid_stat(5): state is field 3, exit_code field 52.
        if fields[0] == b"Z" and len(fields) >= 50:
            return int(fields[49])
    return None


def _of_reaped(fd: int) -> int | None:
    import fcntl

    buffer = bytearray(_INFO_NBYTES)
    struct.pack_into("<Q", buffer, 0, _PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(fd, _PIDFD_GET_INFO, buffer)
    except OSError:
        return None
    (mask,) = struct.unpack_from("<Q", buffer)
    if not mask & _PIDFD_INFO_EXIT:
        return None
    return int(struct.unpack_from("<i", buffer, _STATUS_AT)[0])
