"""A communicator of all ranks that mpirun started, and what the runtime makes of it."""

from collections.abc import Iterator
from typing import Any

import pytest
from mpi4py import MPI

from hpc.mpi.collectives import Collectives


@pytest.fixture(scope="module")
def comm() -> Iterator[Any]:
    duplicate = MPI.COMM_WORLD.Dup()
    yield duplicate
    duplicate.Free()


@pytest.fixture
def collectives(comm: Any) -> Collectives:
    made = Collectives(comm)
    made.block_nbytes = 4096  # as if that were 2 GiB
    return made
