"""The communicator that the engines of one launch share."""

import ctypes
import os
import shutil
import sys
import threading
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hpc.errors import MpiMismatch, MpiUnavailable
from hpc.mpi import diagnosis
from hpc.mpi.launch import Launch, claims, detect
from hpc.mpi.worldcomm import world_comm_class

__all__ = ["Membership", "detect", "join", "leave", "loaded_library"]

_THREAD_LEVELS: Final = ("single", "funneled", "serialized", "multiple")


@dataclass(frozen=True, slots=True, repr=False)
class Membership:
    """What an engine is in its group; ``Membership()`` is an engine without MPI, a group of its own.

    Attributes
    ----------
    comm : mpi4py.MPI.Comm or None
        ``COMM_WORLD``, for user code.
    runtime_comm : mpi4py.MPI.Comm or None
        A private duplicate: what the runtime sends on it never meets what user code sends.
    rank, size : int
        In both communicators.
    group : str
        Hexadecimal uuid, the same on all ranks of one launch and on no others.
    mpi : str
        Name and version of the library, as in ``Open MPI 5.0.11``; ``''`` without MPI.
    thread_level : str
        ``single``, ``funneled``, ``serialized`` or ``multiple``; ``''`` without MPI.
    launcher : str
        As in `hpc.mpi.launch.Launch`; ``''`` if no launcher started the process as a rank.
    """

    comm: Any = None
    runtime_comm: Any = None
    rank: int = 0
    size: int = 1
    group: str = field(default_factory=lambda: uuid.uuid4().hex)
    mpi: str = ""
    thread_level: str = ""
    launcher: str = ""

    def __repr__(self) -> str:
        mpi = f"{self.mpi}, threads {self.thread_level}" if self.mpi else "no MPI"
        return f"<Membership rank {self.rank} of {self.size} in group {self.group[:8]}, {mpi}>"


def join(launch: Launch | None, environ: Mapping[str, str] | None = None) -> Membership:
    """Initialise MPI, check that the launcher's ranks found each other, and agree on a name for the group.

    Collective: every rank of the launch must call, in its main thread. User code keeps mpi4py's defaults (thread level
    ``multiple`` unless ``MPI4PY_RC_THREAD_LEVEL`` says otherwise); only finalising is left to `leave`.

    Parameters
    ----------
    launch : Launch or None
        What `detect` returned; None makes a group of one, for ``--mpi`` outside of a launcher.
    environ : mapping, optional
        What to read further claims of launchers from, ``os.environ`` by default.

    Raises
    ------
    MpiUnavailable
        mpi4py or its library cannot be loaded. The text names the remedy.
    MpiMismatch
        Launcher and library do not belong together: N singletons, most often. The text names the remedy on rank 0 and
        is one line on the others, whose output would repeat it N times.
    """
    MPI = _import(launch)  # noqa: N806 - its name everywhere
    library = _library(MPI)
    if not MPI.Is_initialized():
        _say_before_init(launch, library)
        with _no_suspicion():
            MPI.Init_thread(_wanted_thread_level(MPI))
    comm = world_comm_class()(MPI.COMM_WORLD)
    rank, size = comm.Get_rank(), comm.Get_size()
    _check(launch, comm, library, environ)
    runtime_comm = comm.Dup()
    runtime_comm.Set_name("hpc.runtime")
    return Membership(
        comm=comm,
        runtime_comm=runtime_comm,
        rank=rank,
        size=size,
        group=runtime_comm.bcast(uuid.uuid4().hex if rank == 0 else None, root=0),
        mpi=library.name,
        thread_level=_THREAD_LEVELS[_thread_levels(MPI).index(MPI.Query_thread())],
        launcher=launch.launcher if launch else "",
    )


def loaded_library() -> diagnosis.Library:
    """Return the MPI library that mpi4py loads, and initialise nothing; `MpiUnavailable` if there is none."""
    return _library(_import(None))


def leave(membership: Membership, timeout_s: float = 10.0, exit_code: int = 0) -> bool:
    """Finalise MPI; return False if there was nothing to finalise.

    Collective, so it hangs when another rank is stuck or gone: after `timeout_s` a timer thread ends the process with
    `exit_code`, at once and without clean-up. MPI cannot be used, nor joined again, afterwards.
    """
    if membership.comm is None:
        return False
    MPI = sys.modules["mpi4py.MPI"]  # noqa: N806
    if MPI.Is_finalized():
        return False
    timer = threading.Timer(timeout_s, _give_up, (membership, timeout_s, exit_code))
    timer.daemon = True
    timer.start()
    try:
        _finalize(MPI)
    finally:
        timer.cancel()
    return True


