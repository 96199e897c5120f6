"""What the tests of `jobscripts` share."""

from pathlib import Path

import pytest
from jobscripts_harness import Clock, Fakes


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    folder = tmp_path / "fakes"
    folder.mkdir()
    return Fakes(folder)


# What people have called their directories.
WEIRD = ("with blanks", "it's", 'the "best" one', "100%j", "a#b", "x;y&z", "$HOME", "back\\slash", "-dash")


@pytest.fixture(params=WEIRD)
def weird_path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    path.mkdir()
    return path


@pytest.fixture
def clock() -> Clock:
    return Clock()
