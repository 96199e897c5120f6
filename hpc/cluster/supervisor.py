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
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hpc.cluster import children, mpirun, ports, processes, record
from hpc.cluster.children import Child
from hpc.cluster.link import LauncherLink, Watch
from hpc.cluster.options import DETACH, ClusterOptions, Event
from hpc.controller.server import ControllerOptions, run_controller
from hpc.errors import HpcError
from hpc.security.folders import cluster_dir
from hpc.security.host import start_ticks
from hpc.security.info import ConnectionInfo
from hpc.wire import messages as m

# An engine that was told to stop by its controller gets this long before it is told by a signal too.
TERM_AFTER_S: Final = 0.5
# What is left when all children have ended (what engines had started) gets this long after SIGTERM.
ORPHANS_GRACE_S: Final = 0.5

_CONNECTION_FILES: Final = ("client.json", "engine.json", "monitor.json", "controller.json")


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
        self._children: dict[int, Child] = {}
        self._n_started = 0
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
        self._term_at = self._kill_at = float("inf")
        self._port_note = ""
        # Before anything is there that a signal could leave behind.
        self._signals = processes.Signals((signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        self.record, self._name_note = record.claim(options)
        self._logs = Path(self.record.logs)
        self._take_over_output()
        self._selector = selectors.DefaultSelector()
        processes.adopt_orphans()

    def __repr__(self) -> str:
        return f"<Supervisor of {self.record.name!r}, {self._phase.value}, {len(self._children)} children>"

    def run(self) -> int:
        """Start the cluster, keep it until its end, and return 0 if that was a clean one, else 1."""
        self._report(Event("claimed", self._name_note, name=self.record.name, logs=self.record.logs))
        self._selector.register(self._signals.fileno(), selectors.EVENT_READ, self._on_signals)
        self._selector.register(self._lifeline, selectors.EVENT_READ, self._on_lifeline)
        self._start_controller()
        while self._children or self._phase is not Phase.ENDING or self._end_orphans():
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
        self._controller = self._fork("controller", "controller", run, 0)
        theirs.close()
        self._selector.register(self._link.fileno(), selectors.EVENT_READ, self._on_link)
        self._link.send(m.Query(1, "ping"))  # answered as soon as it listens
        if self._options.n and self._options.launcher == "local":
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
        self._report(Event("controller", note, host=host.strip("[]"), port=int(port), pid=pid))
        self._start_engines(self._options.n)
        self._watch = Watch(ConnectionInfo.load(directory / "monitor.json"))
        self._selector.register(self._watch.fileno(), selectors.EVENT_READ, self._on_watch)
        self._on_watch()

    def _start_engines(self, n: int) -> None:
        """Start ``n`` engines: by one mpirun, or by a fork each."""
        if self._options.launcher == "mpiexec":
            if n:
                self._start_mpirun(n)
            return
        from hpc.engine.start import EngineOptions, run_engine

        engine = EngineOptions(name=self.record.name, mpi=False, log_level=self._options.log_level)
        for _ in range(n):
            label = f"engine-{self._n_started}"
            self._n_started += 1
            self._fork("engine", label, lambda: run_engine(engine), signal.SIGKILL)

    def _start_mpirun(self, n: int) -> None:
        label = f"mpirun-{self._n_started}"
        self._n_started += n
        program = [sys.executable, "-m", "hpc.cli.ipengine", "--name", self.record.name, "--mpi"]
        try:
            tool = mpirun.find()
        except FileNotFoundError as error:
            self._send(m.Group(label, n, str(error)))
            self._end(str(error), failed=True)
            return
        self.record.mpirun = str(tool)
        self._log(f"starting {n} engines with {tool}: {' '.join(tool.command(n, program))}")
        self._report(Event("launcher", f"starting {n} engines with {tool}"))
        log = self._logs / f"{label}.log"
        pid = children.execute(tool.command(n, program), tool.environment(os.environ, n), log, signal.SIGTERM)
        self._children[pid] = Child("mpirun", pid, start_ticks(pid), label, log, n=n)
        self._send(m.Group(label, n))

    def _fork(self, kind: str, label: str, run: Callable[[], int], on_death: int) -> Child:
        log = self._logs / f"{label}.log"
        pid = children.fork(f"hpc-{label}", run, log, on_death, self._close)
        child = Child(kind, pid, start_ticks(pid), label, log)
        self._children[pid] = child
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
            elif isinstance(message, m.Start) and self._phase is not Phase.ENDING:
                self._start_engines(message.n)
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
            self._report(Event("engines", up=up, of=self._options.n))
            if up >= self._options.n and self._phase is Phase.STARTING:
                self._phase = Phase.RUNNING
                self._stop_watching()
                gc.enable()  # from here on this process makes a little garbage now and then
                self.record.state = "running"
                self.record.save()
                self._report(Event("ready", up=up, of=self._options.n))

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._selector.unregister(self._watch.fileno())
            self._watch.close()
            self._watch = None

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child is not None:  # else one that was adopted
                code = os.waitstatus_to_exitcode(status)
                self._on_exit(child, max(code, 0), max(-code, 0))

    def _on_exit(self, child: Child, exit_code: int, signum: int) -> None:
        how = processes.describe_exit(exit_code, signum)
        self._log(f"{child.label} (pid {child.pid}) has ended: {how}")
        crashed = bool(exit_code or signum)
        tail = processes.tail(child.log) if crashed else ()
        if child.kind == "controller":
            self._controller = None
            if self._link is not None:
                self._on_link()
            if crashed and not (self._asked() and signum == signal.SIGTERM):
                self._end(f"the controller (pid {child.pid}) has ended: {how}", failed=True, tail=tail)
            self._term_at = min(self._term_at, time.monotonic() + (0.0 if crashed else TERM_AFTER_S))
            return
        text = f"{child.label} (pid {child.pid}): {how}"
        if child.kind == "mpirun":
            self._send(m.Group(child.label, child.n, "\n".join((how, *tail)) if crashed else ""))
        said = [line for line in tail if " INFO: " not in line and " DEBUG: " not in line]
        self._send(m.Exited(self.record.host, child.pid, exit_code, signum, "\n".join(said)))
        if self._phase is Phase.STARTING:
            self._end(f"{text}, before it was registered", failed=True, tail=tail)
        elif self._phase is Phase.RUNNING and crashed:
            # A signal from outside leaves nothing to read; a crash of its own does.
            self._crashes += signum not in (signal.SIGKILL, signal.SIGTERM)
            self._report(Event("lost", text, pid=child.pid, tail=tail))

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
        self._log(f"ending: {reason}")
        now = time.monotonic()
        self._term_at, self._kill_at = now + TERM_AFTER_S, now + self._options.grace_s
        self._send(m.Shutdown(2, None, True))

    def _wait_s(self) -> float | None:
        due = self._give_up_at if self._phase is Phase.STARTING else min(self._term_at, self._kill_at)
        return None if due == float("inf") else max(0.0, due - time.monotonic())

    def _on_time(self, now: float) -> None:
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
        for child in self._children.values():
            # The session of an engine includes what user code started there.
            processes.send_signal(child.pid, signum, group=True)
            processes.send_signal(child.pid, signal.SIGCONT, group=True)  # a stopped process hears nothing else
        if not self._children:
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
        directory = cluster_dir(self.record.name)
        found = record.find_entry(self.record.name)
        if found is not None and found.info is not None:  # the controller was not able to do it
            record.remove_socket(found.info)
        keep = self._failed or self._crashes > 0
        if keep:
            for name in (*_CONNECTION_FILES, record.RECORD_FILE):
                (directory / name).unlink(missing_ok=True)
            if self._failed:  # stays behind so that `ipcluster list` can tell
                self.record.state, self.record.reason = "failed", self._reason
                self.record.save()
        else:
            shutil.rmtree(directory, ignore_errors=True)
        logs = self.record.logs if keep else ""
        self._report(Event("ended", self._reason, logs=logs, failed=self._failed, tail=self._tail))
        return int(self._failed)

    # ------------------------------------------------------------ reporting

    def _report(self, event: Event) -> None:
        # Nobody listens any more, `ipcluster start` has returned; or nobody reads, and waiting for them would be worse.
        with contextlib.suppress(OSError):
            os.write(self._events, event.to_json())

    def _send(self, message: m.Message) -> None:
        if self._link is not None:
            with contextlib.suppress(OSError, HpcError):  # gone: `_on_link` will find out
                self._link.send(message)

    def _log(self, text: str) -> None:
        print(time.strftime("%Y-%m-%d %H:%M:%S"), "supervisor:", text, file=sys.stderr, flush=True)

    def _any_tail(self) -> tuple[str, ...]:
        logs = [child.log for child in self._children.values()]
        return next((lines for log in logs if (lines := processes.tail(log))), ())

    def _take_over_output(self) -> None:
        """Have whatever this process prints from now on written to its log."""
        output = os.open(self._logs / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        os.close(output)
