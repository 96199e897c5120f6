"""What squeue and sacct print, read."""

import re
import time
from collections.abc import Callable, Sequence
from typing import Final

from jobscripts.hosts import expand_hosts
from jobscripts.states import JobStatus, State, summed_up

__all__ = ["FORMAT", "SACCT_FIELDS", "read_sacct", "read_squeue", "read_time"]

# squeue(1): id, state, reason, start (expected, while it waits), end (of the allocation, while it runs), nodes.
FORMAT: Final = "%i|%T|%r|%S|%e|%N"
SACCT_FIELDS: Final = "JobID,State,ExitCode,Start,End,Reason,NodeList"

# "JOB STATE CODES" of squeue(1) and sacct(1).
_STATES: Final = {
    "PENDING": State.QUEUED,
    "REQUEUED": State.QUEUED,
    "REQUEUE_FED": State.QUEUED,
    "CONFIGURING": State.QUEUED,
    "REQUEUE_HOLD": State.HELD,
    "SPECIAL_EXIT": State.HELD,
    "RESV_DEL_HOLD": State.HELD,
    "RUNNING": State.ACTIVE,
    "COMPLETING": State.ACTIVE,
    "RESIZING": State.ACTIVE,
    "SIGNALING": State.ACTIVE,
    "STAGE_OUT": State.ACTIVE,
    "STOPPED": State.ACTIVE,
    "SUSPENDED": State.ACTIVE,
    "COMPLETED": State.COMPLETED,
    "FAILED": State.FAILED,
    "OUT_OF_MEMORY": State.FAILED,
    "LAUNCH_FAILED": State.FAILED,
    "RECONFIG_FAIL": State.FAILED,
    "CANCELLED": State.CANCELED,
    "REVOKED": State.CANCELED,
    "TIMEOUT": State.TIMEOUT,
    "DEADLINE": State.TIMEOUT,
    "PREEMPTED": State.PREEMPTED,
    "NODE_FAIL": State.NODE_FAIL,
    "BOOT_FAIL": State.NODE_FAIL,
}
_HOLDS: Final = frozenset({"JobHeldUser", "JobHeldAdmin", "JobHoldMaxRequeue"})
# States that say more than ours.
_TELLING: Final = frozenset(
    {"SUSPENDED", "STOPPED", "CONFIGURING", "COMPLETING", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL", "LAUNCH_FAILED"}
)
# 12, 12_3 (element of an array), 12_[3-5%2] (elements that wait, without -r), 12+1 (component of a heterogeneous job).
_ID: Final = re.compile(r"(\d+)(?:([_+])(?:(\d+)|\[.*\]))?\Z")


def read_squeue(text: str, ids: Sequence[str]) -> dict[str, JobStatus]:
    """Return the status of each job from `FORMAT` lines; what is not in them is UNKNOWN."""
    known = _read(text, 6, _squeue_row)
    return {job_id: _find(known, job_id) or JobStatus(job_id, State.UNKNOWN, "not in the queue") for job_id in ids}


def read_sacct(text: str, ids: Sequence[str]) -> dict[str, JobStatus]:
    """Return the status of those jobs that are in `SACCT_FIELDS` lines."""
    known = _read(text, 7, _sacct_row)
    return {job_id: status for job_id in ids if (status := _find(known, job_id))}


def read_time(text: str) -> float | None:
    """Return a time of Slurm (local, or seconds where SLURM_TIME_FORMAT=%s) in seconds since the epoch."""
    if text.isdigit():
        return float(text)
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return None  # N/A, Unknown, None


Known = dict[str, JobStatus | dict[int, JobStatus]]


def _read(text: str, fields: int, row: Callable[[list[str]], JobStatus]) -> Known:
    known: Known = {}
    for line in text.splitlines():
        columns = line.split("|")
        match = _ID.match(columns[0])
        if len(columns) != fields or not match:
            continue  # a banner of the site
        base, separator, number = match.groups()
        status = row(columns)
        if not separator:
            known[base] = status
            continue
        elements = known.get(base)
        if not isinstance(elements, dict):
            elements = known[base] = {}
        # Lines of an array come in no order; a job that was started again has a line for each time, the last counts.
        elements[int(number) if number else -1] = status
    return known


def _find(known: Known, job_id: str) -> JobStatus | None:
    match = _ID.match(job_id)
    found = known.get(match[1] if match else job_id)
    if match and match[2] and isinstance(found, dict):
        return found.get(int(match[3] or -1))
    if isinstance(found, dict):
        return summed_up(job_id, dict(sorted(found.items())))
    return found


def _squeue_row(columns: list[str]) -> JobStatus:
    job_id, raw, reason, start, end, nodes = columns
    state = _state(raw, reason)
    return JobStatus(
        job_id,
        state,
        _reason(raw, reason),
        0 if state is State.COMPLETED else None,
        expand_hosts(nodes),
        read_time(start),
        read_time(end) if state is not State.QUEUED else None,
        raw,
    )


def _sacct_row(columns: list[str]) -> JobStatus:
    job_id, raw, code, start, end, reason, nodes = columns
    state = _state(raw.split(" ")[0].rstrip("+"), reason)  # "CANCELLED by 0"
    status, _, signal = code.partition(":")
    exit_code = (128 + int(signal) if signal not in ("", "0") else int(status)) if status.isdigit() else None
    return JobStatus(
        job_id,
        state,
        _reason(raw.split(" ")[0], reason),
        # TIMEOUT and CANCELLED come with 0:0, which is no success.
        exit_code if exit_code or state is State.COMPLETED else None,
        expand_hosts(nodes),
        read_time(start),
        read_time(end),
        raw,
    )


def _state(raw: str, reason: str) -> State:
    state = _STATES.get(raw, State.UNKNOWN)
    return State.HELD if state is State.QUEUED and reason in _HOLDS else state


def _reason(raw: str, reason: str) -> str:
    if raw in _TELLING:
        return raw.lower().replace("_", " ")
    if raw not in _STATES:
        return f"Slurm says {raw}, which is not in its manual"
    # A job that has ended keeps the reason for which it once waited.
    waits = _STATES[raw] in (State.QUEUED, State.HELD)
    return "" if reason in ("None", "") or not (waits or (_STATES[raw].final and reason not in _WAITING)) else reason


_WAITING: Final = frozenset({"Priority", "Resources", "Dependency", "JobArrayTaskLimit", "BeginTime", *_HOLDS})
