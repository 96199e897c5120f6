"""``ipcluster doctor`` on a machine without a scheduler."""

import json
from pathlib import Path

import pytest

from .conftest import cli, needs_mpi


def doctor(*arguments: str) -> dict[str, dict[str, str]]:
    done = cli("doctor", "--json", *arguments, check=False, timeout_s=120)
    return {finding["check"]: finding for finding in json.loads(done.stdout)}


@needs_mpi
def test_two_ranks_here() -> None:
    found = doctor("--launcher", "mpiexec")
    assert found["2 ranks here"]["verdict"] == "ok", found["2 ranks here"]
    assert "size 2" in found["2 ranks here"]["text"]
    said = cli("doctor", "--launcher", "mpiexec", check=False).stdout
    assert "ok       2 ranks here: " in said


def test_a_scheduler_that_is_not_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    done = cli("doctor", "--launcher", "pbs", "--launch", "mpirun", check=False)
    assert done.returncode == 1
    assert "FAILED   pbs: qsub, qstat, qdel not on PATH" in done.stdout
    assert "remedy: load the scheduler's module" in done.stdout


def test_the_directory_of_clusters_belongs_to_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    monkeypatch.setenv("HPC_DIR", str(open_to_all))
    found = doctor("--launcher", "local")["directory"]
    assert (found["verdict"], "chmod 700" in found["remedy"]) == ("FAILED", True)
