"""The process that talks to the scheduler for a supervisor: submits its jobs, follows them, cancels them.

`hpc.cluster.jobs` is the other end of the line and says why this is a process of its own.
"""

import contextlib
import json
import select
import signal
import socket
import time
from typing import Any, Final

from hpc.cluster import shapes
from hpc.cluster.options import ClusterOptions, GroupRow
from hpc.cluster.record import LOGS
from hpc.security.folders import cluster_dir
from jobscripts import Job, JobScriptError, JobStatus, Runner, State

# At the end of a cluster its controller sends the engines home; their jobs then end by themselves, in order.
LEAVE_S: Final = 5.0
# What cancelled jobs may take: Slurm's KillWait is 30 s by default.
CANCELLED_S: Final = 45.0
RETRY_S: Final = 5.0
# A job that fails sooner would fail again, and one after the other would be submitted.
RAN_S: Final = 60.0
# Engines leave some time before their allocation ends, and its script with them.
NEAR_THE_END_S: Final = 300.0

_PENDING: Final = (State.NEW, State.QUEUED, State.HELD)


class Follower:
    """Jobs by the labels of their groups. ``line`` is the connection to the supervisor."""

    def __init__(self, line: socket.socket, name: str, options: ClusterOptions) -> None:
        self._line = line
        self._name = name
        self._options = options
        self._logs = cluster_dir(name) / LOGS
        self._plan = shapes.plan(options)
        self._near_s = NEAR_THE_END_S + (self._plan.resources.notice_s or 0)
        self._runner = Runner(self._plan.scheduler)
        self._jobs: dict[str, tuple[Job, int]] = {}
        self._seen: dict[str, JobStatus] = {}
        self._cancel_at: dict[str, float] = {}
        self._rest = b""
        self._ending_since = 0.0

    def __repr__(self) -> str:
        return f"<Follower of {self._name!r}, {len(self._jobs)} jobs, {self._runner!r}>"

    def run(self) -> int:
        """Obey until the end of the line, or until told to end, and the last job has ended."""
        # A Ctrl-C, or the end of a login session, is the supervisor's to act on; it says what follows from it.
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)
        while not self._ending_since or self._jobs:
            readable = select.select([self._line] if self._line.fileno() >= 0 else [], [], [], self._wait_s())[0]
            if readable:
                self._receive()
            self._cancel_due(time.monotonic())
            self._poll()
            if self._ending_since and time.monotonic() > self._ending_since + CANCELLED_S:
                return 1
        return 0

    def _wait_s(self) -> float | None:
        now = time.monotonic()
        waits = [at - now for at in self._cancel_at.values()]
        if self._jobs:
            waits.append(self._runner.next_poll_s)
        return max(0.0, min(waits)) if waits else None

    # ------------------------------------------------------------ orders

    def _receive(self) -> None:
        try:
            piece = self._line.recv(1 << 16)
        except OSError:
            piece = b""
        if not piece:
            self._line.close()
            self._end()
            return
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            order = json.loads(line)
            if "submit" in order:
                self._submit(order["submit"], order["n"], order["replaces"])
            elif "cancel" in order:
                self._cancel_at[order["cancel"]] = time.monotonic() + order["after_s"]
            else:
                self._end()

    def _submit(self, label: str, n: int, replaces: str) -> None:
        if self._ending_since:
            return
        try:
            spec = self._plan.engines(
                n,
                label=label,
                replaces=replaces,
                connection_file=str(cluster_dir(self._name) / "engine.json"),
                job_name=f"hpc-{self._name}-{label.rpartition('-')[2]}",
                stdout=str(self._logs / f"{label}.log"),
            )
            job = self._runner.submit(spec, self._logs)
        except JobScriptError as error:
            self._tell(GroupRow(label, n, "ended", reason=str(error)), over=True)
            return
        self._jobs[label] = job, n
        self._tell(GroupRow(label, n, "pending", job=job.id))

    def _end(self) -> None:
        """Begin to end all jobs: those that wait at once, those that run after a while to do it themselves."""
        if self._ending_since:
            return
        self._ending_since = time.monotonic()
        for label, (job, _) in self._jobs.items():
            waits = self._seen.get(label, JobStatus(job.id, State.NEW)).state in _PENDING
            self._cancel_at[label] = self._ending_since + (0.0 if waits else LEAVE_S)

    def _cancel_due(self, now: float) -> None:
        due = [label for label, at in self._cancel_at.items() if at <= now]
        jobs = [self._jobs[label][0] for label in due if label in self._jobs]
        if jobs:
            try:
                self._runner.cancel(jobs)
            except JobScriptError as error:
                print(f"cannot cancel {', '.join(map(str, jobs))}, trying again: {error}", flush=True)
                self._cancel_at.update(dict.fromkeys(due, now + RETRY_S))
                return
        for label in due:
            del self._cancel_at[label]

    # ------------------------------------------------------------ news

    def _poll(self) -> None:
        statuses = self._runner.poll([job for job, _ in self._jobs.values()])
        for label, (job, n) in list(self._jobs.items()):
            status = statuses[job.id]
            before = self._seen.get(label)
            if status == before:
                continue
            over = status.state.final
            if over:
                del self._jobs[label]
                self._cancel_at.pop(label, None)
            row = GroupRow(
                label,
                n,
                "ended" if over else "pending" if status.state in _PENDING else "running",
                job=job.id,
                reason=self._reason(status),
                start_s=status.start_s or 0.0,
                end_s=status.end_s or 0.0,
                nodes=status.nodes,
            )
            self._tell(row, over=over, again=over and self._again(before, status))
            self._seen[label] = status

    def _reason(self, status: JobStatus) -> str:
        reason = status.reason
        if status.state.final:
            code = f", exit code {status.exit_code}" if status.exit_code else ""
            return f"{status.state}{f' ({reason})' if reason else ''}{code}"
        if status.state is State.HELD:
            reason = f"held{f': {reason}' if reason else ''}"
        if status.state is State.UNKNOWN:
            reason = f"{self._plan.scheduler.name} does not know it (any more): {reason}".removesuffix(": ")
        if status.stale:
            reason += f"{'; ' if reason else ''}as last heard, now: {self._runner.trouble}"
        return reason

    def _again(self, before: JobStatus | None, now: JobStatus) -> bool:
        """Say whether another job like this one may do better."""
        if now.state in (State.TIMEOUT, State.PREEMPTED, State.NODE_FAIL):
            return True
        ended = now.end_s or time.time()
        if now.state is State.FAILED:
            return bool(now.start_s) and ended - (now.start_s or 0.0) > RAN_S
        # That all engines left in time for the end of the allocation is its normal end; earlier, somebody wanted it.
        return now.state is State.COMPLETED and bool(before and before.end_s and ended > before.end_s - self._near_s)

    def _tell(self, row: GroupRow, *, over: bool = False, again: bool = False) -> None:
        news: dict[str, Any] = {"row": row._asdict(), "over": over, "again": again}
        with contextlib.suppress(OSError):  # the supervisor is gone: nobody is left to be told
            self._line.sendall(json.dumps(news).encode() + b"\n")
