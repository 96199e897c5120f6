"""The supervisor: one process without threads and sockets of the network that starts, watches and ends all others.

It has imported what controller and engines need before it forks them, so that each starts in milliseconds and they
share those pages of memory. It tells the controller how each child ended; the controller's end is the cluster's.
docs/decisions/0005-processes.md says why it is built this way.
"""

import contextlib
import enum
import gc
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from hpc.cluster import children, ports, processes, record
from hpc.cluster.children import Child
from hpc.cluster.jobs import END_S
from hpc.cluster.link import LauncherLink, Questions, Watch
from hpc.cluster.options import DETACH, ClusterOptions, Event, GroupRow
from hpc.cluster.orders import Orders
from hpc.cluster.workforce import Workforce
from hpc.controller.server import ControllerOptions, run_controller
from hpc.errors import HpcError
from hpc.security.folders import cluster_dir
from hpc.security.host import start_ticks
from hpc.security.info import ConnectionInfo
from hpc.security.oom import OomWatch
from hpc.wire import messages as m

# An engine that was told to stop by its controller gets this long before it is told by a signal too.
TERM_AFTER_S: Final = 0.5
# What is left when all children have ended (what engines had started) gets this long after SIGTERM.
ORPHANS_GRACE_S: Final = 0.5


class Phase(enum.Enum):
    """How far a cluster has come."""

    STARTING = "starting"
    RUNNING = "running"
    ENDING = "ending"


