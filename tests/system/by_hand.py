"""A controller, and engines that come to it, started by the commands that a person would type."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import hpc
from hpc.security.connection import ConnectionInfo, cluster_dir

from .conftest import Processes, wait_until

ENGINE = [sys.executable, "-m", "hpc.cli.ipengine"]
START_S = 30.0  # Open MPI needs over a second for each start, more where ranks share a core


@contextmanager
def controller(processes: Processes, name: str) -> Iterator[hpc.RemoteController]:
    """Start a controller and connect to it; at the end see that nothing is left."""
    started = processes.spawn(
        sys.executable, "-m", "hpc.cli.ipcontroller", "--ip", "127.0.0.1", "--port", "0", "--name", name
    )
    file = cluster_dir(name) / "client.json"
    wait_until(lambda: file.exists() or started.poll() is not None, "the controller")
    assert started.poll() is None, started.communicate()[0]
    rc = hpc.connect(name)
    yield rc
    rc.shutdown(controller=True)
    rc.close()
    wait_until(lambda: not processes.pids(), f"the end of {processes.pids()}")


def where(name: str) -> list[str]:
    """Return the options by which an engine finds that controller."""
    info = ConnectionInfo.load(cluster_dir(name) / "client.json")
    return [f"--controller-port={info.addresses[0].rpartition(':')[2]}", "--controller-ip=127.0.0.1"]
