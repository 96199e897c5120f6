"""What a cluster leaves on disk while it lives: `Record` (supervisor.json), and the truth about what is found there.

A cluster is a directory ``clusters/NAME`` of the user's private directory. It may hold a record, if a supervisor runs
the cluster, and connection files, if there is a controller (``ipcontroller`` alone makes no record). Whether the
processes named there still live is checked each time, by pid and start time.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from hpc.cluster import processes
from hpc.cluster.options import DEFAULT_NAME, ClusterOptions, GroupRow
from hpc.errors import ConnectError, SecurityError
from hpc.security.connection import ConnectionInfo
from hpc.security.folders import base_dir, check_name, cluster_dir, clusters_dir
from hpc.security.host import hostname, start_ticks

if TYPE_CHECKING:
    from hpc.cluster.submitted import Submitted

RECORD_FILE: Final = "supervisor.json"
# In a job that was submitted for a cluster: the name of the directory that says so.
JOB_VARIABLE: Final = "HPC_JOB"
_CONNECTION_FILES: Final = ("client.json", "engine.json", "monitor.json", "controller.json")
LOGS: Final = "logs"


class Record(msgspec.Struct, kw_only=True):
    """Who supervises a cluster. ``started`` is in clock ticks since boot, ``created`` in seconds since the epoch.

    ``state`` is ``starting``, ``running`` or ``failed``; a failed cluster's record stays behind to tell the ``reason``.
    """

    name: str
    pid: int
    started: int
    host: str
    argv: tuple[str, ...]
    launcher: str
    n: int
    created: float
    logs: str
    state: str = "starting"
    reason: str = ""
    controller_pid: int = 0
    controller_started: int = 0
    mpirun: str = ""
    groups: tuple[GroupRow, ...] = ()

    def save(self) -> None:
        """Write the record into the cluster's directory, atomically, readable by its owner only."""
        path = cluster_dir(self.name) / RECORD_FILE
        draft = path.with_suffix(f".{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")
        draft.replace(path)

    def is_here(self) -> bool:
        """Say whether the supervisor runs, or ran, on this host."""
        return self.host == hostname()

    def is_alive(self) -> bool:
        """Say whether the supervisor is running; on another host it is taken to be."""
        return self.state != "failed" and (not self.is_here() or processes.is_alive(self.pid, self.started))


@dataclass
class Entry:
    """A cluster as found on disk. ``gone`` says why it is no more, and is empty for one that lives.

    ``jobs`` are those that were submitted for it and that no supervisor looks after.
    """

    name: str
    directory: Path
    record: Record | None
    info: ConnectionInfo | None
    gone: str
    jobs: "tuple[Submitted, ...]" = ()

    @property
    def state(self) -> str:
        """How far it has come.

        ``submitted`` (jobs), ``starting``, ``running``, ``orphaned`` (its supervisor is gone, the controller not yet)
        or ``gone``.
        """
        if self.gone:
            return "gone"
        if self.record is None:
            return "running" if self.info is not None else "submitted"
        return self.record.state if self.record.is_alive() else "orphaned"

    @property
    def created(self) -> float:
        """When it was started, in seconds since the epoch."""
        if self.record is None and self.info is None:
            return min((entry.job.submitted_s for entry in self.jobs), default=0.0)
        return self.record.created if self.record else self.info.created if self.info else 0.0

    def clean(self) -> None:
        """Remove what a cluster that is gone left behind, logs excepted: the next one of this name replaces them."""
        if self.info is not None:
            remove_socket(self.info)
        logs = self.directory / LOGS
        with contextlib.suppress(OSError):
            for path in self.directory.iterdir():
                if path != logs:
                    path.unlink()
            if not logs.is_dir() or not any(path.stat().st_size for path in logs.iterdir()):
                shutil.rmtree(self.directory)


def entries() -> list[Entry]:
    """Return every cluster of this user that is found on disk, newest first, whether it lives or not."""
    names = {*os.listdir(clusters_dir()), *_submitted()}
    found = [entry for name in names if (entry := find_entry(name)) is not None]
    return sorted(found, key=lambda entry: entry.created, reverse=True)


def find_entry(name: str) -> Entry | None:
    """Return the cluster of that name as found on disk; None if there is none (kept logs alone are no cluster)."""
    directory = clusters_dir() / name
    record = _load_record(directory / RECORD_FILE)
    info = _load_info(directory / "client.json")
    jobs = tuple(_submitted().get(name, ()))
    if record is None and info is None and not jobs:
        return None
    gone = "" if record is None and info is None else _why_gone(record, info)
    return Entry(name, directory, record, info, gone, jobs)


