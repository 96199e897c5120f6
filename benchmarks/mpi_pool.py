"""The map's MPI peer: ``mpiexec -n 5 python -m mpi4py.futures -m benchmarks.mpi_pool ITEMS REPEATS CHUNKSIZE...``.

Runs on its own, in the Python that has the Open MPI. Prints one line of JSON: the median seconds of each chunk size.
"""

import json
import statistics
import sys
import time

from mpi4py import MPI
from mpi4py.futures import MPIPoolExecutor

from benchmarks.work import increment


def main(n_items: int, repeats: int, chunksizes: list[int]) -> None:
    items = list(range(n_items))
    expected = [increment(x) for x in items]
    seconds: dict[int, list[float]] = {size: [] for size in chunksizes}
    with MPIPoolExecutor() as pool:
        pool.bootup(wait=True)
        list(pool.map(increment, items[:1000], chunksize=10))
        for _ in range(repeats):
            for size in chunksizes:
                start = time.perf_counter()
                result = list(pool.map(increment, items, chunksize=size))
                seconds[size].append(time.perf_counter() - start)
                if result != expected:
                    raise AssertionError("wrong result")
        workers = pool.num_workers
    medians = {str(size): statistics.median(values) for size, values in seconds.items()}
    library = MPI.Get_library_version().split(",")[0]
    print(json.dumps({"library": library, "workers": workers, "seconds": medians}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), [int(size) for size in sys.argv[3:]])
