"""What qstat of PBS and OpenPBS prints, read."""

import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from jobscripts.errors import QueryError
from jobscripts.scheduler import Output
from jobscripts.states import JobStatus, State, summed_up

__all__ = ["collect", "duration_s", "read_json", "signal_code"]

# qstat(1B), "job_state"; F and X (finished) are looked into.
STATES: Final = {
    "Q": (State.QUEUED, ""),
    "W": (State.QUEUED, "waiting for its time"),
    "T": (State.QUEUED, "on its way to another server"),
    "M": (State.QUEUED, "moved to another server"),
    "H": (State.HELD, ""),
    "R": (State.ACTIVE, ""),
    "B": (State.ACTIVE, ""),
    "E": (State.ACTIVE, "exiting"),
    "S": (State.ACTIVE, "suspended"),
    "U": (State.ACTIVE, "suspended: the user of the workstation is back"),
}
# Exit_status < 0 is PBS's own; the rest of them are failures to start.
_WALLTIME: Final = -29
_ENDINGS: Final = {
    _WALLTIME: (State.TIMEOUT, "walltime"),
    -28: (State.FAILED, "cpu time"),
    -27: (State.FAILED, "out of memory"),
    -26: (State.FAILED, "out of virtual memory"),
    -25: (State.FAILED, "more cpus used than asked for"),
    -24: (State.FAILED, "more cpus used than asked for"),
    -20: (State.NODE_FAIL, "node lost"),
    -4: (State.NODE_FAIL, "node restarted"),
    -5: (State.NODE_FAIL, "node restarted"),
    -6: (State.NODE_FAIL, "node restarted"),
}
_TERMINATED_SUBSTATE: Final = 91
_FINISHED_SUBSTATE: Final = 92
_GONE: Final = re.compile(r"Unknown Job Id|Job has finished|has finished, use -x")
_SUBJOB: Final = re.compile(r"(\d+)\[(\d+)\](\..+)?\Z")
# A value that PBS did not quote because it looks like a number, which in JSON it may not be: 007, 1e, .5
_BARE: Final = re.compile(r'^(\s*"(?:[^"\\]|\\.)*":)([^"{\[\s][^"{\[]*?)(,?)$', re.MULTILINE)


def read_json(output: Output, ids: Sequence[str]) -> dict[str, JobStatus]:
    """Return the status of each job from ``qstat -f -F json``; what it does not know is UNKNOWN.

    qstat answers for those that it knows and returns an error code for the others.
    """
    start = output.stdout.find("{")
    if output.code == -1 or (output.code and start < 0) or (output.code and not _answered(output)):
        raise QueryError(f"qstat failed ({output})", transient=True)
    text = output.stdout[start:] if start >= 0 else "{}"
    try:
        answer = _load(text)
    except ValueError as error:
        raise QueryError(f"qstat wrote JSON that is none ({error}): {text[:200]!r}", transient=True) from None
    jobs = answer.get("Jobs") or {}
    return collect({str(key): _status(str(key), fields) for key, fields in jobs.items()}, ids)


def _answered(output: Output) -> bool:
    return '"Jobs"' in output.stdout or bool(_GONE.search(output.stderr))


def _load(text: str) -> dict[str, Any]:
    try:
        loaded = json.loads(text, strict=False)
    except ValueError:
        loaded = json.loads(_BARE.sub(r'\1"\2"\3', text), strict=False)
    if not isinstance(loaded, dict):
        raise ValueError("no object")
    return loaded


def collect(known: Mapping[str, JobStatus], ids: Sequence[str]) -> dict[str, JobStatus]:
    """Return the status of each id; arrays are summed up from their elements, where the answer has them."""
    arrays: dict[str, dict[int, JobStatus]] = {}
    for key, status in known.items():
        if match := _SUBJOB.match(key):
            arrays.setdefault(match[1], {})[int(match[2])] = status
    by_number = {key.partition(".")[0]: status for key, status in known.items()}
    found = {}
    for job_id in ids:
        number = job_id.partition(".")[0]
        elements = arrays.get(number.removesuffix("[]")) if number.endswith("[]") else None
        if elements:
            found[job_id] = summed_up(job_id, dict(sorted(elements.items())))
        else:
            unknown = JobStatus(job_id, State.UNKNOWN, "not in the queue")
            found[job_id] = known.get(job_id) or by_number.get(number) or unknown
    return found