def _submitted() -> "dict[str, list[Submitted]]":
    """Return the jobs that were submitted for clusters, by the names of these."""
    if not (base_dir() / "jobs").is_dir():  # most people never submit one, and need none of the code for it
        return {}
    from hpc.cluster.submitted import entries

    found: dict[str, list[Submitted]] = {}
    for entry in entries():
        found.setdefault(entry.cluster, []).append(entry)
    return found


def _load_record(path: Path) -> Record | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except (OSError, msgspec.MsgspecError):
        return None


def _load_info(path: Path) -> ConnectionInfo | None:
    try:
        return ConnectionInfo.load(path)
    except (SecurityError, ConnectError):
        return None


def _why_gone(record: Record | None, info: ConnectionInfo | None) -> str:
    """Say why a cluster is gone, or "" if its supervisor or its controller lives."""
    if record is not None and record.is_alive():
        return ""
    stale = info.is_stale() if info is not None else ""
    if info is not None and not stale:
        return ""
    if record is None:
        return stale
    if record.state == "failed":
        return record.reason
    rest = stale or ("its controller has ended it" if record.controller_pid else "it had no controller yet")
    return f"its supervisor (pid {record.pid} on {record.host}) ended without a word; {rest}"


def claim(options: ClusterOptions) -> tuple[Record, str]:
    """Take a name for this process's cluster; return the new record, and what is worth saying about the name.

    What a former cluster of that name left behind is removed, its logs too.

    Raises
    ------
    FileExistsError
        The name was asked for and that cluster lives.
    """
    with _claiming():
        name, note = free_name(options.name)
        entry = find_entry(name)
        if entry is not None:
            entry.clean()
        shutil.rmtree(clusters_dir() / name, ignore_errors=True)
        directory = cluster_dir(name)
        (directory / LOGS).mkdir(mode=0o700, exist_ok=True)
        record = Record(
            name=name,
            pid=os.getpid(),
            started=start_ticks(os.getpid()),
            host=hostname(),
            argv=options.argv,
            launcher=options.launcher,
            n=options.n,
            created=time.time(),
            logs=str(directory / LOGS),
        )
        record.save()
    return record, note


def leave(record: Record, *, keep_logs: bool, failure: str) -> None:
    """Remove what a cluster that has ended leaves; a ``failure`` stays on record so that `ipcluster list` can tell."""
    directory = cluster_dir(record.name)
    found = find_entry(record.name)
    if found is not None and found.info is not None:  # the controller was not able to do it
        remove_socket(found.info)
    if not keep_logs:
        shutil.rmtree(directory, ignore_errors=True)
        return
    for name in (*_CONNECTION_FILES, RECORD_FILE):
        (directory / name).unlink(missing_ok=True)
    if failure:
        record.state, record.reason = "failed", failure
        record.save()


def free_name(wanted: str) -> tuple[str, str]:
    """Return the name asked for, or "default" or the next free one after it, and what is worth saying about that.

    Raises
    ------
    FileExistsError
        The name was asked for and that cluster lives.
    ValueError
        It cannot be a name.
    """
    if wanted:
        check_name(wanted)
    name, note, number = wanted or DEFAULT_NAME, "", 1
    while (entry := find_entry(name)) is not None and not entry.gone and not _is_free(entry):
        if wanted:
            raise FileExistsError(
                f"a cluster named {name!r} is {entry.state} already: use it (hpc.connect({name!r})), end it"
                f" (ipcluster stop --name {name}), or choose another name"
            )
        number += 1
        name = f"{DEFAULT_NAME}-{number}"
        note = f"a cluster named {DEFAULT_NAME!r} is running already: this one is named {name!r}"
    return name, note


def _is_free(entry: Entry) -> bool:
    """Say whether a cluster that has not been found gone leaves its name to us."""
    if entry.record is not None and entry.record.is_here() and entry.record.is_alive():
        return False
    key = os.environ.get(JOB_VARIABLE)
    if any(submitted.directory.name == key for submitted in entry.jobs):
        return True  # it is the job that this process runs in, or what an earlier run of that has left elsewhere
    return entry.state == "submitted" and not any(submitted.may_bring_a_controller() for submitted in entry.jobs)


@contextlib.contextmanager
def _claiming() -> Iterator[None]:
    """Let one process at a time look at the names that are taken and take one."""
    descriptor = os.open(base_dir(), os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Some network file systems cannot lock a directory; two starts in the same millisecond are rare enough there.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def remove_socket(info: ConnectionInfo) -> None:
    """Remove the unix socket, and the private directory it stands in, of a controller on this host that is gone."""
    if info.unix and info.is_local():
        with contextlib.suppress(OSError):
            os.unlink(info.unix)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(info.unix))
