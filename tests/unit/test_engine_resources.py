"""What an engine says that it has: found, declared by its environment, given on its command line."""

import pytest

from hpc.engine.resources import labels_of, parse, resources_of


@pytest.mark.parametrize(
    ("environ", "gpus"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0,3"}, 2),
        ({"CUDA_VISIBLE_DEVICES": "GPU-4cf2"}, 1),
        ({"CUDA_VISIBLE_DEVICES": ""}, 0),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 0),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, 0),
        ({"CUDA_VISIBLE_DEVICES": "0,-1,1"}, 1),
        ({"CUDA_VISIBLE_DEVICES": "1", "SLURM_JOB_GPUS": "0,1"}, 1),
        ({"SLURM_JOB_GPUS": "0,1,2"}, 3),
        ({"ROCR_VISIBLE_DEVICES": "0"}, 1),
    ],
)
def test_devices_are_counted(environ, gpus):
    assert resources_of(environ).get("gpu", 0) == gpus


@pytest.mark.parametrize(
    ("environ", "memory_gb"),
    [
        ({"SLURM_MEM_PER_NODE": "8192"}, 8),
        ({"SLURM_MEM_PER_NODE": "8192", "SLURM_NTASKS_PER_NODE": "4"}, 2),
        ({"SLURM_MEM_PER_NODE": "8192", "MPI_LOCALNRANKS": "2", "SLURM_NTASKS_PER_NODE": "4"}, 4),
        ({"SLURM_MEM_PER_CPU": "1024", "SLURM_CPUS_ON_NODE": "8", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 2),
    ],
)
def test_memory_is_the_share_of_a_job(environ, memory_gb):
    assert resources_of(environ)["memory_gb"] == memory_gb


def test_memory_of_a_machine_is_shared_by_its_ranks():
    whole = resources_of({})["memory_gb"]
    assert whole > 0
    assert resources_of({"MPI_LOCALNRANKS": "4"})["memory_gb"] == pytest.approx(whole / 4, rel=0.01)


def test_who_says_more_exactly_is_believed():
    environ = {"CUDA_VISIBLE_DEVICES": "0,1", "HPC_RESOURCES": "gpu=1, license"}
    assert resources_of(environ)["gpu"] == 1
    assert resources_of(environ)["license"] == 1
    assert resources_of(environ, ("gpu=0.5",))["gpu"] == 0.5


@pytest.mark.parametrize("text", ["=1", "gpu=", "gpu=two", "gpu=-1", "gpu=1e400x"])
def test_what_makes_no_sense_is_refused(text):
    with pytest.raises(ValueError, match="gpu=2 for example"):
        parse(text)


def test_labels():
    assert labels_of({"HPC_LABELS": "b,,a"}, " c ,a") == ["a", "b", "c"]
    assert labels_of({}) == []
