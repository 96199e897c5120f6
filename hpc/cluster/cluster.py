"""`Cluster`: a controller and engines for one Python program, gone when it ends."""

import contextlib
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.cluster.options import DONE_S, PLACES, ClusterOptions, GroupRow, resolve
from hpc.cluster.starter import Starter
from hpc.errors import HpcError

if TYPE_CHECKING:
    from types import TracebackType

    from hpc.client import RemoteController


class Cluster:
    """Start a controller and ``n`` engines; ``with`` and ``async with`` yield the connected client.

    ::

        with hpc.Cluster(n=4) as rc:
            print(rc[:].apply(os.getpid))

        with hpc.Cluster(n=64, launcher="slurm", walltime="2:00:00") as rc:
            ...

    The cluster ends with the ``with`` block, or `stop`, or this process, whatever comes first; so do its jobs. For one
    that stays use ``ipcluster start`` and `hpc.connect`, or `Cluster.from_name` here.

    Parameters
    ----------
    n : int, optional
        How many engines. By default as many as there are cores, or as ``nodes`` and ``ranks_per_node`` make.
    launcher : {"local", "mpiexec", "slurm", "pbs", "torque"}
        How engines are started: as plain processes; as the ranks of one ``mpirun``, with a live communicator; or as the
        ranks of a job. The controller runs here, and jobs must be able to read the directory of `hpc` (``HPC_DIR``).
    mpi : bool
        Short for ``launcher="mpiexec"``.
    name : str, optional
        Name to find it by; "default", or the next free one after it, if not given. A name that is in use is an error.
    ip, port, engine_port : str, int, int
        Where the controller listens, 0 being any free port. By default at all interfaces (``"*"``) where engines run on
        other machines, else at this machine's own only.
    timeout : float
        Seconds that the engines have to come up; for jobs, from the start of the job on.
    log_level : str
        Of controller and engines: ``debug``, ``info``, ``warning`` or ``error``.
    hostfile : str, optional
        For ``mpiexec``: the machines to start ranks on, in a file as that ``mpirun`` reads it.
    policy : {"report", "restart", "survivors"}
        What comes of it when an engine crashes: nothing but the news; new processes for its group, under the same ids;
        or, for ``mpiexec``, the other ranks go on without it, if their MPI lets them.
    site : str, optional
        For jobs: a profile of this site (docs/howto/clusters.md).
    controller : {"here", "first-node", "job"}
        For jobs: where the controller runs, here or on the first node of the job or in a job of its own. What runs in
        jobs alone cannot be scaled, and ends with `stop` or its walltime, not with this process.
    keep : bool
        For jobs: submit another one when one has reached its walltime or its node has failed.
    **job
        For jobs: ``walltime``, ``nodes``, ``ranks_per_node``, ``queue``, ``account``, and all other fields of
        `jobscripts.JobSpec`.
    """

    def __init__(
        self,
        n: int | None = None,
        *,
        launcher: str = "local",
        mpi: bool = False,
        name: str | None = None,
        ip: str | None = None,
        port: int = 0,
        engine_port: int | None = None,
        timeout: float = 60.0,
        log_level: str = "info",
        hostfile: str = "",
        policy: str = "report",
        site: str = "",
        controller: str = "here",
        keep: bool = False,
        **job: Any,
    ) -> None:
        import sys

        options = ClusterOptions(
            n=-1 if n is None else n,
            name=name or "",
            launcher="mpiexec" if mpi else launcher,
            ip=ip or "",
            port=port,
            engine_port=-1 if engine_port is None else engine_port,
            start_timeout_s=timeout,
            log_level=log_level,
            argv=tuple(sys.argv),
            hostfile=hostfile,
            policy=policy,
            site=site,
            keep=keep,
            job=job,
        )
        self._options = resolve(options, n_given=n is not None)
        if controller not in PLACES or (controller != "here" and (keep or not self._options.by_jobs)):
            raise ValueError(f"controller is {controller!r}: {PLACES[0]!r}, or, in jobs and without keep, {PLACES[1:]}")
        self._controller = controller
        self._given_up = False
        self._name = name or ""
        self._attached = False  # to a cluster that some other process started
        self._starter: Starter | None = None
        self._starting: Starter | None = None
        self._rc: RemoteController | None = None
        self._stopping = threading.RLock()

    @classmethod
    def from_name(cls, name: str) -> "Cluster":
        """Return the running cluster of that name, to `connect` to, `scale` or `stop`; it stays when this process ends.

        Raises
        ------
        ConnectError
            No such cluster is running; the message says which are.
        """
        from hpc.cluster.record import entries
        from hpc.errors import ConnectError

        found = {entry.name: entry for entry in entries()}
        entry = found.get(name)
        if entry is None or entry.gone:
            running = ", ".join(repr(e.name) for e in found.values() if not e.gone) or "none"
            why = f": {entry.gone}" if entry is not None else ""
            raise ConnectError(f"no cluster named {name!r} is running{why} (running: {running})")
        record = entry.record
        cluster = cls(record.n if record else 0, name=name)
        if record is not None:
            cluster._options = cluster._options._replace(launcher=record.launcher)
        cluster._attached = True
        return cluster

    def __repr__(self) -> str:
        state = "running" if self._starter is not None else "started elsewhere" if self._attached else "not running"
        return f"<Cluster {self._name or '(unnamed)'}: {self._options.n} engines by {self._options.launcher}, {state}>"

    @property
    def name(self) -> str:
        """The name of the cluster; "" before it is started, if none was chosen."""
        return self._name

    @property
    def n(self) -> int:
        """How many engines it was started with, or was last scaled to here."""
        return self._options.n

    @property
    def logs(self) -> Path:
        """The directory with the logs of controller and engines; removed at a clean end."""
        from hpc.cluster.record import LOGS
        from hpc.security.folders import clusters_dir

        return clusters_dir() / self._name / LOGS

    # ------------------------------------------------------------ start and end

    def start(self) -> "Cluster":
        """Start the cluster and wait until all engines are registered.

        Raises
        ------
        StartError
            It could not be started; the message carries the last lines of the logs.
        """
        if self._starter is not None or self._attached:
            raise RuntimeError(f"{self!r} has been started already")
        if self._controller != "here":
            self._start_there()
            return self
        starter = self._starting = Starter(self._options)
        try:
            # The client is needed next, and it takes its time to import: let that pass while the engines start.
            import hpc.client  # noqa: F401

            starter.wait_ready()
        except BaseException:  # Ctrl-C included: nothing may stay behind
            starter.stop(DONE_S if self._options.by_jobs else 15.0)
            raise
        finally:
            self._starting = None
        self._starter, self._name = starter, starter.name
        return self

    def _start_there(self) -> None:
        """Submit what runs in jobs alone, and wait until it is usable."""
        import logging

        from hpc.cluster import submitted

        jobs = submitted.start(self._options, self._controller)
        try:
            show = logging.getLogger("hpc.cluster").info
            submitted.wait_usable(jobs, self._options, show, lambda: self._given_up)
        except BaseException:  # Ctrl-C included: nothing may stay in the queue
            submitted.end(jobs)
            raise
        self._name, self._attached = jobs[0].cluster, True

    async def start_async(self) -> "Cluster":
        """Do as `start`, and let other tasks of the event loop run meanwhile; cancelled, leave nothing behind."""
        import asyncio

        work = asyncio.ensure_future(asyncio.to_thread(self.start))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self._given_up = True
            while self._controller == "here" and self._starting is None and not work.done():
                await asyncio.sleep(0.01)  # the thread has not come as far as starting something
            if self._starting is not None:
                self._starting.interrupt()
            with contextlib.suppress(HpcError):
                await work
                await self.stop_async()  # it had become ready in that moment
            raise

    def connect(self) -> "RemoteController":
        """Return a new client of this cluster, connected."""
        import hpc.client

        return hpc.client.connect(self._name)

    def stop(self) -> None:
        """End the cluster, and wait until nothing of it is left. Does nothing if it has ended already."""
        with self._stopping:  # two threads may want to, as when an executor ends by itself
            self._stop()

    def _stop(self) -> None:
        if self._rc is not None:
            self._rc.close()
            self._rc = None
        if self._starter is not None:
            ended = self._starter.stop(DONE_S if self._options.by_jobs else 15.0)
            self._starter = None
            if ended.logs:
                import logging

                what = ended.text if ended.failed else "an engine had crashed"
                log = logging.getLogger("hpc.cluster")
                log.warning("cluster %r has ended, its logs stay in %s: %s", self._name, ended.logs, what)
        elif self._attached:
            from hpc.cluster.ending import stop
            from hpc.cluster.record import find_entry

            entry = find_entry(self._name)
            if entry is not None:
                stop(entry)

    async def stop_async(self) -> None:
        """Do as `stop`, and let other tasks of the event loop run meanwhile."""
        import asyncio

        await asyncio.to_thread(self.stop)

    # ------------------------------------------------------------ engines

    @property
    def groups(self) -> list[GroupRow]:
        """The groups of engines that were started, each with its job if it has one."""
        return [GroupRow(**{**row, "nodes": tuple(row["nodes"])}) for row in self._order("groups")]

    def scale(self, n: int, *, timeout: float | None = None) -> None:
        """Start or end engines until there are ``n`` in all; return when they are there, or gone.

        Groups end as a whole, those first that are idle. New engines are a group of their own.

        Raises
        ------
        HpcError
            There are no groups whose end gives this total; it says which totals can be had.
        TimeoutError
            The engines are not there after ``timeout`` seconds; more may come later, as when a job waits in the queue.
        """
        self._order("scale", n=n)
        self._options = self._options._replace(n=n)
        rc = self._rc if self._rc is not None else self.connect()
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        try:
            while len(rc.ids) != n:
                if time.monotonic() > deadline:
                    raise TimeoutError(self._describe(len(rc.ids), n, timeout))
                time.sleep(0.01)
        finally:
            if rc is not self._rc:
                rc.close()

    def _describe(self, present: int, wanted: int, timeout_s: float | None) -> str:
        from hpc.cluster.jobs import describe

        open_ = [describe(group) for group in self.groups if group.state != "running"]
        return "; ".join([f"{present} engines instead of {wanted} after {timeout_s:g} s", *open_])

    def adapt(self, minimum: int, maximum: int, *, interval_s: float = 5.0, idle_s: float = 60.0) -> None:
        """Let the number of engines follow the load from now on, until `scale` is called; return at once.

        Parameters
        ----------
        minimum, maximum : int
            Fewer or more engines there shall not be.
        interval_s : float
            Seconds between two looks at what is waiting.
        idle_s : float
            Seconds for which fewer engines must have been enough before some are ended.
        """
        self._order("adapt", minimum=minimum, maximum=maximum, interval_s=interval_s, idle_s=idle_s)

    def _order(self, what: str, **arguments: Any) -> Any:
        if self._rc is not None:
            return self._rc.order(what, **arguments)
        rc = self.connect()
        try:
            return rc.order(what, **arguments)
        finally:
            rc.close()

    # ------------------------------------------------------------ with

    def __enter__(self) -> "RemoteController":
        if self._starter is None and not self._attached:
            self.start()
        try:
            self._rc = self.connect()
            if not self._attached:
                self._rc.wait_for_engines(self.n, timeout=self._options.start_timeout_s)
        except BaseException:
            self.stop()
            raise
        return self._rc

    def __exit__(
        self, kind: "type[BaseException] | None", value: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        self.stop()

    async def __aenter__(self) -> "RemoteController":
        import asyncio

        if self._starter is None and not self._attached:
            await self.start_async()
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self, kind: "type[BaseException] | None", value: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        await self.stop_async()

    def __getstate__(self) -> Any:
        raise TypeError(f"{self!r} holds processes and cannot be pickled: pass its name on, and connect to that")
