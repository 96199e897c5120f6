"""Let it rain on real mountains: an MPI computation, driven interactively.

    ipcluster run -n 4 --mpi -- docs/examples/rain.py [picture.png]

The ground is the Jacksboro fault in Tennessee: 344 x 403 measured elevations, about 90 m apart, that come with
matplotlib. Rain falls everywhere alike. In each step every cell passes water on to its lower neighbours, and brooks,
rivers and lakes appear.

Each engine holds a block of rows; before each step it exchanges the rows at its edges with the ranks above and below,
through MPI. This script is the client: it hands out the ground, lets it rain, watches, collects the water, compares it
with what one process alone computes, and draws it. It works with any number of ranks.
"""

import sys
import time

import numpy as np

import hpc

SHOWERS_MM = [40, 40, 40, 40, 40]
STEPS = 300  # in each shower


# ---------------------------------------------------------------- what runs on the engines


def settle(land, comm):
    """Return ground and water (m) with a border of one cell around this rank's block, and the line of ranks."""
    line = comm.Create_cart([comm.size]) if comm else None
    ground, water = np.pad(land, 1, mode="edge"), np.pad(np.zeros_like(land), 1)
    exchange(ground, line)
    return ground, water, line


def exchange(block, line):
    """Fill the border rows of a block with the outermost rows of the ranks above and below. All ranks must call."""
    if line:  # without MPI there is one rank, which has all rows
        above, below = line.Shift(0, 1)  # at either end nobody, which MPI knows: nothing is sent, the border stays
        line.Sendrecv(block[-2], below, recvbuf=block[0], source=above)
        line.Sendrecv(block[1], above, recvbuf=block[-1], source=below)


def flow(ground, water, line, rain, steps):
    """Let `rain` (m) fall in some steps, and the water run; return this rank's greatest depth and the mean of all."""
    for _ in range(steps):
        water[1:-1, 1:-1] += rain / steps
        exchange(water, line)
        level = ground + water
        # Between two cells flows a fifth of what their levels differ by, at most a quarter of what the higher one has.
        south = np.clip((level[:-1] - level[1:]) / 5, -water[1:] / 4, water[:-1] / 4)
        east = np.clip((level[:, :-1] - level[:, 1:]) / 5, -water[:, 1:] / 4, water[:, :-1] / 4)
        water[1:-1, 1:-1] += south[:-1, 1:-1] - south[1:, 1:-1] + east[1:-1, :-1] - east[1:-1, 1:]
    here = water[1:-1, 1:-1]
    volume, cells = (line.allreduce(here.sum()), line.allreduce(here.size)) if line else (here.sum(), here.size)
    return float(here.max()), float(volume / cells)


# ---------------------------------------------------------------- what the client does


def main(picture="rain.png"):
    """Hand out, watch, collect, compare, draw; return the exit status."""
    import matplotlib.cbook

    elevation = matplotlib.cbook.get_sample_data("jacksboro_fault_dem.npz")["elevation"].astype(float)
    rows, columns = elevation.shape

    rc = hpc.connect().wait_for_engines(1, timeout=60)
    v = rc[:]
    if set(v["size"]) != {len(v)}:
        print(f"These {len(v)} engines are not one MPI group: start them with --mpi.", file=sys.stderr)
        return 1
    v.execute("import os, socket; me = os.getpid(), socket.gethostname()")
    for engine_id, rank, (pid, host) in zip(rc.ids, v["rank"], v["me"], strict=True):
        print(f"engine {engine_id}: rank {rank} of {len(v)}, process {pid} on {host}")

    print(f"\nscattering {rows} x {columns} elevations of {elevation.min():.0f} to {elevation.max():.0f} m, by rows")
    v.scatter("land", elevation)
    v.push({"settle": settle})
    v.execute("ground, water, line = settle(land, comm)")
    blocks = v.apply(np.shape, hpc.Reference("land"))
    print("rows on each rank:", *(block[0] for block in blocks))

    theirs = hpc.Reference("ground"), hpc.Reference("water"), hpc.Reference("line")
    seconds = 0.0
    for shower, mm in enumerate(SHOWERS_MM, 1):
        started = time.perf_counter()
        depths = v.apply(flow, *theirs, mm / 1000, STEPS)
        seconds += time.perf_counter() - started
        deepest, mean = max(depth for depth, _ in depths), depths[0][1]
        where = [depth for depth, _ in depths].index(deepest)
        fallen = sum(SHOWERS_MM[:shower])
        print(
            f"step {shower * STEPS:5}: {fallen} mm have fallen, {1000 * mean:.1f} mm are still here;"
            f" deepest {deepest:.2f} m, on rank {where}; {seconds:.2f} s"
        )
    v.execute("water = water[1:-1, 1:-1]")
    water = v.gather("water")

    print("\nthe same in this process alone ...", end=" ", flush=True)
    started = time.perf_counter()
    ground, alone, _ = settle(elevation, None)
    for mm in SHOWERS_MM:
        flow(ground, alone, None, mm / 1000, STEPS)
    difference = float(np.abs(water - alone[1:-1, 1:-1]).max())
    print(f"{time.perf_counter() - started:.2f} s; greatest difference {difference:g} m")

    draw(picture, elevation, water, [block[0] for block in blocks], difference)
    print(f"picture: {picture}")
    rc.close()
    return 0 if difference <= 1e-12 else 1


def draw(picture, elevation, water, rows, difference):
    """Draw the ground, and the water on it with the edges of the ranks' blocks."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.colors import LightSource, LogNorm

    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.2), layout="constrained", sharey=True)
    figure.suptitle(
        f"Rain on the Jacksboro fault, by {len(rows)} ranks; greatest difference from one: {difference:g} m"
    )
    figure.colorbar(left.imshow(elevation, cmap="terrain"), ax=left, label="ground (m)", shrink=0.9)
    right.imshow(LightSource(315, 45).hillshade(elevation, vert_exag=0.05), cmap="gray", vmin=-0.3)
    depth = np.ma.masked_less(water, 0.01)
    figure.colorbar(right.imshow(depth, cmap="YlGnBu", norm=LogNorm(0.01, 5)), ax=right, label="water (m)", shrink=0.9)
    for rank, (start, stop) in enumerate(zip(np.cumsum([0, *rows]), np.cumsum(rows), strict=False)):
        right.axhline(stop - 0.5, color="firebrick", lw=0.8, ls="--")
        right.text(5, start + 6, f"rank {rank}", va="top", fontsize=8, bbox={"facecolor": "white", "lw": 0, "pad": 2})
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
