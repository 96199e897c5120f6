"""Which launcher started this process, and what it says of size and rank: read from the environment, without MPI.

The variables were recorded from Open MPI 4.1 and 5.0, MPICH 4.0 and 5.0 (Hydra) and Slurm 22.05; those of MVAPICH,
Flux, PALS and ALPS are from their manuals. Size 0 means that the launcher does not say.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Launch", "claims", "detect"]

# Step ids from here on are Slurm's own (slurm.h): pending, extern, batch script, interactive shell.
_SLURM_SPECIAL_STEPS: Final = 0xFFFFFFF0


@dataclass(frozen=True, slots=True)
class Launch:
    """What a launcher says of this process.

    Attributes
    ----------
    launcher : str
        ``openmpi``, ``hydra`` (MPICH, Intel MPI), ``slurm`` (srun), ``mvapich``, ``flux``, ``pals``, ``alps``,
        ``pmix``.
    rank, size : int
        As the launcher counts; size 0 if it does not say.
    local_rank : int
        Rank among those of the same host, -1 if it does not say.
    pmi : str
        What it offers the MPI library to find the other ranks by: ``pmi``, ``pmix``, ``pmi+pmix``; ``''`` is nothing.
    evidence : str
        The variable that gave it away, for messages.
    version : str
        Of the launcher, where it says (Open MPI from version 5 on does).
    """

    launcher: str
    rank: int
    size: int
    local_rank: int = -1
    pmi: str = ""
    evidence: str = ""
    version: str = ""

    def fits(self, size: int) -> bool:
        """Say whether the world communicator has the size that the launcher named, or at least room for its rank.

        Ranks are not compared: some MPIs reorder them on request (``MPICH_RANK_REORDER_METHOD``).
        """
        return size == self.size if self.size else size > self.rank


# Launcher; its variables of rank, size and local rank. A launcher that starts its ranks through srun leaves the SLURM_*
# variables of its daemons in their environment, so it comes before Slurm; most of them set PMI_* too, so Hydra is late.
_TABLE: Final = (
    ("openmpi", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("mvapich", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK"),
    ("mvapich", "MVP_COMM_WORLD_RANK", "MVP_COMM_WORLD_SIZE", "MVP_COMM_WORLD_LOCAL_RANK"),
    ("flux", "FLUX_TASK_RANK", "FLUX_JOB_SIZE", "FLUX_TASK_LOCAL_ID"),
    ("pals", "PALS_RANKID", "PMI_SIZE", "PALS_LOCAL_RANKID"),
    ("alps", "ALPS_APP_PE", "PMI_SIZE", ""),
)


def detect(environ: Mapping[str, str] | None = None) -> Launch | None:
    """Return what started this process as a rank, None if nothing did.

    A process of a batch script is no rank, though Slurm tells it the number of tasks of the job.
    """
    found = claims(environ)
    return found[0] if found else None


def claims(environ: Mapping[str, str] | None = None) -> list[Launch]:
    """Return what every launcher that left traces in the environment says, the likeliest first.

    There are several where one launcher runs below another: ``mpirun`` inside of ``srun``, or of another ``mpirun``.
    """
    environ = os.environ if environ is None else environ
    pmi = "+".join(
        name
        for name, present in (
            ("pmi", "PMI_FD" in environ or "PMI_PORT" in environ or "PMI_RANK" in environ),
            ("pmix", "PMIX_NAMESPACE" in environ),
        )
        if present
    )
    found = []
    for launcher, *names in _TABLE:
        launch = _read(environ, launcher, names, pmi)
        if launch:
            found.append(launch)
    slurm = _slurm(environ, pmi)
    hydra = _read(environ, "hydra", ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"), pmi)
    # srun --mpi=pmi2 sets PMI_RANK as Hydra does, but not Hydra's MPI_LOCALNRANKS.
    if slurm and hydra and "MPI_LOCALNRANKS" not in environ and (hydra.rank, hydra.size) == (slurm.rank, slurm.size):
        hydra = None
    found += [launch for launch in (hydra, slurm) if launch]
    if not found:
        launch = _read(environ, "pmix", ("PMIX_RANK", "", ""), pmi)
        if launch and "PMIX_NAMESPACE" in environ:
            found.append(launch)
    return found


def _slurm(environ: Mapping[str, str], pmi: str) -> Launch | None:
    """Read a task of an srun step; a shell that srun gave a terminal (``srun --pty bash``) is none."""
    step = _number(environ, "SLURM_STEP_ID")
    if step is None or step >= _SLURM_SPECIAL_STEPS:
        return None
    launch = _read(environ, "slurm", ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"), pmi)
    return None if launch and launch.size == 1 and "SLURM_PTY_PORT" in environ else launch


def _read(environ: Mapping[str, str], launcher: str, names: Sequence[str], pmi: str) -> Launch | None:
    rank_name, size_name, local_name = names
    rank, size = _number(environ, rank_name), _number(environ, size_name)
    if rank is None or (size is not None and rank >= size):
        return None
    evidence = f"{rank_name}={rank}" if size is None else f"{size_name}={size}"
    local_rank = _number(environ, local_name)
    version = environ.get("OMPI_VERSION", "") if launcher == "openmpi" else ""
    return Launch(launcher, rank, size or 0, -1 if local_rank is None else local_rank, pmi, evidence, version)


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else None
