"""End a cluster that some other process started, and leave nothing of it behind."""

import contextlib
import shutil
import signal

from hpc.cluster import processes
from hpc.cluster.options import DONE_S
from hpc.cluster.record import LOGS, Entry, find_entry
from hpc.errors import ConnectError, HpcError


def stop(entry: Entry, timeout_s: float = 15.0) -> str:
    """End a cluster, wait until it has ended, remove what is left of it, and say what was done.

    Its jobs are cancelled, if they do not end by themselves with their controller, and waited for, too.

    Raises
    ------
    HpcError
        It has not ended after ``timeout_s``, or lives on another host and does not answer.
    """
    jobs = entry.jobs
    if entry.gone:
        _end_jobs(entry)
        entry.clean()
        shutil.rmtree(entry.directory, ignore_errors=True)  # whoever stops it is done with its logs, too
        return f"cluster {entry.name!r} was gone already: {entry.gone}; removed what it left behind"
    record, info = entry.record, entry.info
    if record is not None and record.is_here() and record.is_alive():
        if any(group.job for group in record.groups):
            timeout_s = max(timeout_s, DONE_S)
        _end_process(record.pid, record.started, "supervisor", timeout_s)
    elif info is not None and info.is_local():
        _end_process(info.pid, info.started, "controller", timeout_s)
    elif info is not None:
        try:
            _shut_down(entry)
        except ConnectError:
            if not jobs:  # else it ends with its job
                raise
    if jobs:
        _end_jobs(entry)
        shutil.rmtree(entry.directory, ignore_errors=True)  # nothing of it can live: what it left is of no use
        return f"stopped cluster {entry.name!r}: {', '.join(f'job {e.job.id}' for e in jobs)} ended"
    after = find_entry(entry.name)
    if after is not None and after.gone:
        after.clean()
    with contextlib.suppress(OSError):
        entry.directory.rmdir()
    logs = entry.directory / LOGS
    kept = f"; its logs stay, because something had gone wrong: {logs}" if logs.is_dir() else ""
    return f"stopped cluster {entry.name!r}{kept}"


def _end_jobs(entry: Entry) -> None:
    if entry.jobs:
        from hpc.cluster.submitted import LEAVE_S, end
        from jobscripts import JobScriptError

        try:
            end(entry.jobs, grace_s=LEAVE_S if entry.info is not None else 0.0)
        except JobScriptError as error:
            raise HpcError(f"the jobs of cluster {entry.name!r} could not be cancelled: {error}") from None


def _end_process(pid: int, started: int, what: str, timeout_s: float) -> None:
    processes.send_signal(pid, signal.SIGTERM)
    if not processes.wait_gone(pid, started, timeout_s):
        raise HpcError(f"the {what} (pid {pid}) has not ended {timeout_s:g} s after SIGTERM: kill -KILL {pid}")


def _shut_down(entry: Entry) -> None:
    """Ask the controller on another host."""
    from hpc.client import connect

    rc = connect(str(entry.directory / "client.json"))
    try:
        rc.shutdown(controller=True)
    finally:
        rc.close()
