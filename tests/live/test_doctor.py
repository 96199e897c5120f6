"""``ipcluster doctor`` with a real Slurm: well, and ill in the ways that a person meets first."""

import json
from pathlib import Path

import pytest
from system.conftest import cli

from hpc.cluster.probe import mpi_library

from .conftest import Slurm
from .test_mpi import ENVIRONMENT, FITTING

pytestmark = pytest.mark.needs_mpi


def doctor(*arguments: str, status: int) -> dict[str, dict[str, str]]:
    done = cli("doctor", "--json", *arguments, check=False, timeout_s=120)
    assert done.returncode == status, done.stdout + done.stderr
    return {finding["check"]: finding for finding in json.loads(done.stdout)}


@pytest.fixture(autouse=True)
def place(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def test_all_is_well(slurm: Slurm, tmp_path: Path) -> None:
    found = doctor("--launcher", "slurm", "--nodes", "2", status=0)
    for check in ("slurm", "squeue", "dry run", "2 ranks in a job", "way back", "files", "clocks"):
        assert found[check]["verdict"] == "ok", found[check]
    assert slurm.jobs() == []
    assert list((tmp_path / "home").glob("doctor-*")) == []


def test_what_a_profile_says_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPC_SITES_PATH", str(tmp_path))
    profile = tmp_path / "iron.toml"
    launch = f'[launch]\nkind = "srun"\nmpi = "{FITTING[mpi_library()]}"\n'
    profile.write_text(f'scheduler = "slurm"\n[defaults]\nqueue = "long"\n{launch}')
    assert doctor("--site", "iron", status=0)["2 ranks in a job"]["verdict"] == "ok"
    profile.write_text(f'scheduler = "slurm"\n[defaults]\nqueue = "nosuch"\n{launch}')
    found = doctor("--site", "iron", status=1)["dry run"]
    assert (found["verdict"], "sinfo -s" in found["text"]) == ("FAILED", True)
    assert "profile" in found["remedy"]
    profile.write_text("colour = 1\n")
    assert "colour" in doctor("--site", "iron", status=1)["site"]["text"]


def test_ranks_that_do_not_find_each_other() -> None:
    found = doctor("--launch", "srun:none", status=1)["2 ranks in a job"]
    assert found["verdict"] == "FAILED"
    assert f"--mpi={FITTING[mpi_library()]}" in found["remedy"]


def test_a_machine_that_is_not_set_up_for_its_scheduler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "slurm.conf"
    broken.write_text("nonsense\n")
    monkeypatch.setenv("SLURM_CONF", str(broken))
    found = doctor("--launcher", "slurm", status=1)["squeue"]
    assert found["verdict"] == "FAILED"
    assert "SLURM_CONF" in found["remedy"]
