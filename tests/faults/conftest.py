"""Faults are done to real processes: as for the system tests, each test has a place of its own and leaves nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.conftest import Processes, processes, scheduler  # noqa: F401 - for all tests here

from .network import Network, missing


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault: checks one row of the fault table")


@pytest.fixture
def network(processes: Processes, tmp_path: Path) -> Iterator[Network]:  # noqa: F811 - a fixture, not the import
    """Two hosts, and a wire between them that does what it is told."""
    if why := missing():
        pytest.skip(why)
    made = Network(tmp_path)
    yield made
    left = processes.clean_up()
    for process in processes._spawned:
        if process.stdin is not None:
            process.stdin.close()
    made.close()
    assert not left, f"left behind: {left}"
