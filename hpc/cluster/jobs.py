"""The supervisor's side of jobs: orders to the process that talks to the scheduler, and what that reports.

Commands of a scheduler may take seconds, or hang, and the supervisor has signals to hear meanwhile. So a child of it,
the follower (`hpc.cluster.follower`), submits, polls and cancels; one JSON object a line goes each way. When the
supervisor ends, however that happens, the follower sees the end of the line, cancels what there is, and waits for that.
"""

import contextlib
import json
import socket
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from hpc.cluster.options import ClusterOptions, Event, GroupRow

if TYPE_CHECKING:
    from hpc.cluster.workforce import Supervising

# What jobs may take to end when the cluster does, after which the supervisor goes without them.
END_S: Final = 60.0


class Jobs:
    """Jobs that hold the engines of a cluster, one for each group."""

    def __init__(
        self, supervisor: "Supervising", options: ClusterOptions, on_job: Callable[[GroupRow, bool, bool], None]
    ) -> None:
        self._supervisor = supervisor
        self._on_job = on_job
        self._rest = b""
        self._said: dict[str, str] = {}
        mine, theirs = socket.socketpair()
        self._line = mine
        name = supervisor.name

        def run() -> int:
            from hpc.cluster.follower import Follower
            from jobscripts import JobScriptError

            mine.close()
            try:
                return Follower(theirs, name, options).run()
            except JobScriptError as error:  # nothing here can start ranks, say: it tells what to do
                print(error, file=sys.stderr)
                return 1

        # It gets no signal when the supervisor dies: it has jobs to cancel then, and sees the end of the line.
        supervisor.fork("jobs", "jobs", run, 0)
        theirs.close()
        self._line.setblocking(False)
        supervisor.watch(self._line.fileno(), self._receive)
        self.open = True

    def __repr__(self) -> str:
        return f"<Jobs {len(self._said)} known, {'open' if self.open else 'ended'}>"

    def submit(self, label: str, n: int, replaces: str = "") -> None:
        """Submit a job with ``n`` engines, for the ids of the group ``replaces``, if any."""
        self._order({"submit": label, "n": n, "replaces": replaces})

    def cancel(self, label: str, after_s: float) -> None:
        """Cancel a job, unless it has ended by itself within ``after_s``."""
        self._order({"cancel": label, "after_s": after_s})

    def end(self) -> None:
        """Cancel all jobs; the follower ends when they have."""
        self._order({"end": True})

    def close(self) -> None:
        """Let go of the line, which ends the follower."""
        if self.open:
            self.open = False
            self._supervisor.unwatch(self._line.fileno())
            self._line.close()

    def _order(self, order: dict[str, Any]) -> None:
        if self.open:
            with contextlib.suppress(OSError):  # it has ended, and its exit says more
                self._line.sendall(json.dumps(order).encode() + b"\n")

    def _receive(self) -> None:
        try:
            piece = self._line.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self.close()
            return
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            news = json.loads(line)
            row = GroupRow(**{**news["row"], "nodes": tuple(news["row"]["nodes"])})
            self._tell(row)
            self._on_job(row, news["over"], news["again"])

    def _tell(self, row: GroupRow) -> None:
        text = describe(row)
        if text != self._said.get(row.label):
            self._said[row.label] = text
            self._supervisor.report(Event("job", text))
            self._supervisor.log(text)


def describe(row: GroupRow) -> str:
    """Say in one line how a job stands."""
    text = f"job {row.job} ({row.n} engines): {row.state}" if row.job else f"{row.label} ({row.n} engines): {row.state}"
    if row.reason:
        text += f", {row.reason}"
    if row.state == "pending" and row.start_s:
        text += f", expected to start {clock(row.start_s)}"
    if row.nodes:
        text += f" on {', '.join(row.nodes[:4])}" + (f" and {len(row.nodes) - 4} more" if len(row.nodes) > 4 else "")
    return text


def clock(epoch_s: float) -> str:
    """Return a time of the near future as a person says it."""
    form = "at %H:%M" if abs(epoch_s - time.time()) < 20 * 3600 else "on %Y-%m-%d at %H:%M"
    return time.strftime(form, time.localtime(epoch_s))
