"""How ranks are started on this machine: found out by asking its programs."""

import os
import subprocess
import sys
from typing import Final

from hpc.cluster import mpirun
from jobscripts import Launch
from jobscripts.launch import choose, library_of, pmi_of

ASK_TIMEOUT_S: Final = 20.0
_LIBRARY: Final = (
    "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; print(MPI.Get_library_version())"
)
# mpi4py's documentation, "Runtime configuration"; ld.so(8).
_LIBRARY_CHOICE: Final = ("MPI4PY_LIBMPI", "MPI4PY_MPIABI", "LD_LIBRARY_PATH")


def find_launch(scheduler: str) -> Launch:
    """Return what fits the MPI of this Python: an ``mpirun`` of the same kind, else ``srun`` with what it offers.

    Raises
    ------
    SpecError
        Nothing here fits; it says what was found.
    """
    try:
        tool = mpirun.find()
    except FileNotFoundError:
        tool = None
    # An mpirun that lies beside this Python came with the MPI that it uses.
    beside = tool is not None and tool.path.startswith(sys.prefix)
    return choose(
        library="" if beside else mpi_library(),
        mpirun=tool.path if tool else "",
        mpirun_library=library_of(tool.flavour) if tool else "",
        srun_offers=srun_offers() if scheduler == "slurm" and not beside else (),
    )


def mpi_library() -> str:
    """Return which MPI mpi4py loads, ``openmpi`` or ``mpich``; "" if that cannot be told."""
    return library_of(_ask([sys.executable, "-c", _LIBRARY]))


def library_choice() -> dict[str, str]:
    """Return by which variables this Python finds its MPI library: a job of PBS is handed none of them."""
    return {name: value for name in _LIBRARY_CHOICE if (value := os.environ.get(name))}


def srun_offers() -> tuple[str, ...]:
    """Return the ways in which srun tells an MPI library who the other ranks are."""
    return pmi_of(_ask(["srun", "--mpi=list"]))


def _ask(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr
