"""The environment of a job that is submitted from inside another one."""

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["scrubbed"]

# What schedulers and MPI launchers tell a job about itself, and what sbatch would take for options of the new one.
_NESTED: Final = re.compile(r"(SLURM|SLURMD|SBATCH|SALLOC|SRUN|PBS|PMI|PMIX|OMPI|PRTE|OPAL|HYDI?)_|MPI_LOCALN?RANK")
# Where to find the scheduler, and what a person has set for every MPI program of theirs.
_KEPT: Final = re.compile(
    r"(SLURM_CONF|SLURM_CLUSTERS|SLURM_TIME_FORMAT|PBS_(CONF_FILE|EXEC|HOME|SERVER|DEFAULT)"
    r"|OMPI_(ALLOW_RUN_AS_ROOT\w*|CC|CXX|FC|CFLAGS|CXXFLAGS|FCFLAGS|LDFLAGS|LIBS)|(OMPI|PRTE|PMIX)_MCA_\w+)\Z"
)
# mpirun writes these, in the form of a person's own settings, for its ranks.
_WRITTEN: Final = re.compile(r"(OMPI|PRTE|PMIX)_MCA_(ess_|orte_|prte_|pmix_|initial_wdir|mpi_oversubscribe)\w*\Z")


def scrubbed(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what belongs to a surrounding job, like the SLURM_NTASKS that sbatch inherits."""
    return {
        name: value
        for name, value in environ.items()
        if not _NESTED.match(name) or (_KEPT.match(name) and not _WRITTEN.match(name))
    }
