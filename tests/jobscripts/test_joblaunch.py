"""Launch lines, and the choice between launchers."""

import pytest
from recordings import SLURM, errors

from jobscripts import JobSpec, Launch, SpecError, detect, launch_line
from jobscripts.environment import scrubbed
from jobscripts.launch import choose, library_of, pmi_of

FOUR = JobSpec(nodes=2, ranks_per_node=2, cpus_per_rank=3)
PARTS = JobSpec(components=(JobSpec(nodes=1, ranks_per_node=2), JobSpec(nodes=2, ranks_per_node=4)))
SRUN = Launch("srun", "pmi2", extra=("--overlap",))


@pytest.mark.parametrize(
    ("launch", "scheduler", "spec", "component", "line"),
    [
        (
            SRUN,
            "slurm",
            FOUR,
            None,
            "srun --export=ALL --mpi=pmi2 --overlap --nodes=2 --ntasks=4 --ntasks-per-node=2 --cpus-per-task=3 a 'b c'",
        ),
        (Launch("srun"), "slurm", JobSpec(ranks=7), None, "srun --export=ALL --ntasks=7 a 'b c'"),
        (
            Launch("srun"),
            "slurm",
            PARTS,
            1,
            "srun --export=ALL --het-group=1 --nodes=2 --ntasks=8 --ntasks-per-node=4 a 'b c'",
        ),
        (
            Launch("srun"),
            "slurm",
            PARTS,
            None,
            "srun --export=ALL --het-group=0 --nodes=1 --ntasks=2 --ntasks-per-node=2 a 'b c' : "
            "--het-group=1 --nodes=2 --ntasks=8 --ntasks-per-node=4 a 'b c'",
        ),
        (Launch("mpirun", extra=("--bind-to", "none")), "slurm", FOUR, None, "mpirun -n 4 --bind-to none a 'b c'"),
        (Launch("mpiexec", program="/my mpi/mpiexec"), "pbs", FOUR, None, "'/my mpi/mpiexec' -n 4 a 'b c'"),
        (Launch("mpirun"), "pbs", PARTS, None, "mpirun -n 10 a 'b c'"),
        (Launch("mpirun"), "pbs", PARTS, 1, "mpirun -n 8 --hostfile <(sed -n 3,10p \"$PBS_NODEFILE\") a 'b c'"),
        (
            Launch("mpirun", hostfile="my hosts", library="openmpi"),
            "mpiexec",
            FOUR,
            None,
            "mpirun -n 4 --map-by ppr:2:node --hostfile 'my hosts' a 'b c'",
        ),
        (
            Launch("mpirun", hostfile="hosts", library="mpich"),
            "mpiexec",
            FOUR,
            None,
            "mpirun -n 4 -ppn 2 --hostfile hosts a 'b c'",
        ),
    ],
)
def test_lines(launch, scheduler, spec, component, line):
    assert launch_line(launch, spec, ("a", "b c"), scheduler=scheduler, component=component) == line


@pytest.mark.parametrize(
    ("launch", "scheduler", "spec", "component", "words"),
    [
        (SRUN, "pbs", FOUR, None, "srun is Slurm's"),
        (Launch("mpirun"), "slurm", PARTS, 1, "take kind='srun'"),
        (Launch("mpirun", hostfile="h"), "mpiexec", FOUR, None, "say library="),
        (SRUN, "slurm", PARTS, 2, "there is no component 2"),
    ],
)
def test_what_a_launcher_cannot_do(launch, scheduler, spec, component, words):
    with pytest.raises(SpecError, match=words):
        launch_line(launch, spec, ("a",), scheduler=scheduler, component=component)


@pytest.mark.parametrize("fields", [{"kind": "ssh"}, {"kind": "mpirun", "mpi": "pmi2"}, {"library": "lam"}])
def test_launchers_that_are_none(fields):
    with pytest.raises(SpecError, match="launch"):
        Launch(**fields)


OFFERS = ("pmix", "cray_shasta", "pmi2")


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        ({"library": "mpich", "mpirun": "/v/mpirun", "mpirun_library": "mpich", "srun_offers": OFFERS}, ("mpirun", "")),
        (
            {"library": "openmpi", "mpirun": "/v/mpirun", "mpirun_library": "mpich", "srun_offers": OFFERS},
            ("srun", "pmix"),
        ),
        ({"library": "mpich", "mpirun": "", "mpirun_library": "", "srun_offers": ("pmix", "pmi2")}, ("srun", "pmi2")),
        ({"library": "mpich", "mpirun": "", "mpirun_library": "", "srun_offers": OFFERS}, ("srun", "cray_shasta")),
        ({"library": "", "mpirun": "/v/mpirun", "mpirun_library": "openmpi"}, ("mpirun", "")),
    ],
)
def test_the_launcher_that_fits_the_library(found, chosen):
    launch = choose(**found)
    assert (launch.kind, launch.mpi) == chosen


def test_nothing_fits():
    with pytest.raises(SpecError, match="mpi4py uses openmpi, but /v/mpirun is mpich's, and srun offers pmi2"):
        choose(library="openmpi", mpirun="/v/mpirun", mpirun_library="mpich", srun_offers=("pmi2",))


def test_what_programs_say_of_themselves():
    said = errors(SLURM)["srun --mpi=list"]
    assert set(OFFERS) == set(pmi_of(said.stdout + said.stderr))
    assert library_of("mpirun (Open MPI) 5.0.11") == library_of("prterun (PRRTE) 3.0") == "openmpi"
    assert library_of("HYDRA build details:\n    Version: 5.0.2") == "mpich"
    assert library_of("MPI VERSION    : CRAY MPICH version 8.1") == "mpich"
    assert library_of("something") == ""


def test_what_is_scrubbed():
    kept = {
        "SLURM_CONF": "/c",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_MCA_btl": "self,tcp",
        "PBS_CONF_FILE": "/p",
        "PATH": "/",
        "MPI_HOME": "/m",
    }
    gone = {
        **dict.fromkeys(("SLURM_JOB_ID", "SLURMD_NODENAME", "SBATCH_PARTITION", "SRUN_DEBUG", "PBS_NODEFILE"), "1"),
        **dict.fromkeys(("PMI_RANK", "PMIX_NAMESPACE", "OMPI_COMM_WORLD_SIZE", "PRTE_MCA_prte_ess_num_procs"), "1"),
        **dict.fromkeys(("MPI_LOCALRANKID", "HYDI_CONTROL_FD"), "1"),
    }
    assert scrubbed(kept | gone) == kept


@pytest.mark.parametrize(
    ("programs", "variables", "name"),
    [
        (("sbatch", "squeue", "scancel"), {}, "slurm"),
        (("qsub", "qstat", "qdel"), {"PBS_EXEC": "/opt/pbs"}, "pbs"),
        (("qsub", "qstat"), {}, "mpiexec"),
        ((), {}, "mpiexec"),
    ],
)
def test_the_scheduler_that_is_here(programs, variables, name, tmp_path):
    for program in programs:
        (tmp_path / program).write_text("")
        (tmp_path / program).chmod(0o755)
    assert detect({"PATH": str(tmp_path), **variables}).name == name