def _finalize(MPI: Any) -> None:  # noqa: N803
    """Call MPI_Finalize without holding the interpreter's lock, which ``MPI.Finalize`` holds: no timer would run."""
    try:
        # Looking a symbol up in the extension module finds it in the MPI library that it is linked with.
        call = ctypes.CDLL(MPI.__file__).MPI_Finalize
    except (OSError, AttributeError):  # an mpi4py that holds its MPI inside: without the time limit, then
        call = MPI.Finalize
    if code := call():
        raise MPI.Exception(code)


def _give_up(membership: Membership, timeout_s: float, exit_code: int) -> None:
    # Not through sys.stderr: the thread that hangs in MPI_Finalize may hold its lock.
    text = (
        f"{membership!r}: MPI_Finalize did not return within {timeout_s:g} s, other ranks are stuck or gone; exiting\n"
    )
    os.write(2, text.encode())
    os._exit(exit_code)


def _import(launch: Launch | None) -> Any:
    try:
        import mpi4py

        mpi4py.rc.initialize = False  # the checks come first
        mpi4py.rc.finalize = False  # `leave` does it, under a time limit
        with _no_suspicion():
            from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        installed = not (isinstance(error, ModuleNotFoundError) and error.name == "mpi4py")
        raise MpiUnavailable(diagnosis.not_importable(launch, str(error) if installed else "")) from error
    return MPI


@contextmanager
def _no_suspicion() -> Iterator[None]:
    """Silence mpi4py's "suspicious MPI execution environment": `_check` says it once, and with the remedy."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "suspicious MPI execution environment", RuntimeWarning)
        yield


def _say_before_init(launch: Launch | None, library: diagnosis.Library) -> None:
    reason = diagnosis.refusal(launch, library)
    if launch and reason:
        raise MpiMismatch(_for_rank(launch, reason))
    warning = diagnosis.doubt(launch, library)
    if launch and launch.rank == 0 and warning:
        print(warning, file=sys.stderr, flush=True)


def _check(launch: Launch | None, comm: Any, library: diagnosis.Library, environ: Mapping[str, str] | None) -> None:
    """Refuse a world communicator that is not what the launcher started, on all of its ranks or on none.

    Ranks that found others prove that MPI works, so any launcher's claim may vouch for them (one may run below another,
    and both leave variables); a singleton must be what the likeliest launcher says.
    """
    rank, size = comm.Get_rank(), comm.Get_size()
    fits = launch is None or launch.fits(size) or (size > 1 and any(claim.fits(size) for claim in claims(environ)))
    # The verdict is a common one: a rank that went on alone would wait for the others in the next collective.
    n_fit = comm.allreduce(int(fits))
    if launch and not fits:
        raise MpiMismatch(_for_rank(launch, diagnosis.mismatch(launch, rank, size, library)))
    if n_fit < size:
        raise MpiMismatch(f"{size - n_fit} other ranks of {size} found that launcher and MPI do not belong together")


def _for_rank(launch: Launch, text: str) -> str:
    return text if launch.rank == 0 else f"{text.partition(chr(10))[0]} Rank 0 says what to do."


def _thread_levels(MPI: Any) -> tuple[int, ...]:  # noqa: N803
    return MPI.THREAD_SINGLE, MPI.THREAD_FUNNELED, MPI.THREAD_SERIALIZED, MPI.THREAD_MULTIPLE


def _wanted_thread_level(MPI: Any) -> int:  # noqa: N803
    import mpi4py

    name = mpi4py.rc.thread_level if mpi4py.rc.threads else "single"
    return _thread_levels(MPI)[_THREAD_LEVELS.index(name)]


def _library(MPI: Any) -> diagnosis.Library:  # noqa: N803
    """Gather what there is to know of the loaded library; callable before MPI_Init."""
    version = MPI.Get_library_version()
    path = _loaded_from()
    return diagnosis.Library(version, path, _mpirun_beside(path, version), shutil.which("mpirun") or "")


def _loaded_from() -> str:
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:  # not Linux: the messages do without
        return ""
    files = {line.split(maxsplit=5)[-1] for line in maps.splitlines() if "/libmpi" in line}
    return min(files, key=len, default="")


def _mpirun_beside(path: str, version: str) -> str:
    """Find the mpirun of the library at `path`: in the ``bin`` next to the ``lib`` that holds it."""
    if not path:
        return ""
    # Debian installs several MPIs side by side and tells their commands apart by a suffix.
    suffix = ".openmpi" if version.startswith("Open MPI") else ".mpich"
    for parent in Path(path).parents:
        if parent.name.startswith("lib"):
            for name in (f"mpirun{suffix}", "mpirun"):
                candidate = parent.parent / "bin" / name
                if os.access(candidate, os.X_OK):
                    return str(candidate)
    return ""
