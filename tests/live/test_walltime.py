"""Allocations that end, with the signals that a real Slurm sends: what engines do, and what clients hear."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from system.conftest import Processes, cli

import hpc
from hpc.errors import EngineLost

from .conftest import Slurm, wait_until
from .test_mpi import ENVIRONMENT

pytestmark = pytest.mark.needs_mpi

START_S = 120.0


@pytest.fixture(autouse=True)
def place(slurm: Slurm, processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a directory of the test, and leave no job behind."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    cli("stop", "--all", check=False, timeout_s=START_S)
    wait_until(lambda: not slurm.jobs(), "the end of the jobs")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("scancel", "--batch", "--signal=USR1"), "walltime"),
        (("scancel",), "preempted"),
    ],
    ids=["notice", "taken-back"],
)
def test_engines_take_their_leave(
    slurm: Slurm, processes: Processes, place: Path, command: tuple[str, ...], reason: str
) -> None:
    """The script passes the notice on, and hooks of all ranks run; SIGTERM reaches the engines by itself."""
    with hpc.Cluster(launcher="slurm", nodes=2, ranks_per_node=1, walltime="5m", timeout=START_S) as rc:
        (row, _) = rc.status()["engines"]
        assert row["deadline"], "the job script has told it"
        rc[:].execute(
            f"import hpc\n@hpc.on_walltime\ndef save():\n    open({str(place)!r} + f'/saved-{{rank}}', 'w').close()\n"
        )
        waiting = rc[:].execute("import time; time.sleep(600)", block=False) if reason == "preempted" else None
        (job,) = slurm.jobs()
        slurm.run(*command, job)
        wait_until(lambda: not rc.ids, "the engines' leave")
        assert rc.lost == []
        if waiting is None:
            assert sorted(path.name for path in place.glob("saved*")) == ["saved-0", "saved-1"]
        else:  # an mpirun may leave its ranks a second: whether hooks get that far depends on the load
            with pytest.raises(hpc.errors.CompositeError) as caught:
                waiting.get(10)
            assert {error.reason for error in caught.value.errors.values() if isinstance(error, EngineLost)} == {reason}
        wait_until(lambda: not slurm.jobs(), "the end of the job")
    wait_until(lambda: not processes.pids(), "the end of the daemons that an mpirun starts on other nodes")
