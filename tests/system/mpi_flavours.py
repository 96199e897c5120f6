"""The MPIs that a machine may have: its own of this Python, and the two of Debian, with what each needs to work."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpc.cluster.mpirun import Mpirun, find

VARIABLES_OF_LAUNCHERS = ("OMPI_COMM_", "PMI_", "PMIX_", "MPI_LOCAL", "SLURM_STEP")
# Containers have only root, and few cores; Open MPI 4 and 5 name these settings differently.
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMPI_MCA_btl": "^ofi",  # looks for networks, for a second
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}


@dataclass(frozen=True)
class Flavour:
    """An MPI: its mpirun, its library, and how to make mpi4py's wheel load that library."""

    name: str
    mpirun: Path
    library: Path | None = None

    def missing(self) -> str:
        """Say what is not installed, "" if nothing is."""
        if not os.access(self.mpirun, os.X_OK):
            return f"no {self.mpirun}"
        return "" if self.library is None or self.library.exists() else f"no {self.library}"

    def load(self, directory: Path) -> dict[str, str]:
        """Return the variables with which mpi4py loads this library; links go to a directory of the test."""
        if self.library is None:
            return {}  # the wheels of an MPI put it where mpi4py looks first
        if not self.library.name.startswith("libmpich"):
            return {"MPI4PY_LIBMPI": str(self.library)}
        # Debian's MPICH has another file name than everybody's, and mpi4py's extension module needs that of everybody.
        link = directory / "libmpi.so.12"
        if not link.is_symlink():
            link.symlink_to(self.library)
        return {"MPI4PY_LIBMPI": str(link), "LD_LIBRARY_PATH": str(directory)}

    def start(self, n: int, *program: str) -> list[str]:
        """Return the command that runs a program on n ranks."""
        return [str(self.mpirun), "-n", str(n), *program]


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment for one that may be a rank, as if no launcher had started the tests."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(VARIABLES_OF_LAUNCHERS)}
    return OPEN_MPI | mine | more


def _library(name: str) -> Path:
    found = sorted(Path("/usr/lib").glob(f"*/{name}"))
    return found[0] if found else Path("/usr/lib") / name


def _own_mpirun() -> Mpirun:
    try:
        return find()
    except FileNotFoundError:
        return Mpirun("mpirun", "", "")  # tests/conftest.py skips what needs it


OWN_MPIRUN = _own_mpirun()
OWN = Flavour("own", Path(OWN_MPIRUN.path))
DEBIAN_MPICH = Flavour("debian-mpich", Path("/usr/bin/mpirun.mpich"), _library("libmpich.so.12"))
DEBIAN_OPEN_MPI = Flavour("debian-openmpi", Path("/usr/bin/mpirun.openmpi"), _library("libmpi.so.40"))

# Tests that are repeated with each MPI of the machine. ``-m needs_mpi`` selects the environment's own alone, because
# scripts/test runs these in one environment after another.
FLAVOURS = [pytest.param(OWN, id=OWN.name, marks=pytest.mark.needs_mpi)] + [
    pytest.param(flavour, id=flavour.name, marks=pytest.mark.skipif(bool(flavour.missing()), reason=flavour.missing()))
    for flavour in (DEBIAN_MPICH, DEBIAN_OPEN_MPI)
]
