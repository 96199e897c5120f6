"""The first thing that people run."""

import re
from pathlib import Path

import pytest

from .conftest import Processes, cli

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "rain.py"


@pytest.mark.needs_mpi
@pytest.mark.parametrize("n", [1, 4])
def test_rain(processes: Processes, tmp_path: Path, n: int) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'hpc[examples]'")
    picture = tmp_path / "rain.png"
    done = cli("run", "-n", str(n), "--mpi", "--", str(EXAMPLE), str(picture), timeout_s=90)
    assert f"engine {n - 1}: rank {n - 1} of {n}" in done.stdout
    assert len(re.findall(r"^step +\d+: \d+ mm have fallen", done.stdout, re.MULTILINE)) == 5
    assert "greatest difference 0 m" in done.stdout, "bit for bit"
    assert picture.read_bytes().startswith(b"\x89PNG")
    processes.assert_none_left()


def test_rain_wants_one_group(processes: Processes, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'hpc[examples]'")
    done = cli("run", "-n", "2", "--", str(EXAMPLE), str(tmp_path / "rain.png"), check=False)
    assert done.returncode == 1
    assert "start them with --mpi" in done.stderr
    processes.assert_none_left()
