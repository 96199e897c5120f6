"""`Cluster`: a controller and engines for one Python program, gone when it ends."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.cluster.options import ClusterOptions, default_n
from hpc.cluster.starter import Starter

if TYPE_CHECKING:
    from types import TracebackType

    from hpc.client import RemoteController


class Cluster:
    """Start a controller and ``n`` engines on this machine; as a context manager, yield the connected client.

    ::

        with hpc.Cluster(n=4) as rc:
            print(rc[:].apply(os.getpid))

    The cluster ends with the ``with`` block, or `stop`, or this process, whatever comes first. For one that stays use
    ``ipcluster start`` and `hpc.connect`, or `Cluster.from_name` here.

    Parameters
    ----------
    n : int, optional
        How many engines; as many as there are cores by default.
    launcher : {"local", "mpiexec"}
        How engines are started: as plain processes, or as the ranks of one ``mpirun``, with a live communicator.
    mpi : bool
        Short for ``launcher="mpiexec"``.
    name : str, optional
        Name to find it by; "default", or the next free one after it, if not given. A name that is in use is an error.
    ip, port, engine_port : str, int, int
        Where the controller listens, 0 being any free port. This machine only by default; ``"*"`` is all interfaces.
    timeout : float
        Seconds that the engines have to come up.
    log_level : str
        Of controller and engines: ``debug``, ``info``, ``warning`` or ``error``.
    """

    def __init__(
        self,
        n: int | None = None,
        *,
        launcher: str = "local",
        mpi: bool = False,
        name: str | None = None,
        ip: str = "127.0.0.1",
        port: int = 0,
        engine_port: int | None = None,
        timeout: float = 60.0,
        log_level: str = "info",
    ) -> None:
        import sys

        self._options = ClusterOptions(
            n=default_n() if n is None else n,
            name=name or "",
            launcher="mpiexec" if mpi else launcher,
            ip=ip,
            port=port,
            engine_port=-1 if engine_port is None else engine_port,
            start_timeout_s=timeout,
            log_level=log_level,
            argv=tuple(sys.argv),
        )
        self._name = name or ""
        self._attached = False  # to a cluster that some other process started
        self._starter: Starter | None = None
        self._rc: RemoteController | None = None

    @classmethod
    def from_name(cls, name: str) -> "Cluster":
        """Return the running cluster of that name, to `connect` to or `stop`; it stays when this process ends.

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
        cluster = cls(record.n if record else 0, launcher=record.launcher if record else "local", name=name)
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
        """How many engines it was started with."""
        return self._options.n

    @property
    def logs(self) -> Path:
        """The directory with the logs of controller and engines; removed at a clean end."""
        from hpc.cluster.record import LOGS
        from hpc.security.folders import clusters_dir

        return clusters_dir() / self._name / LOGS

    def start(self) -> "Cluster":
        """Start the cluster and wait until all engines are registered.

        Raises
        ------
        StartError
            It could not be started; the message carries the last lines of the logs.
        """
        if self._starter is not None or self._attached:
            raise RuntimeError(f"{self!r} has been started already")
        starter = Starter(self._options)
        try:
            # The client is needed next, and it takes its time to import: let that pass while the engines start.
            import hpc.client  # noqa: F401

            starter.wait_ready()
        except BaseException:  # Ctrl-C included: nothing may stay behind
            starter.stop()
            raise
        self._starter, self._name = starter, starter.name
        return self

    def connect(self) -> "RemoteController":
        """Return a new client of this cluster, connected."""
        import hpc.client

        return hpc.client.connect(self._name)

    def stop(self) -> None:
        """End the cluster, and wait until nothing of it is left. Does nothing if it has ended already."""
        if self._rc is not None:
            self._rc.close()
            self._rc = None
        if self._starter is not None:
            ended = self._starter.stop()
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

    def __enter__(self) -> "RemoteController":
        if self._starter is None and not self._attached:
            self.start()
        try:
            self._rc = self.connect()
            self._rc.wait_for_engines(self.n, timeout=self._options.start_timeout_s)
        except BaseException:
            self.stop()
            raise
        return self._rc

    def __exit__(
        self, kind: "type[BaseException] | None", value: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        self.stop()

    def __getstate__(self) -> Any:
        raise TypeError(f"{self!r} holds processes and cannot be pickled: pass its name on, and connect to that")