def _status(job_id: str, fields: Mapping[str, Any]) -> JobStatus:
    # Values that look like numbers come as numbers; nothing here relies on it.
    raw = str(fields.get("job_state", ""))
    comment = str(fields.get("comment", ""))
    start_s = _time(fields.get("stime"))
    limit_s = duration_s(str(_inside(fields, "Resource_List").get("walltime", "")))
    nodes = tuple(dict.fromkeys(part.split("/")[0] for part in str(fields.get("exec_host", "")).split("+") if part))
    if raw in ("F", "X"):
        state, reason, code = _ending(fields, comment)
        return JobStatus(
            job_id, state, reason, code, nodes, start_s, _time(fields.get("obittime") or fields.get("mtime")), raw
        )
    state, reason = STATES.get(raw, (State.UNKNOWN, f"PBS says {raw!r}, which is not in its manual"))
    if state is State.ACTIVE:
        end_s = start_s + limit_s if start_s is not None and limit_s is not None else None
        return JobStatus(job_id, state, reason, None, nodes, start_s, end_s, raw)
    if state is State.HELD:
        reason = f"held ({fields.get('Hold_Types', '')})" + (
            f", depends on {depend}" if (depend := fields.get("depend")) else ""
        )
    expected_s = _time(_inside(fields, "estimated").get("start_time"))
    return JobStatus(job_id, state, comment.removeprefix("Not Running: ") or reason, None, (), expected_s, None, raw)


def _ending(fields: Mapping[str, Any], comment: str) -> tuple[State, str, int | None]:
    """Say how a finished job ended; an Exit_status that is missing, negative or above 255 has a meaning of its own."""
    substate = int(fields.get("substate", 0))
    if "Exit_status" not in fields:
        if substate == _FINISHED_SUBSTATE:
            return State.CANCELED, "it never ran: what it depended on did not come to be", None
        return State.CANCELED, "deleted before it ran", None
    code = int(fields["Exit_status"])
    if code < 0:
        if "walltime" in comment:
            return State.TIMEOUT, "walltime", None
        state, reason = _ENDINGS.get(code, (State.FAILED, f"PBS could not run it (Exit_status {code})"))
        return state, reason, None
    if substate == _TERMINATED_SUBSTATE:
        return State.CANCELED, "deleted", signal_code(code)
    if code:
        return State.FAILED, "", signal_code(code)
    if substate == _FINISHED_SUBSTATE:
        return State.COMPLETED, "", 0
    if str(fields.get("array", "")) == "True":
        return State.FAILED, "an element of the array failed", None
    return State.CANCELED, "deleted", None


def signal_code(code: int) -> int:
    """Return an exit code as a shell says it: PBS adds 256 to the number of a signal, a shell 128."""
    return code - 128 if code > 256 else code


def duration_s(text: str) -> int | None:
    """Return ``HH:MM:SS`` in seconds."""
    parts = text.split(":")
    if not all(part.isdigit() for part in parts):
        return None
    seconds = 0
    for part in parts:
        seconds = seconds * 60 + int(part)
    return seconds


def _inside(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = fields.get(name)
    return value if isinstance(value, dict) else {}


def _time(value: Any) -> float | None:
    """Return a time of qstat, local and in words (or seconds, where it is estimated), in seconds since the epoch."""
    if value is None:
        return None
    if isinstance(value, (int, float)) or str(value).isdigit():
        return float(value)
    try:
        return time.mktime(time.strptime(str(value)))
    except ValueError:
        return None
