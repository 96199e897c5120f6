"""A supervisor's children: forked Python that goes on as something else, or another program.

A forked child leaves the supervisor's code by raising `Become`, so that it runs on a clean stack, without a trace of
the supervisor's state, and ends as any Python process does (atexit and all).
"""

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpc.cluster import processes
from hpc.security.oom import OomWatch

_RESET: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ)


class Become(BaseException):
    """Raised in a forked child: unwind to `main`, then run this."""

    def __init__(self, run: Callable[[], int]) -> None:
        super().__init__()
        self.run = run


@dataclass
class Child:
    """A process that the supervisor started. ``kind`` is ``controller``, ``engine`` or ``mpirun``."""

    kind: str
    pid: int
    started: int
    label: str
    log: Path
    group: str = ""
    n: int = 1
    log_start: int = 0  # where in the log its own lines begin

    def __repr__(self) -> str:
        return f"<Child {self.label}, pid {self.pid}>"


def fork(name: str, run: Callable[[], int], log: Path, on_death: int, close: Callable[[], None]) -> int:
    """Fork a child that goes on with ``run`` (through `Become`) and return its pid.

    It leads a session of its own: Ctrl-C in a terminal is for the supervisor to handle, once, for all. ``on_death`` is
    the signal that it gets when the supervisor ends. ``close`` closes what only the supervisor may hold.
    """
    # All that exists now is here for good: a child that collects garbage shall not write to the pages that it shares.
    gc.freeze()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    _settle(parent, log, on_death)
    close()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as in any Python process
    processes.name_process(name)
    raise Become(run)


def execute(argv: Sequence[str], environment: Mapping[str, str], log: Path, on_death: int) -> int:
    """Start another program, in a session of its own, and return its pid."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        _settle(parent, log, on_death)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.execve(argv[0], list(argv), dict(environment))  # noqa: S606 - no shell is what we want
    except OSError as error:
        os.write(2, f"cannot start {argv[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)  # whatever happened, this copy of the supervisor ends here


def reap(oom: OomWatch) -> Iterator[tuple[int, int, int, bool]]:
    """Yield pid, exit code, signal, and whether memory had run out, of each child that has ended."""
    while True:
        which, killed_so = -1, False
        try:
            if hasattr(os, "waitid"):
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended is None:
                    return
                which = ended.si_pid
                if ended.si_code == os.CLD_KILLED and ended.si_status == signal.SIGKILL:
                    # While it is a zombie the kernel still tells where it was accounted for.
                    killed_so = oom.killed(which)
            pid, status = os.waitpid(which, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        code = os.waitstatus_to_exitcode(status)
        yield pid, max(code, 0), max(-code, 0), killed_so


def _settle(parent: int, log: Path, on_death: int) -> None:
    os.setsid()
    processes.die_with_parent(on_death, parent)
    signal.set_wakeup_fd(-1)
    for signum in _RESET:
        signal.signal(signum, signal.SIG_DFL)
    sys.stdout.flush()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(nothing)
    os.close(output)
