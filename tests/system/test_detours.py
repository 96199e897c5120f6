"""Where the quickest way is barred data takes another one by itself, and the reason is said."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hpc
from hpc.security.connection import find

from .conftest import Processes, read_until

A = np.arange(300_000)

# Of their own: what the kernel shows of processes, shared memory, and in the second one the directory of the socket.
CONTAINER = ["unshare", "--mount", "--pid", "--ipc", "--fork", "--mount-proc", "--kill-child", "sh", "-c"]
ENGINE = f"exec {sys.executable} -m hpc.cli.ipengine"


def without_namespaces() -> str:
    """Say why there are no containers here; '' if there are."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return "only root may make namespaces, by unshare"
    made = subprocess.run([*CONTAINER, "mount -t tmpfs none /dev/shm"], capture_output=True, text=True, check=False)
    return made.stderr.strip()


def test_a_client_without_the_unix_socket_goes_by_tcp_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with hpc.Cluster(n=2) as rc:
        assert rc[:].push({"x": A}, block=False)["route"] == ["shm"] * 2
        path = Path(find("client").unix)
        path.rename(path.with_name("hidden"))
        try:
            with caplog.at_level(logging.WARNING), hpc.connect() as other:
                v = other[:]
                for _ in range(2):
                    ar = v.push({"x": A}, block=False)
                    ar.get()
                    assert ar["route"] == ["tcp"] * 2
                assert all((x == A).all() for x in v["x"])
        finally:
            path.with_name("hidden").rename(path)
    (warning,) = [record.getMessage() for record in caplog.records if "slower" in record.getMessage()]
    assert f"{path}: No such file" in warning


def test_engines_in_containers(processes: Processes) -> None:
    if reason := without_namespaces():
        pytest.skip(f"there are no containers here: {reason}")
    with hpc.Cluster(n=1) as rc:
        near = processes.spawn(*CONTAINER, f"mount -t tmpfs none /dev/shm && {ENGINE}")
        rc.wait_for_engines(2, timeout=20)
        far = processes.spawn(*CONTAINER, f"mount -t tmpfs none {processes.runtime} && {ENGINE}")
        said = read_until(far, "not through shared memory")
        assert "controller.sock: No such file" in said
        rc.wait_for_engines(3, timeout=20)
        v = rc[:]
        v["x"] = A
        assert all((x == A).all() and x.flags.writeable for x in v["x"])
        ar = v.pull("x", block=False)
        ar.get()
        assert ar["route"] == ["shm", "shm", "tcp"], "shared memory needs a common socket, nothing else"
        v.scatter("y", A)
        assert (v.gather("y") == A).all()
        for source, target in ((1, 2), (2, 0)):
            ar = rc[target].push({"z": hpc.Reference("x", engine=source)}, block=False)
            ar.get()
            assert ar["route"] == "tcp"
            assert (rc[target]["z"] == A).all()
        v.execute("import numpy; big = numpy.full(1 << 20, id + 1.0)")
        assert (v.reduce("big") == 6).all()
        rc.shutdown([1, 2])
        assert near.wait(20) == 0
        assert far.wait(20) == 0
