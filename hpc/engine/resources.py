"""What an engine has that tasks may ask for: labels, and amounts of resources."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

# For engines that are started by others; what the command line says comes on top.
RESOURCES: Final = "HPC_RESOURCES"
LABELS: Final = "HPC_LABELS"
# Each lists the devices that a process may use, separated by commas.
_DEVICES: Final = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
# How many processes of the same launch share this host.
_LOCAL_RANKS: Final = ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "SLURM_NTASKS_PER_NODE")


def parse(text: str) -> tuple[str, float]:
    """Read ``gpu=2``, or ``gpu`` for one of them; `ValueError` if it makes no sense."""
    name, equals, amount = text.strip().partition("=")
    if not name or (equals and not re.fullmatch(r"\d+(\.\d*)?", amount.strip())):
        raise ValueError(f"{text!r} is no resource: write name=amount, gpu=2 for example")
    return name.strip(), float(amount) if equals else 1.0


def resources_of(environ: Mapping[str, str], given: Iterable[str] = ()) -> dict[str, float]:
    """Return what an engine has: what is found, then what the environment says, then what is given."""
    declared = [text for text in environ.get(RESOURCES, "").split(",") if text.strip()]
    return {**_found(environ), **dict(map(parse, declared)), **dict(map(parse, given))}


def labels_of(environ: Mapping[str, str], given: str = "") -> list[str]:
    """Return the labels that the environment and ``given`` name, separated by commas."""
    names = f"{environ.get(LABELS, '')},{given}".split(",")
    return sorted({name.strip() for name in names if name.strip()})


def _found(environ: Mapping[str, str]) -> dict[str, float]:
    found = {"memory_gb": round(_memory_mib(environ) / 1024, 3)}
    gpus = _n_gpus(environ)
    if gpus:
        found["gpu"] = float(gpus)
    return found


def _n_gpus(environ: Mapping[str, str]) -> int:
    for name in _DEVICES:
        if name in environ:
            devices = [device.strip() for device in environ[name].split(",")]
            # CUDA looks no further than the first device that it does not know.
            known = [device not in ("", "-1", "NoDevFiles") for device in devices]
            return known.index(False) if False in known else len(known)
    return sum(path.name[6:].isdigit() for path in Path("/dev").glob("nvidia[0-9]*"))


def _memory_mib(environ: Mapping[str, str]) -> float:
    """Return the share of this process in what its job, its control group or its machine has."""
    n_ranks = max(1, next((n for name in _LOCAL_RANKS if (n := _number(environ, name))), 1))
    if per_node := _number(environ, "SLURM_MEM_PER_NODE"):
        return per_node / n_ranks
    if per_cpu := _number(environ, "SLURM_MEM_PER_CPU"):
        return per_cpu * max(1, _number(environ, "SLURM_CPUS_ON_NODE")) / n_ranks
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):
        limit = machine
    return min(machine, limit) / 2**20 / n_ranks


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    return int(text) if text.isdigit() else 0
