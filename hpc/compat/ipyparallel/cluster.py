"""`Cluster` under ipyparallel's names: each method may be awaited, and has a twin that ends in ``_sync``."""

import asyncio
from types import TracebackType
from typing import Any, Self

import hpc
from hpc.compat.ipyparallel.client import Client, name_of

_LAUNCHERS = {"": "local", "local": "local", "mpi": "mpiexec", "slurm": "slurm", "pbs": "pbs", "torque": "torque"}


class Cluster:
    """Start a controller and ``n`` engines; ``with`` and ``async with`` yield the connected client.

    Parameters
    ----------
    n : int, optional
        How many engines.
    engines : str
        How they are started: ``local``, ``mpi``, ``slurm``, ``pbs``.
    profile, cluster_id : str
        Together the name of the cluster; "default" if neither is given.
    controller_ip : str, optional
        Where the controller listens.
    engine_timeout : float
        Seconds that the engines have to come up.
    **options
        As for `hpc.Cluster`.
    """

    def __init__(
        self,
        n: int | None = None,
        *,
        engines: str = "local",
        profile: str = "",
        cluster_id: str = "",
        controller_ip: str | None = None,
        engine_timeout: float = 60.0,
        **options: Any,
    ) -> None:
        kind = engines.lower().removesuffix("enginesetlauncher") if isinstance(engines, str) else engines
        if kind not in _LAUNCHERS:
            raise NotImplementedError(f"engines can be {', '.join(filter(None, _LAUNCHERS))}, not {engines!r}")
        name = name_of(profile, cluster_id) or None
        self._cluster = hpc.Cluster(
            n, launcher=_LAUNCHERS[kind], name=name, ip=controller_ip, timeout=engine_timeout, **options
        )
        self._client: Client | None = None

    @classmethod
    def from_file(cls, *, profile: str = "", cluster_id: str = "") -> Self:
        """Return the running cluster of that name."""
        cluster = cls(0)
        cluster._cluster = hpc.Cluster.from_name(name_of(profile, cluster_id) or "default")
        return cluster

    def __repr__(self) -> str:
        return f"<ipyparallel's {self._cluster!r}>"

    @property
    def cluster_id(self) -> str:
        """The name of the cluster."""
        return self._cluster.name

    @property
    def n(self) -> int:
        """How many engines it was started with."""
        return self._cluster.n

    # ------------------------------------------------------------ start and end

    def start_cluster_sync(self) -> Self:
        """Start controller and engines; return this object."""
        self._cluster.start()
        return self

    def connect_client_sync(self) -> Client:
        """Return a new client, connected."""
        client = Client(cluster_id=self._cluster.name)
        client.connect()
        return client

    def start_and_connect_sync(self, n: int | None = None, activate: bool = False) -> Client:
        """Start the cluster, wait for its engines, and return a client; with ``activate`` have ``%px`` use it."""
        if n is not None and n != self.n:
            raise ValueError(f"give the number of engines to Cluster(n={n}), not here")
        self.start_cluster_sync()
        client = self.connect_client_sync()
        client.wait_for_engines(self.n)
        if activate:
            client.activate()
        return client

    def stop_cluster_sync(self) -> None:
        """End engines and controller."""
        if self._client is not None:
            self._client.close()
            self._client = None
        self._cluster.stop()

    async def start_cluster(self) -> Self:
        """Start controller and engines; return this object."""
        await self._cluster.start_async()
        return self

    async def connect_client(self) -> Client:
        """Return a new client, connected."""
        return await asyncio.to_thread(self.connect_client_sync)

    async def start_and_connect(self, n: int | None = None, activate: bool = False) -> Client:
        """Start the cluster, wait for its engines, and return a client."""
        return await asyncio.to_thread(self.start_and_connect_sync, n, activate)

    async def stop_cluster(self) -> None:
        """End engines and controller."""
        await asyncio.to_thread(self.stop_cluster_sync)

    # ------------------------------------------------------------ engines

    def start_engines_sync(self, n: int) -> None:
        """Start ``n`` more engines."""
        with self.connect_client_sync() as client:
            self._cluster.scale(len(client) + n)

    def stop_engines_sync(self, engine_set_id: None = None) -> None:
        """End all engines; the controller stays."""
        with self.connect_client_sync() as client:
            client.shutdown()

    def restart_engines_sync(self, engine_set_id: None = None) -> None:
        """Give all engines new processes; they keep their ids."""
        with self.connect_client_sync() as client:
            client.restart_engines()

    def signal_engines_sync(self, signum: int, engine_set_id: None = None) -> None:
        """Interrupt what the engines run: SIGINT is the one signal that can be sent."""
        with self.connect_client_sync() as client:
            client.send_signal(signum)

    async def start_engines(self, n: int) -> None:
        """Start ``n`` more engines."""
        await asyncio.to_thread(self.start_engines_sync, n)

    async def stop_engines(self, engine_set_id: None = None) -> None:
        """End all engines; the controller stays."""
        await asyncio.to_thread(self.stop_engines_sync)

    async def restart_engines(self, engine_set_id: None = None) -> None:
        """Give all engines new processes; they keep their ids."""
        await asyncio.to_thread(self.restart_engines_sync)

    async def signal_engines(self, signum: int) -> None:
        """Interrupt what the engines run."""
        await asyncio.to_thread(self.signal_engines_sync, signum)

    # ------------------------------------------------------------ with

    def __enter__(self) -> Client:
        self._client = self.start_and_connect_sync()
        return self._client

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_cluster_sync()

    async def __aenter__(self) -> Client:
        self._client = await self.start_and_connect()
        return self._client

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop_cluster()
