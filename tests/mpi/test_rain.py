"""The example's computation, without the client: exchanged borders give what one process computes, to the last bit."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI

from hpc.partition import counts

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "rain.py"


@pytest.fixture(scope="module")
def rain():
    spec = importlib.util.spec_from_file_location("rain", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.mpi
@pytest.mark.parametrize("extra_rows", [0, 1, 7])
def test_any_number_of_ranks_computes_the_same(rain, extra_rows: int) -> None:
    comm = MPI.COMM_WORLD
    rows = comm.size + extra_rows
    land = np.random.default_rng(rows).uniform(0, 3, (rows, 11))
    ground, alone, _ = rain.settle(land, None)
    whole = rain.flow(ground, alone, None, 0.5, 40)

    share = np.array(counts(rows, comm.size))
    start = share[: comm.rank].sum()
    ground, water, line = rain.settle(land[start : start + share[comm.rank]], comm)
    deepest, mean = rain.flow(ground, water, line, 0.5, 40)

    assert np.array_equal(water[1:-1, 1:-1], alone[1 + start : 1 + start + share[comm.rank], 1:-1])
    assert comm.allreduce(deepest, op=MPI.MAX) == whole[0]
    assert mean == pytest.approx(whole[1], rel=1e-13)
    line.Free()
