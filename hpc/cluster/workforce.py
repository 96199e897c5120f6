"""The engines of a cluster: in which groups they were started, and how their number is changed while it runs."""

import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from hpc.cluster import children, mpirun, processes
from hpc.cluster.children import Child
from hpc.cluster.groups import EngineGroup, choose_leaving, total
from hpc.cluster.jobs import Jobs
from hpc.cluster.link import Questions
from hpc.cluster.options import ClusterOptions, Event, GroupRow
from hpc.security.folders import cluster_dir
from hpc.security.host import hostname, start_ticks
from hpc.wire import messages as m

# What a group that leaves may take before its processes get a signal, too.
LEAVE_S: Final = 10.0
_FULL: Final = (
    "the engines of this cluster fill its job: more of them come by another one,"
    " ipcluster submit SCHEDULER engines --name {name} ..."
)
# Job scripts are for bash, and so are the lines in them.
_SHELL: Final = "/bin/bash"


class Supervising(Protocol):
    """What the engines' side of a supervisor needs of the rest of it."""

    name: str
    logs: Path
    children: dict[int, Child]

    def fork(self, kind: str, label: str, run: Callable[[], int], on_death: int) -> Child:
        """Start a child that goes on with ``run``."""

    def send(self, message: m.Message) -> None:
        """Tell the controller."""

    def report(self, event: Event) -> None:
        """Tell whoever started the cluster."""

    def log(self, text: str) -> None:
        """Tell the log."""

    def changed(self, rows: tuple[GroupRow, ...]) -> None:
        """Write down which groups there are."""

    def fail(self, reason: str, tail: Sequence[str] = ()) -> None:
        """Take note that engines could not be started, or have not stayed."""

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back when there is something to read."""

    def unwatch(self, fd: int) -> None:
        """Call back no more."""


class Workforce:
    """All engines that a supervisor has started and that have not ended."""

    def __init__(self, supervisor: Supervising, questions: Questions, options: ClusterOptions) -> None:
        self._supervisor = supervisor
        self._questions = questions
        self._options = options
        # By its file, not by its name: mpirun may not tell ranks on other machines what HPC_DIR is.
        self._connection = f"--connection-file={cluster_dir(supervisor.name) / 'engine.json'}"
        self._groups: dict[str, EngineGroup] = {}
        self._n_started = 0
        self.mpirun = ""
        self.jobs = Jobs(supervisor, options, self._on_job) if options.by_jobs else None

    def __repr__(self) -> str:
        return f"<Workforce {self.wanted} engines in {len(self._groups)} groups by {self._options.launcher}>"

    @property
    def wanted(self) -> int:
        """How many engines there are, or will be once all that were started have come."""
        return total(self._groups.values())

    @property
    def group_size(self) -> int:
        """How many engines are best started together: one process, or as many as the first group has."""
        return 1 if self._options.launcher == "local" else next((g.n for g in self._groups.values()), self._options.n)

    @property
    def waits_for_a_job(self) -> bool:
        """Whether it is the scheduler that decides when engines start."""
        return self.jobs is not None and any(group.state in ("starting", "pending") for group in self._groups.values())

    def rows(self) -> tuple[GroupRow, ...]:
        """Return all groups, for people."""
        return tuple(group.row() for group in self._groups.values())

    # ------------------------------------------------------------ more

    def start(self, n: int) -> list[str]:
        """Start ``n`` more engines and return the labels of their groups."""
        if not n:
            return []
        if self._options.launcher == "local":
            labels = [self._start_local() for _ in range(n)]
        elif self.jobs is not None:
            labels = [self._start_job(n)]
        elif self._options.launches and not self._n_started:
            labels = [self._start_mpirun(ranks, line) for ranks, line in self._options.launches]
        else:
            labels = [self._start_mpirun(n, "")]
        self._supervisor.changed(self.rows())
        return [label for label in labels if label]

    def _label(self, kind: str, n: int) -> str:
        label = f"{kind}-{self._n_started}"
        self._n_started += n
        return label

    def _start_local(self) -> str:
        from hpc.engine.start import EngineOptions, run_engine

        engine = EngineOptions(name=self._supervisor.name, mpi=False, log_level=self._options.log_level)
        label = self._label("engine", 1)
        child = self._supervisor.fork("engine", label, lambda: run_engine(engine), signal.SIGKILL)
        self._groups[label] = EngineGroup(label, 1, "running", child.pid)
        return label

    def _start_mpirun(self, n: int, line: str) -> str:
        label = self._label("mpirun", n)
        program = [sys.executable, "-m", "hpc.cli.ipengine", "--mpi", f"--label={label}", self._connection]
        environment = dict(os.environ)
        if line:  # a job script has worked out how ranks are started here
            command, said = [_SHELL, "-c", f"exec {line} {shlex.join(program)}"], line
        else:
            try:
                tool = mpirun.find()
            except FileNotFoundError as error:
                self._supervisor.send(m.Group(label, n, str(error)))
                self._supervisor.fail(str(error))
                return ""
            command = tool.command(n, program, self._options.hostfile)
            said = self.mpirun = str(tool)
            if not self._options.hostfile:
                environment = tool.environment(os.environ, n)
        self._supervisor.log(f"starting {n} engines with {said}: {' '.join(command)}")
        self._supervisor.report(Event("launcher", f"starting {n} engines with {said}"))
        log = self._supervisor.logs / f"{label}.log"
        pid = children.execute(command, environment, log, signal.SIGTERM)
        self._supervisor.children[pid] = Child("mpirun", pid, start_ticks(pid), label, log, n=n)
        self._groups[label] = EngineGroup(label, n, "running", pid)
        self._supervisor.send(m.Group(label, n))
        return label

    def _start_job(self, n: int) -> str:
        assert self.jobs is not None  # noqa: S101 - the caller has looked
        label = self._label(self._options.launcher, n)
        self._groups[label] = EngineGroup(label, n)
        self.jobs.submit(label, n)
        return label

    def all_here(self) -> None:
        """Take note that all engines are registered, which the scheduler will only say when it is asked next."""
        for group in self._groups.values():
            group.state, group.reason = "running", ""
        self._supervisor.changed(self.rows())

    # ------------------------------------------------------------ fewer

    def scale(self, n: int, then: Callable[[Any, str], None]) -> None:
        """Bring the number of engines to ``n``; call ``then`` with what was begun, or what is wrong with it."""
        if n < 0:
            then(None, f"{n} engines cannot be: name a total from 0 on")
        elif n > self.wanted and self._options.launches:
            then(None, _FULL.format(name=self._supervisor.name))
        elif n >= self.wanted:
            then({"started": self.start(n - self.wanted), "leaving": []}, "")
        else:
            self._questions.query("status", lambda status: self._shrink(n, status["engines"], then))

    def _shrink(self, n: int, engines: list[dict[str, Any]], then: Callable[[Any, str], None]) -> None:
        """Choose who leaves, now that it is known who is busy."""
        here = hostname()
        members = {
            label: [engine for engine in engines if group.holds(engine, here)] for label, group in self._groups.items()
        }
        busy = [label for label, found in members.items() if any(engine["state"] == "busy" for engine in found)]
        try:
            leaving = choose_leaving(self._groups.values(), self.wanted - n, busy)
        except ValueError as error:
            then(None, str(error))
            return
        ids = []
        for group in leaving:
            there = [engine["id"] for engine in members[group.label]]
            ids += there
            pending = group.state != "running"
            group.state = "leaving"
            if self.jobs is not None:
                self.jobs.cancel(group.label, 0.0 if pending else LEAVE_S)
            elif len(there) < group.n:
                # Ranks that are not registered yet hear nothing of the controller, and the others would wait for them.
                self._signal(group)
        if ids:
            self._questions.shut_down(ids)
        self._supervisor.changed(self.rows())
        then({"started": [], "leaving": [group.label for group in leaving]}, "")

    def _signal(self, group: EngineGroup) -> None:
        processes.send_signal(group.pid, signal.SIGTERM)

    # ------------------------------------------------------------ what becomes of them

    def ended(self, child: Child) -> bool:
        """Take note that a process has ended; say whether its engines were to leave."""
        group = self._groups.pop(child.label, None)
        if group is not None:
            self._supervisor.changed(self.rows())
        return group is not None and group.state == "leaving"

    def _on_job(self, row: GroupRow, over: bool, again: bool) -> None:
        """Take note of how a job stands; ``over``: it has ended; ``again``: in a way that another one may go better."""
        group = self._groups.get(row.label)
        if group is None:
            return
        leaving = group.state == "leaving"
        group.job, group.reason, group.nodes = row.job, row.reason, row.nodes
        group.start_s, group.end_s = row.start_s, row.end_s
        if not leaving:
            group.state = row.state
        if over:
            del self._groups[row.label]
            if not leaving:
                self._replace(group, row, again)
        self._supervisor.changed(self.rows())

    def _replace(self, group: EngineGroup, row: GroupRow, again: bool) -> None:
        what = f"{f'job {row.job}' if row.job else row.label} with {group.n} engines has ended: {row.reason}"
        if self._options.keep and again:
            self._supervisor.log(f"{what}; submitting another one")
            self._start_job(group.n)
        else:
            self._supervisor.fail(what, processes.tail(self._supervisor.logs / f"{group.label}.log"))
