"""Fixtures of the tests of the controller as a process."""

import pytest
from controller_harness import RunningController, close_connections


@pytest.fixture(scope="module")
def shared():
    """One controller for the tests of a file."""
    controller = RunningController()
    yield controller
    assert controller.stop() == 0


@pytest.fixture
def controller():
    """Start controllers with options of their own."""
    controllers = []

    def start(**options):
        controllers.append(RunningController(**options))
        return controllers[-1]

    yield start
    for each in controllers:
        each.stop()


@pytest.fixture
def hang_up():
    """Close the connections that a test has made."""
    yield
    close_connections()
