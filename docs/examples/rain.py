"""Let it rain on a real mountain range, with MPI, from an interactive session.

    ipcluster run -n 4 --mpi -- docs/examples/rain.py [picture.png]

The ground is the Jacksboro fault in Tennessee: 344 x 403 measured elevations, about 90 m apart, that matplotlib ships. Rain
falls evenly; in each step every cell passes water on to its lower neighbours; brooks, rivers and lakes are what comes out.
Each rank holds a block of rows and exchanges the rows at its edges with the ranks above and below, over MPI. This
program is the client: it scatters the ground, says how much it rains, watches, gathers the water, checks it against the
answer of a single process, and draws it. It works with any number of ranks.
"""

import sys
import time

import numpy as np

import hpc

SHOWERS_MM = [40]*5
STEPS = 300  # in each act


# ---------------------------------------------------------------- what the ranks compute


def with_halo(block, value=None):
    """Put a row or column around a block: copies of its edge, or a value."""
    return np.pad(block, 1, mode="edge") if value is None else np.pad(block, 1, constant_values=value)


def exchange(block, line):
    """Fill the first and the last row of a block from the ranks above and below; collective over ``line``."""
    if line is None:
        return  # one process, which has all rows
    above, below = line.Shift(0, 1)  # at the ends of the line there is nobody, and MPI knows
    line.Sendrecv(block[-2], below, recvbuf=block[0], source=above)
    line.Sendrecv(block[1], above, recvbuf=block[-1], source=below)


def flow(ground, water, line, steps, rain_m):
    """Advance the water (m, with halo, in place) by some steps, while ``rain_m`` falls."""
    for _ in range(steps):
        water[1:-1, 1:-1] += rain_m / steps
        exchange(water, line)
        level = ground + water
        # Between two cells flows a fifth of what their levels differ by, but never more than a quarter of what is there.
        south = np.clip((level[:-1] - level[1:]) / 5, -water[1:] / 4, water[:-1] / 4)
        east = np.clip((level[:, :-1] - level[:, 1:]) / 5, -water[:, 1:] / 4, water[:, :-1] / 4)
        water[1:-1, 1:-1] += south[:-1, 1:-1] - south[1:, 1:-1] + east[1:-1, :-1] - east[1:-1, 1:]


def look(water, line):
    """Return the greatest depth and the mean depth (m) over all ranks."""
    inner = water[1:-1, 1:-1]
    deepest, volume, cells = inner.max(), inner.sum(), inner.size
    if line is not None:
        from mpi4py import MPI

        deepest = line.allreduce(deepest, op=MPI.MAX)
        volume, cells = line.allreduce(volume), line.allreduce(cells)
    return float(deepest), float(volume / cells)


# ---------------------------------------------------------------- what the client does


def main(picture="rain.png"):
    """Run the play."""
    import matplotlib.cbook

    elevation = matplotlib.cbook.get_sample_data("jacksboro_fault_dem.npz")["elevation"].astype(float)
    rc = hpc.connect()
    rc.wait_for_engines(1, timeout=60)
    v = rc[:]
    n = len(rc)
    if set(v["size"]) != {n}:
        raise SystemExit(f"these {n} engines are not one MPI group: start them with --mpi (ipcluster run -n {n} --mpi -- ...)")
    v.execute("import os, socket")
    for engine_id, rank, host, pid in zip(rc.ids, v["rank"], v.pull("socket.gethostname()"), v.pull("os.getpid()"), strict=True):
        print(f"engine {engine_id} is rank {rank} of {n}, pid {pid} on {host}")

    print(f"\nscattering {elevation.shape[0]} x {elevation.shape[1]} elevations, {elevation.min():.0f} to {elevation.max():.0f} m")
    v.scatter("land", elevation)
    v.push({"with_halo": with_halo, "exchange": exchange, "flow": flow, "look": look})
    v.execute(
        "import numpy as np\n"
        "line = comm.Create_cart([size]) if comm else None\n"
        "ground, water = with_halo(land), with_halo(np.zeros_like(land), 0.0)\n"
        "exchange(ground, line)\n"
    )
    print("rows on each rank:", ", ".join(str(rows) for rows in v.apply(lambda: land.shape[0])))  # noqa: F821 - the engine's