class Supervisor:
    """Runs one cluster from its start to its end, in `run`.

    ``events`` is the descriptor to report to, ``lifeline`` one whose end of file ends the cluster.
    """

    def __init__(self, options: ClusterOptions, events: int, lifeline: int) -> None:
        self._options = options
        self._events = events
        os.set_blocking(events, False)
        self._lifeline = lifeline
        self._phase = Phase.STARTING
        self.children: dict[int, Child] = {}
        self._workforce: Workforce | None = None
        self._orders: Orders | None = None
        self._up = -1
        self._reason = ""
        self._failed = False
        self._tail: tuple[str, ...] = ()
        self._crashes = 0
        self._controller: Child | None = None
        self._controller_up = False
        self._link: LauncherLink | None = None
        self._watch: Watch | None = None
        self._give_up_at = time.monotonic() + options.start_timeout_s
        self._term_at = self._kill_at = self._no_jobs_at = float("inf")
        self._port_note = ""
        # Before anything is there that a signal could leave behind.
        self._signals = processes.Signals(
            (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
        )
        self.record, self._name_note = record.claim(options)
        self.name, self.logs = self.record.name, Path(self.record.logs)
        processes.take_over_output(self.logs / "supervisor.log")
        self._selector = selectors.DefaultSelector()
        self._oom = OomWatch()
        processes.adopt_orphans()

    def __repr__(self) -> str:
        return f"<Supervisor of {self.record.name!r}, {self._phase.value}, {len(self.children)} children>"

    def run(self) -> int:
        """Start the cluster, keep it until its end, and return 0 if that was a clean one, else 1."""
        self.report(Event("claimed", self._name_note, name=self.record.name, logs=self.record.logs))
        self._selector.register(self._signals.fileno(), selectors.EVENT_READ, self._on_signals)
        self._selector.register(self._lifeline, selectors.EVENT_READ, self._on_lifeline)
        self._start_controller()
        while self.children or self._phase is not Phase.ENDING or self._end_orphans():
            for key, _ in self._selector.select(self._wait_s()):
                key.data()
            self._on_time(time.monotonic())
        return self._wind_up()

    # ------------------------------------------------------------ starting

    def _start_controller(self) -> None:
        port = self._options.port
        if port < 0:
            port, self._port_note = ports.choose(self._options.ip)
        options = ControllerOptions(
            name=self.record.name,
            ip=self._options.ip,
            port=port,
            engine_port=self._options.engine_port if self._options.engine_port >= 0 else None,
            log_level=self._options.log_level,
            policy=self._options.policy,
        )
        mine, theirs = socket.socketpair()
        self._link = LauncherLink(mine)

        def run() -> int:
            try:
                return run_controller(options, launcher=theirs)
            except (HpcError, OSError) as error:  # a port that is taken, say: no traceback is needed to understand it
                print(error, file=sys.stderr)
                return 1

        # When the supervisor dies the controller gets no signal: it sees the end of the link as soon as it looks, and
        # has engines to end and files to remove, which a signal that comes before it is ready would keep it from.
        self._controller = self.fork("controller", "controller", run, 0)
        theirs.close()
        self._selector.register(self._link.fileno(), selectors.EVENT_READ, self._on_link)
        self._link.send(m.Query(1, "ping"))  # answered as soon as it listens
        if self._options.launcher == "local":
            from hpc.engine.start import preload  # while the controller starts

            preload()
        self.record.controller_pid, self.record.controller_started = self._controller.pid, self._controller.started
        self.record.save()

    def _on_controller_up(self) -> None:
        directory = cluster_dir(self.record.name)
        self._controller_up = True
        info = ConnectionInfo.load(directory / "client.json")
        host, _, port = info.addresses[0].removeprefix("tcp://").rpartition(":")
        note = self._port_note + port if self._port_note else ""
        pid = self._controller.pid if self._controller else 0
        self.report(Event("controller", note, host=host.strip("[]"), port=int(port), pid=pid))
        questions = Questions(self.send)
        self._workforce = Workforce(self, questions, self._options)
        self._orders = Orders(self, questions, self._workforce)
        self._workforce.start(self._options.n)
        self._watch = Watch(ConnectionInfo.load(directory / "monitor.json"))
        self._selector.register(self._watch.fileno(), selectors.EVENT_READ, self._on_watch)
        self._on_watch()

    def fork(self, kind: str, label: str, run: Callable[[], int], on_death: int) -> Child:
        """Start a child that goes on with ``run``; ``on_death`` is the signal it gets when this process dies."""
        log = self.logs / f"{label}.log"
        log_start = processes.size_of(log)
        pid = children.fork(f"hpc-{label}", run, log, on_death, self._close)
        child = Child(kind, pid, start_ticks(pid), label, log, log_start=log_start)
        self._oom.watch(pid)
        self.children[pid] = child
        return child

    def _close(self) -> None:
        """Close, in a forked child, what only the supervisor may hold."""
        self._selector.close()
        self._signals.close()
        # The fork itself has closed the connections (hpc.transport.unix): `close` would shut them for the parent, too.
        os.close(self._events)
        os.close(self._lifeline)

    # ------------------------------------------------------------ watching

    def _on_signals(self) -> None:
        for signum in self._signals.take():
            if signum == signal.SIGCHLD:
                self._reap()
            elif signum == signal.SIGUSR1:  # the walltime of the job that we are in is about to end
                for child in self.children.values():
                    if child.kind in ("engine", "mpirun"):
                        processes.send_signal(child.pid, signal.SIGUSR1)
            elif self._phase is Phase.ENDING and signum != signal.SIGHUP:
                self._kill_at = 0.0  # asked twice: at once
            else:
                self._end(f"stopped by {signal.Signals(signum).name}")

    def _on_lifeline(self) -> None:
        detached = os.read(self._lifeline, len(DETACH)) == DETACH
        self._selector.unregister(self._lifeline)
        if not detached:
            self._end("the process that started it has ended")

    def _on_link(self) -> None:
        assert self._link is not None  # noqa: S101 - only a registered link calls back
        for message in self._link.take():
            if isinstance(message, m.Answer) and message.request == 1 and not self._controller_up:
                if self._phase is Phase.STARTING:
                    self._on_controller_up()
            elif isinstance(message, m.Stop):
                self._end(f"asked to by the controller: {message.reason}")
            elif self._orders is not None and self._phase is not Phase.ENDING:
                self._orders.take(message)
        if self._link.closed:
            self._selector.unregister(self._link.fileno())
            self._link.close()
            self._link = None
            # Its exit status, which follows at once, says whether this was in order.
            self._end("the controller has ended")

    def _on_watch(self) -> None:
        if self._watch is None:
            return
        up = self._watch.count()
        if up is None:
            self._stop_watching()  # the controller is gone, or going: its link and its exit say more
        elif up != self._up:
            self._up = up
            self.report(Event("engines", up=up, of=self._options.n))
            if up and self._options.by_jobs:  # the queue is behind them
                self._give_up_at = min(self._give_up_at, time.monotonic() + self._options.start_timeout_s)
            if up >= self._options.n and self._phase is Phase.STARTING:
                self._phase = Phase.RUNNING
                self._stop_watching()
                gc.enable()  # from here on this process makes a little garbage now and then
                self.record.state = "running"
                if self._workforce is not None:
                    self._workforce.all_here()
                self.report(Event("ready", up=up, of=self._options.n))

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._selector.unregister(self._watch.fileno())
            self._watch.close()
            self._watch = None

    def _reap(self) -> None:
        for pid, exit_code, signum, oom in children.reap(self._oom):
            child = self.children.pop(pid, None)
            if child is not None:  # else one that was adopted
                self._on_exit(child, exit_code, signum, oom=oom)

    def _on_exit(self, child: Child, exit_code: int, signum: int, *, oom: bool) -> None:
        self._oom.forget(child.pid)
        how = processes.describe_exit(exit_code, signum)
        self.log(f"{child.label} (pid {child.pid}) has ended: {how}")
        leaving = self._workforce is not None and self._workforce.ended(child)
        crashed = bool(exit_code or signum) and not leaving
        tail = processes.tail(child.log, start=child.log_start) if crashed else ()
        if child.kind == "controller":
            self._controller = None
            if self._link is not None:
                self._on_link()
            if crashed and not (self._asked() and signum == signal.SIGTERM):
                self._end(f"the controller (pid {child.pid}) has ended: {how}", failed=True, tail=tail)
            self._term_at = min(self._term_at, time.monotonic() + (0.0 if crashed else TERM_AFTER_S))
            return
        text = f"{child.label} (pid {child.pid}): {how}"
        if child.kind == "jobs":
            if self._phase is not Phase.ENDING:
                self._end(f"the process that follows the jobs has ended: {how}", failed=True, tail=tail)
            return
        said = "\n".join(processes.what_it_said(tail))
        if child.kind == "mpirun":
            error = "\n".join((how, *tail)) if crashed else ""
            self.send(m.Group(child.label, child.n, error, ended=True, stderr=said))
        self.send(m.Exited(self.record.host, child.pid, exit_code, signum, said, oom))
        if self._phase is Phase.STARTING and not leaving:
            self._end(f"{text}, before it was registered", failed=True, tail=tail)
        elif self._phase is Phase.RUNNING and crashed:
            # A signal from outside leaves nothing to read; a crash of its own does.
            self._crashes += signum not in (signal.SIGKILL, signal.SIGTERM)
            self.report(Event("lost", text, pid=child.pid, tail=tail))

    # ------------------------------------------------------------ ending

    def _asked(self) -> bool:
        return self._phase is Phase.ENDING and not self._failed

    def _end(self, reason: str, *, failed: bool = False, tail: tuple[str, ...] = ()) -> None:
        """Begin to end the cluster; a failure found on the way replaces a reason that was none."""
        if failed and not self._failed:
            self._reason, self._failed, self._tail = reason, True, tail
        if self._phase is Phase.ENDING:
            return
        self._reason = self._reason or reason
        self._phase = Phase.ENDING
        self.log(f"ending: {reason}")
        now = time.monotonic()
        self._term_at, self._kill_at = now + TERM_AFTER_S, now + self._options.grace_s
        self._no_jobs_at = now + END_S
        self.send(m.Shutdown(2, None, True))
        if self._workforce is not None and self._workforce.jobs is not None:
            self._workforce.jobs.end()

    def _wait_s(self) -> float | None:
        due = self._give_up_at if self._phase is Phase.STARTING else min(self._term_at, self._kill_at)
        if self._orders is not None and self._phase is not Phase.ENDING:
            due = min(due, self._orders.look_at)
        return None if due == float("inf") else max(0.0, due - time.monotonic())

    def _on_time(self, now: float) -> None:
        if self._orders is not None and self._phase is not Phase.ENDING and now >= self._orders.look_at:
            self._orders.look(now)
        if self._phase is Phase.STARTING and now >= self._give_up_at:
            up = f"{max(self._up, 0)} of {self._options.n} engines are registered"
            what = up if self._controller_up else "the controller does not answer"
            self._end(
                f"not usable after {self._options.start_timeout_s:g} s: {what}", failed=True, tail=self._any_tail()
            )
        if now >= self._kill_at:
            self._kill_at = now + 1.0
            self._signal_all(signal.SIGKILL)
        elif now >= self._term_at:
            self._term_at = float("inf")
            self._signal_all(signal.SIGTERM)

    def _signal_all(self, signum: int) -> None:
        for child in self.children.values():
            if child.kind == "jobs" and time.monotonic() < self._no_jobs_at:
                continue  # it ends by itself when the jobs have, and hears no SIGTERM
            # The session of an engine includes what user code started there.
            processes.send_signal(child.pid, signum, group=True)
            processes.send_signal(child.pid, signal.SIGCONT, group=True)  # a stopped process hears nothing else
        if not self.children:
            for pid in processes.children():
                processes.send_signal(pid, signum)

    def _end_orphans(self) -> bool:
        """Signal what the children left behind; say whether there is something."""
        self._reap()
        orphans = processes.children()
        if not orphans:
            return False
        now = time.monotonic()
        if self._kill_at > now + ORPHANS_GRACE_S:
            self._kill_at = now + ORPHANS_GRACE_S
            self._signal_all(signal.SIGTERM)
        return True

    def _wind_up(self) -> int:
        """Remove the files, report the end, and return the exit status."""
        keep = self._failed or self._crashes > 0
        record.leave(self.record, keep_logs=keep, failure=self._reason if self._failed else "")
        logs = self.record.logs if keep else ""
        self.report(Event("ended", self._reason, logs=logs, failed=self._failed, tail=self._tail))
        return int(self._failed)

    # ------------------------------------------------------------ for the workforce

    def changed(self, rows: tuple[GroupRow, ...]) -> None:
        """Write into the record which groups there are."""
        if self._phase is Phase.ENDING or self._workforce is None:
            return
        self.record.groups, self.record.n = rows, self._workforce.wanted
        self.record.mpirun = self._workforce.mpirun
        self.record.save()
        if self._phase is Phase.STARTING and self._options.by_jobs:
            waits = self._workforce.waits_for_a_job
            self._give_up_at = float("inf") if waits else time.monotonic() + self._options.start_timeout_s

    def fail(self, reason: str, tail: Sequence[str] = ()) -> None:
        """End the cluster for this reason; one that runs goes on without the engines that could not be started."""
        if self._phase is Phase.STARTING:
            self._end(reason, failed=True, tail=tuple(tail))
        else:
            self.report(Event("lost", reason, tail=tuple(tail)))
            self.log(reason)

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back whenever there is something to read."""
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def unwatch(self, fd: int) -> None:
        """Call back no more."""
        self._selector.unregister(fd)

    # ------------------------------------------------------------ reporting

    def report(self, event: Event) -> None:
        """Tell whoever started the cluster, if they still listen."""
        # Nobody listens any more, `ipcluster start` has returned; or nobody reads, and waiting for them would be worse.
        with contextlib.suppress(OSError):
            os.write(self._events, event.to_json())

    def send(self, message: m.Message) -> None:
        """Tell the controller, if it is there."""
        if self._link is not None:
            with contextlib.suppress(OSError, HpcError):  # gone: `_on_link` will find out
                self._link.send(message)

    def log(self, text: str) -> None:
        """Write a line to the supervisor's log."""
        print(time.strftime("%Y-%m-%d %H:%M:%S"), "supervisor:", text, file=sys.stderr, flush=True)

    def _any_tail(self) -> tuple[str, ...]:
        logs = [child.log for child in self.children.values()]
        return next((lines for log in logs if (lines := processes.tail(log))), ())
