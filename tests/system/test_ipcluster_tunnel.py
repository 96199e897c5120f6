"""``ipcluster tunnel``, with an ssh that leads to another HPC_DIR of this machine."""

import os
import signal
import sys
from pathlib import Path

import pytest

import hpc

from .conftest import IPCLUSTER, Processes, cli, read_until

# What sshd would do: run a command with the environment of a login there, or forward a port.
SSH = """#!{python}
import os, socket, subprocess, sys, threading
if "-L" not in sys.argv:
    environment = {{**os.environ, "HPC_DIR": {far!r}}}
    sys.exit(subprocess.run(["/bin/sh", "-c", sys.argv[-1]], env=environment).returncode)
near, host, far = sys.argv[sys.argv.index("-L") + 1].split(":")
server = socket.create_server(("127.0.0.1", int(near)))

def copy(a, b):
    while piece := a.recv(65536):
        b.sendall(piece)
    b.shutdown(socket.SHUT_WR)

while True:
    here, _ = server.accept()
    there = socket.create_connection((host, int(far)))
    for a, b in ((here, there), (there, here)):
        threading.Thread(target=copy, args=(a, b), daemon=True).start()
"""


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: Processes) -> Path:
    """Return the HPC_DIR of the far side; ``ssh`` leads there."""
    directory = processes.home / "far"
    directory.mkdir(mode=0o700)
    ssh = tmp_path / "ssh"
    ssh.write_text(SSH.format(python=sys.executable, far=str(directory)))
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return directory


def test_open_connect_close(far: Path, processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    near = os.environ["HPC_DIR"]
    monkeypatch.setenv("HPC_DIR", str(far))
    cluster = hpc.Cluster(n=1, name="heat").start()
    monkeypatch.setenv("HPC_DIR", near)
    tunnel = processes.spawn(*IPCLUSTER, "tunnel", "heat", "--via", "me@login", "--open")
    assert 'hpc.connect("heat")' in read_until(tunnel, "hpc.connect").replace("'", '"')
    with hpc.connect("heat") as rc:
        assert rc[0].apply_sync(os.getppid)
        assert "tcp" in repr(rc), "through the tunnel, not by the socket"
    tunnel.send_signal(signal.SIGINT)
    assert tunnel.wait(10) == 0
    assert not (Path(near) / "clusters" / "heat").exists()
    monkeypatch.setenv("HPC_DIR", str(far))
    said = cli("tunnel", "heat")
    assert said.stdout.startswith("ssh -N -o ExitOnForwardFailure=yes -L ")
    assert "--via" in said.stderr
    cluster.stop()


def test_what_is_not_there(far: Path) -> None:
    done = cli("tunnel", "heat", "--via", "login", check=False)
    assert done.returncode == 1
    assert "cannot get the connection file of cluster 'heat' from login" in done.stderr
    assert cli("tunnel", "--open", check=False).returncode == 2
    assert cli("tunnel", "../up", "--via", "login", check=False).returncode == 1
