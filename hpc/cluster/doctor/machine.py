"""What this machine has: open files, shared memory, the directory of clusters, the clock."""

import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hpc.cluster.doctor.finding import Finding, failed, ok, warning
from hpc.errors import SecurityError
from hpc.security.folders import base_dir

# A controller holds up to four descriptors for an engine on its host (two connections, a pidfd, a log).
PER_ENGINE: Final = 4
FEW_DESCRIPTORS: Final = 4096
# Two ranks of any MPI are content with this; 64 MiB, what containers get, is not enough for eight.
LITTLE_NBYTES: Final = 256 * 1024**2
CLOCK_S: Final = 2.0


def descriptors(limits: tuple[int, int] | None = None) -> Finding:
    """Look at how many files may be open: the controller raises its soft limit, but the hard one binds it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE) if limits is None else limits
    if hard == resource.RLIM_INFINITY:
        return ok("open files", "no limit")
    text = f"limit {soft}, at most {hard}: enough for about {hard // PER_ENGINE} engines of one controller"
    if hard >= FEW_DESCRIPTORS:
        return ok("open files", text)
    return warning(
        "open files",
        text,
        "have the hard limit raised: `* hard nofile 65536` in /etc/security/limits.conf, LimitNOFILE= of a service,"
        " --ulimit nofile=65536 of a container",
    )


def shared_memory(path: str = "/dev/shm") -> Finding:  # noqa: S108 - looked at, not written to
    """Look at the place where MPI libraries keep the queues between the ranks of a host."""
    check = path
    try:
        found = os.statvfs(path)
    except OSError as error:
        return failed(check, f"{error.strerror}", f"mount it: mount -t tmpfs tmpfs {path}")
    if not os.access(path, os.W_OK):
        return failed(check, "you may not write there", f"as root: chmod 1777 {path}")
    total, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    text = f"{free // 1024**2} MiB free of {total // 1024**2}"
    if free >= LITTLE_NBYTES:
        return ok(check, text)
    if total >= LITTLE_NBYTES:
        remedy = f"remove what killed MPI programs left there: ls -l {path} (mpich_shm_*, vader_segment*)"
    else:
        remedy = f"--shm-size=1g of a container; mount -o remount,size=1g {path} as root"
    return warning(check, f"{text}: ranks on one host talk through it", remedy)


def directory(find: Callable[[], Path] = base_dir) -> Finding:
    """Look at the directory in which clusters leave their connection files."""
    check = "directory"
    try:
        place = find()
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"a")
            file.flush()
    except SecurityError as error:
        return failed(check, "it is not safe", str(error))
    except OSError as error:
        return failed(
            check,
            f"{error.filename or 'the directory of clusters'}: {error.strerror}",
            "set HPC_DIR to a directory that you may write to and that the nodes see",
        )
    return ok(check, str(place))


def clock(find: Callable[[], Path] = base_dir, now: Callable[[], float] = time.time) -> Finding:
    """Compare this machine's clock with that of its file server."""
    check = "clock"
    try:
        before = now()
        with tempfile.NamedTemporaryFile(dir=find()) as file:
            there, after = os.stat(file.name).st_mtime, now()
    except (OSError, SecurityError):
        return warning(check, "not known: no file could be written", "see the line on the directory")
    ahead_s = there - after if there > after else min(0.0, there - before)
    if abs(ahead_s) <= CLOCK_S:
        return ok(check, "agrees with that of the file system")
    return warning(
        check,
        f"the file system's is {abs(ahead_s):.0f} s {'ahead' if ahead_s > 0 else 'behind'}:"
        " ages of files and ends of walltimes are off by as much",
        "have the time synchronised on both: chronyc tracking, timedatectl",
    )
