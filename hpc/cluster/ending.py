"""End a cluster that some other process started, and leave nothing of it behind."""

import contextlib
import shutil
import signal

from hpc.cluster import processes
from hpc.cluster.record import LOGS, Entry, find_entry
from hpc.errors import HpcError


def stop(entry: Entry, timeout_s: float = 15.0) -> str:
    """End a cluster, wait until it has ended, remove what is left of it, and say what was done.

    Raises
    ------
    HpcError
        It has not ended after ``timeout_s``, or lives on another host and does not answer.
    """
    if entry.gone:
        entry.clean()
        shutil.rmtree(entry.directory, ignore_errors=True)  # whoever stops it is done with its logs, too
        return f"cluster {entry.name!r} was gone already: {entry.gone}; removed what it left behind"
    record, info = entry.record, entry.info
    if record is not None and record.is_here() and record.is_alive():
        _end_process(record.pid, record.started, "supervisor", timeout_s)
    elif info is not None and info.is_local():
        _end_process(info.pid, info.started, "controller", timeout_s)
    else:
        _shut_down(entry, timeout_s)
    after = find_entry(entry.name)
    if after is not None and after.gone:
        after.clean()
    with contextlib.suppress(OSError):
        entry.directory.rmdir()
    logs = entry.directory / LOGS
    kept = f"; its logs stay, because something had gone wrong: {logs}" if logs.is_dir() else ""
    return f"stopped cluster {entry.name!r}{kept}"


def _end_process(pid: int, started: int, what: str, timeout_s: float) -> None:
    processes.send_signal(pid, signal.SIGTERM)
    if not processes.wait_gone(pid, started, timeout_s):
        raise HpcError(f"the {what} (pid {pid}) has not ended {timeout_s:g} s after SIGTERM: kill -KILL {pid}")


def _shut_down(entry: Entry, timeout_s: float) -> None:
    """Ask the controller on another host."""
    from hpc.client import connect

    rc = connect(str(entry.directory / "client.json"))
    try:
        rc.shutdown(controller=True)
    finally:
        rc.close()
