"""Arrays moved by the peers: one process for each of them, which does what it is told and says how long that took.

``python -m benchmarks.array_peers dask`` starts it in the Python that has the peer; a line of its standard input is
what to move and how many bytes, a line of its output the seconds. Each peer does it in its best way that a user would
write: dask straight to the workers, Ray by its object store, loky with arrays as arguments and results.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from benchmarks.work import give, keep

N_WORKERS = 4
NAMES = ("ipyparallel", "dask", "ray", "loky")


class Peer(Protocol):
    """What every peer is asked for: ``pull`` and ``gather`` return as much as ``push`` and ``scatter`` have sent."""

    def push(self, array: Any) -> None:
        """Send an array to one worker."""

    def pull(self, nbytes: int) -> Any:
        """Return an array of one worker."""

    def scatter(self, array: Any) -> None:
        """Send each worker its part."""

    def gather(self, nbytes: int) -> Any:
        """Return the parts as one array."""

    def broadcast(self, array: Any) -> None:
        """Send an array to all workers."""


class _Ipyparallel:
    def __init__(self) -> None:
        import ipyparallel

        self.rc = ipyparallel.Cluster(n=N_WORKERS, log_level=40).start_and_connect_sync()

    def push(self, array: Any) -> None:
        self.rc[0].push({"x": array}, block=True)

    def pull(self, nbytes: int) -> Any:
        return self.rc[0].pull("x", block=True)

    def scatter(self, array: Any) -> None:
        self.rc[:].scatter("part", array, block=True)

    def gather(self, nbytes: int) -> Any:
        return self.rc[:].gather("part", block=True)

    def broadcast(self, array: Any) -> None:
        self.rc[:].push({"x": array}, block=True)


class _Dask:
    def __init__(self) -> None:
        from distributed import Client, LocalCluster

        cluster = LocalCluster(n_workers=N_WORKERS, threads_per_worker=1, dashboard_address=None)
        self.client = Client(cluster)
        self.workers = list(self.client.scheduler_info()["workers"])
        self.one: Any = None
        self.parts: list[Any] = []

    def _send(self, data: Any, **where: Any) -> Any:
        from distributed import wait

        future = self.client.scatter(data, direct=True, hash=False, **where)
        wait(future)
        return future

    def push(self, array: Any) -> None:
        self.one = self._send(array, workers=self.workers[:1])

    def pull(self, nbytes: int) -> Any:
        return self.client.gather(self.one, direct=True)

    def scatter(self, array: Any) -> None:
        self.parts = self._send(np.split(array, N_WORKERS))

    def gather(self, nbytes: int) -> Any:
        return np.concatenate(self.client.gather(self.parts, direct=True))

    def broadcast(self, array: Any) -> None:
        self.one = self._send(array, broadcast=True)


class _Ray:
    def __init__(self) -> None:
        import ray

        ray.init(num_cpus=N_WORKERS, include_dashboard=False, log_to_driver=False, object_store_memory=4 << 30)
        self.get, self.put = ray.get, ray.put

        class Holder:
            def keep(self, array: Any) -> int:
                self.array = array
                return int(array[0])

            def give(self) -> Any:
                return self.array

        self.workers = [ray.remote(Holder).remote() for _ in range(N_WORKERS)]

    def push(self, array: Any) -> None:
        self.get(self.workers[0].keep.remote(self.put(array)))

    def pull(self, nbytes: int) -> Any:
        return self.get(self.workers[0].give.remote())

    def scatter(self, array: Any) -> None:
        parts = np.split(array, N_WORKERS)
        self.get([worker.keep.remote(self.put(part)) for worker, part in zip(self.workers, parts, strict=True)])

    def gather(self, nbytes: int) -> Any:
        return np.concatenate(self.get([worker.give.remote() for worker in self.workers]))

    def broadcast(self, array: Any) -> None:
        held = self.put(array)
        self.get([worker.keep.remote(held) for worker in self.workers])


class _Pool:
    """An executor, whose workers cannot be told apart."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    def push(self, array: Any) -> None:
        self.pool.submit(keep, array).result()

    def pull(self, nbytes: int) -> Any:
        return self.pool.submit(give, nbytes).result()

    def scatter(self, array: Any) -> None:
        for future in [self.pool.submit(keep, part) for part in np.split(array, N_WORKERS)]:
            future.result()

    def gather(self, nbytes: int) -> Any:
        futures = [self.pool.submit(give, nbytes // N_WORKERS) for _ in range(N_WORKERS)]
        return np.concatenate([future.result() for future in futures])

    def broadcast(self, array: Any) -> None:
        for future in [self.pool.submit(keep, array) for _ in range(N_WORKERS)]:
            future.result()


def start(name: str) -> Peer:
    """Start a peer with its workers."""
    if name == "loky":
        import loky

        return _Pool(loky.ProcessPoolExecutor(N_WORKERS))
    peers: dict[str, Callable[[], Peer]] = {"ipyparallel": _Ipyparallel, "dask": _Dask, "ray": _Ray}
    return peers[name]()


def move(peer: Peer, what: str, array: Any) -> float:
    """Do it once; return the seconds."""
    argument = array.nbytes if what in ("pull", "gather") else array
    begin = time.perf_counter()
    result = getattr(peer, what)(argument)
    seconds = time.perf_counter() - begin
    if result is not None and result.nbytes != array.nbytes:
        raise AssertionError(f"{what} gave {result.nbytes} bytes, not {array.nbytes}")
    return seconds


def main(name: str) -> None:
    """Serve until the input ends."""
    peer = start(name)
    sources: dict[int, Any] = {}
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        what, nbytes = json.loads(line)
        if nbytes not in sources:
            sources[nbytes] = np.random.default_rng(nbytes).integers(0, 255, nbytes, dtype=np.uint8)
        print(json.dumps(move(peer, what, sources[nbytes])), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
