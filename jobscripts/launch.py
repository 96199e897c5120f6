"""The line that starts the ranks of an MPI program inside an allocation."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jobscripts.errors import SpecError
from jobscripts.quoting import command_line, shell_word

if TYPE_CHECKING:
    from jobscripts.spec import JobSpec

__all__ = ["Launch", "choose", "launch_line", "library_of", "pmi_of"]

KINDS: Final = ("srun", "mpirun", "mpiexec")
LIBRARIES: Final = ("", "openmpi", "mpich")


@dataclass(frozen=True)
class Launch:
    """How ranks are started.

    Attributes
    ----------
    kind : str
        ``srun``, ``mpirun`` or ``mpiexec``. ``mpirun`` inside of the allocation fits whatever MPI it came with.
    mpi : str
        For ``srun``: what the MPI library finds the other ranks by, ``pmi2``, ``pmix``; ``srun --mpi=list``. Where
        library and offer do not fit, each rank is alone in a world of size 1.
    library : str
        Whose ``mpirun`` it is: ``openmpi``, ``mpich`` (and its kin); ``''`` is unknown.
    program : str
        The program, if it is not ``kind`` on PATH.
    hostfile : str
        For machines without a scheduler: the hosts, one a line.
    extra : tuple of str
        More options.
    """

    kind: str = "mpirun"
    mpi: str = ""
    library: str = ""
    program: str = ""
    hostfile: str = ""
    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SpecError("launch", f"there is no kind {self.kind!r}; there are: {', '.join(KINDS)}")
        if self.library not in LIBRARIES:
            raise SpecError("launch", f"there is no library {self.library!r}; write 'openmpi', 'mpich' or nothing")
        if self.kind != "srun" and self.mpi:
            raise SpecError("launch", f"mpi={self.mpi!r} is for srun; {self.kind} brings its own")
        object.__setattr__(self, "extra", tuple(self.extra))


def launch_line(
    launch: Launch, spec: "JobSpec", command: tuple[str, ...] | str, *, scheduler: str, component: int | None = None
) -> str:
    """Return the line of bash that runs a command as the ranks of a job, or of one component of it.

    Parameters
    ----------
    command : tuple of str, or str
        Words, or text that is already fit for bash.
    scheduler : str
        The name of the scheduler whose allocation it runs in.
    component : int, optional
        Of a heterogeneous job: only this one. Otherwise all are in one world.

    Raises
    ------
    SpecError
        This launcher cannot do it there.
    """
    words = command if isinstance(command, str) else command_line(command)
    if component is not None and not 0 <= component < len(spec.components):
        raise SpecError("components", f"there is no component {component}; the job has {len(spec.components)}")
    if launch.kind == "srun":
        if scheduler != "slurm":
            raise SpecError("launch", f"srun is Slurm's; for {scheduler} take mpirun or mpiexec")
        return _srun(launch, spec, words, component)
    return _mpirun(launch, spec, words, scheduler, component)


def _srun(launch: Launch, spec: "JobSpec", words: str, component: int | None) -> str:
    # A script submitted with --export=NONE would hand its steps nothing (sbatch(1), --export).
    start = [launch.program or "srun", "--export=ALL"]
    if launch.mpi:
        start.append(f"--mpi={launch.mpi}")
    start += launch.extra
    if not spec.components:
        return f"{command_line([*start, *_srun_shape(spec)])} {words}"
    numbers = range(len(spec.components)) if component is None else [component]
    parts = [
        f"{command_line([f'--het-group={number}', *_srun_shape(spec.components[number])])} {words}"
        for number in numbers
    ]
    return f"{command_line(start)} {' : '.join(parts)}"


def _srun_shape(spec: "JobSpec") -> list[str]:
    """Say all of it: without -n, srun takes one rank per node or as many as -c leaves room for."""
    options = [f"--ntasks={spec.total_ranks}"]
    if spec.node_count is not None:
        options.insert(0, f"--nodes={spec.node_count}")
    if spec.ranks_on_node is not None:
        options.append(f"--ntasks-per-node={spec.ranks_on_node}")
    if spec.cpus_per_rank is not None:
        # From Slurm 22.05 to 23.02 srun does not take it over from the job.
        options.append(f"--cpus-per-task={spec.cpus_per_rank}")
    return options


def _mpirun(launch: Launch, spec: "JobSpec", words: str, scheduler: str, component: int | None) -> str:
    hostfile = shell_word(launch.hostfile) if launch.hostfile else ""
    part = spec
    if component is not None:
        if scheduler not in ("pbs", "torque"):
            raise SpecError(
                "launch", f"{launch.kind} sees only the first component of a job of {scheduler}; take kind='srun'"
            )
        first = sum(other.total_ranks for other in spec.components[:component]) + 1
        part = spec.components[component]
        hostfile = f'<(sed -n {first},{first + part.total_ranks - 1}p "$PBS_NODEFILE")'
    options = ["-n", str(part.total_ranks)]
    if launch.hostfile and spec.ranks_per_node is not None:
        if not launch.library:
            raise SpecError("launch", "say library='openmpi' or 'mpich': they spell ranks per node differently")
        per_node = str(spec.ranks_per_node)
        options += ["-ppn", per_node] if launch.library == "mpich" else ["--map-by", f"ppr:{per_node}:node"]
    line = command_line([launch.program or launch.kind, *options])
    if hostfile:
        line += f" --hostfile {hostfile}"
    if launch.extra:
        line += f" {command_line(launch.extra)}"
    return f"{line} {words}"


def library_of(text: str) -> str:
    """Return whose MPI says this of itself, in ``mpirun --version`` or ``MPI.Get_library_version()``; '' if unknown."""
    if re.search(r"Open MPI|OpenRTE|PRTE|prterun", text):
        return "openmpi"
    return "mpich" if re.search(r"MPICH|HYDRA|Intel\(R\) MPI|MVAPICH", text, re.IGNORECASE) else ""


def pmi_of(text: str) -> tuple[str, ...]:
    """Return what ``srun --mpi=list`` says that it offers."""
    names = re.findall(r"^\s*(?:srun: *)?([a-z][a-z0-9_]*)\s*$", text, re.MULTILINE)
    return tuple(name for name in dict.fromkeys(names) if name != "none")


def choose(*, library: str, mpirun: str, mpirun_library: str, srun_offers: tuple[str, ...] = ()) -> Launch:
    """Return the launcher that fits an MPI library.

    Parameters
    ----------
    library : str
        What mpi4py was built with or loads: ``openmpi``, ``mpich``.
    mpirun, mpirun_library : str
        Path of the ``mpirun`` at hand ('' if there is none), and whose it is.
    srun_offers : tuple of str
        What ``srun --mpi=list`` said; () without Slurm.

    Raises
    ------
    SpecError
        Nothing here can start this library's ranks.
    """
    if mpirun and (not library or not mpirun_library or mpirun_library == library):
        return Launch("mpirun", library=mpirun_library or library, program=mpirun)
    fitting = {"openmpi": ("pmix",), "mpich": ("cray_shasta", "pmi2")}.get(library, ())
    for offer in fitting:
        if offer in srun_offers:
            return Launch("srun", offer, library)
    found = f"{mpirun} is {mpirun_library}'s" if mpirun else "there is no mpirun"
    offers = f", and srun offers {', '.join(srun_offers)}" if srun_offers else ""
    raise SpecError(
        "launch",
        f"mpi4py uses {library or 'an unknown MPI'}, but {found}{offers}; load the MPI module that it was built"
        " with, or name the launcher yourself",
    )
