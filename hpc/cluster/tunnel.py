"""The way to a controller behind a login node: one ssh, one forwarded port, and the connection file at this end."""

import contextlib
import shlex
import shutil
import socket
import subprocess
from dataclasses import dataclass
from typing import Final

import msgspec

from hpc.errors import ConnectError
from hpc.security.folders import check_name, cluster_dir, clusters_dir
from hpc.security.info import MAX_NBYTES, ConnectionInfo

ASK_TIMEOUT_S: Final = 60.0
# Where `hpc.security.folders` puts it there, by the environment that a login shell has.
_SHOW: Final = 'uname -n; cat "${HPC_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/hpc}/clusters/%s/client.json"'


@dataclass(frozen=True)
class Tunnel:
    """From ``port`` of this machine to a controller, by way of ``via`` as ssh knows it."""

    via: str
    host: str
    controller_port: int
    port: int

    def command(self) -> list[str]:
        """Return the ssh that is the tunnel; it ends at once if the port cannot be forwarded."""
        forward = f"{self.port}:{self.host}:{self.controller_port}"
        return ["ssh", "-N", "-o", "ExitOnForwardFailure=yes", "-L", forward, self.via]

    def __str__(self) -> str:
        return shlex.join(self.command())

    def start(self) -> "subprocess.Popen[bytes]":
        """Start ssh, which may ask for a password at the terminal."""
        return subprocess.Popen(self.command(), stdin=subprocess.DEVNULL)


def to(info: ConnectionInfo, via: str) -> Tunnel:
    """Return the tunnel to a controller; at this end the port has the same number, if that is free."""
    host, _, port = info.addresses[0].removeprefix("tcp://").rpartition(":")
    return Tunnel(via, host, int(port), _free_port(int(port)))


def fetch(via: str, name: str) -> ConnectionInfo:
    """Return a client's connection file of a cluster there, by ssh.

    Raises
    ------
    ConnectError
        It cannot be had; it says what ssh said.
    """
    check_name(name)
    command = ["ssh", via, _SHOW % name]
    try:
        done = subprocess.run(command, capture_output=True, timeout=ASK_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConnectError(f"cannot ask {via}: {error}") from None
    if done.returncode or len(done.stdout) > MAX_NBYTES:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ConnectError(f"cannot get the connection file of cluster {name!r} from {via}: {said[0]}")
    try:
        there, _, content = done.stdout.partition(b"\n")
        info = msgspec.json.decode(content, type=ConnectionInfo)
    except msgspec.MsgspecError as error:
        raise ConnectError(f"what {via} sent is no connection file: {error}") from None
    if info.addresses[0].startswith("tcp://127.") and there.decode(errors="replace").strip() != info.host:
        raise ConnectError(
            f"the controller of {name!r} on {info.host} listens for that host only: start it with --ip '*'"
        )
    return info


def install(info: ConnectionInfo, tunnel: Tunnel) -> str:
    """Keep the connection file of the far cluster among those of this user, and return the name to connect by.

    Raises
    ------
    ConnectError
        A cluster of that name is here, too, and one with the name of the host behind it.
    """
    for name in (info.name, f"{info.name}-{info.host}"):
        if not (clusters_dir() / name).exists():
            break
    else:
        raise ConnectError(
            f"there are clusters {info.name!r} and {name!r} here: end one, or set HPC_DIR to another place"
        )
    near = msgspec.structs.replace(info, name=name, addresses=[f"tcp://127.0.0.1:{tunnel.port}"], unix="")
    near.save(cluster_dir(name) / "client.json")
    return name


def remove(name: str) -> None:
    """Remove what `install` has made."""
    shutil.rmtree(clusters_dir() / name, ignore_errors=True)


def wait_open(tunnel: Tunnel, process: "subprocess.Popen[bytes]", pause_s: float = 0.1) -> None:
    """Wait until the near end listens; raise `ConnectError` if ssh ends instead."""
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", tunnel.port), 1.0):
            return
        try:
            raise ConnectError(f"ssh has ended with exit code {process.wait(pause_s)}: {tunnel}")
        except subprocess.TimeoutExpired:
            continue


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise ConnectError("no port is free on this machine")
