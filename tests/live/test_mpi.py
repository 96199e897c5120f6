"""How ranks are started in an allocation: what fits the MPI of this environment, and what does not, and says so."""

import json
import sys
from pathlib import Path

import pytest

from hpc.cluster.probe import find_launch, mpi_library, srun_offers
from hpc.engine.probe import MARK
from jobscripts import Job, Launch, State

from .conftest import Jobs, Slurm

pytestmark = pytest.mark.needs_mpi

PROBE = (sys.executable, "-m", "hpc.engine.probe")
# Open MPI refuses root, and to bind more ranks than there are cores.
ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}
FITTING = {"mpich": "pmi2", "openmpi": "pmix"}


def heard(job: Job) -> list[dict[str, object]]:
    lines = Path(job.stdout).read_text().splitlines()
    return [json.loads(line.partition(MARK)[2]) for line in lines if MARK in line]


def start(jobs: Jobs, launch: Launch) -> list[dict[str, object]]:
    job = jobs.submit(PROBE, nodes=2, ranks_per_node=2, launch=launch, environment=ENVIRONMENT)
    jobs.wait(job, State.COMPLETED, State.FAILED, timeout_s=120)
    said = heard(job)
    assert len(said) == 4, Path(job.stdout).read_text()
    return said


def test_srun_offers_both(slurm: Slurm) -> None:
    assert {"pmi2", "pmix"} <= set(srun_offers())


def test_mpirun_within_the_allocation(jobs: Jobs) -> None:
    found = find_launch("slurm")
    assert (found.kind, found.library) == ("mpirun", mpi_library())
    said = start(jobs, found)
    assert sorted(entry["rank"] for entry in said) == [0, 1, 2, 3]
    assert {entry["size"] for entry in said} == {4}
    assert sorted(entry["node"] for entry in said) == ["n1", "n1", "n2", "n2"]


def test_srun_with_what_the_library_understands(jobs: Jobs) -> None:
    said = start(jobs, Launch("srun", FITTING[mpi_library()]))
    assert sorted(entry["rank"] for entry in said) == [0, 1, 2, 3]
    assert {entry["size"] for entry in said} == {4}
    assert {entry["launcher"] for entry in said} == {"slurm"}


def test_srun_with_nothing_is_found_out(jobs: Jobs) -> None:
    said = start(jobs, Launch("srun", "none"))
    assert all("size" not in entry for entry in said), "four singletons are no group"
    remedies = [entry["error"] for entry in said if "remedy" in entry["error"]]
    assert remedies
    assert all(f"--mpi={FITTING[mpi_library()]}" in text for text in remedies)
