"""Clusters of ours, as the benchmarks start them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil


@contextmanager
def cluster(n: int) -> Iterator[Any]:
    """Start a local cluster the way people do and give its `RemoteController`."""
    import hpc

    with hpc.Cluster(n=n) as rc:
        rc.wait_for_engines(n, timeout=60)
        yield rc


@contextmanager
def tcp_cluster(n: int) -> Iterator[Any]:
    """Start controller and engines whose every connection is TCP with CURVE, as between hosts.

    The connection files are written again without the unix socket, so that there is no shorter way.
    """
    import hpc

    name = f"tcp-{os.getpid()}"
    cli = [sys.executable, "-m", "hpc.cli."]
    with open(Path(os.environ["HPC_DIR"]) / f"{name}.log", "w") as log:
        processes = [_start([*cli[:2], cli[2] + "ipcontroller", "--name", name, "--port", "0"], log)]
        try:
            directory = Path(os.environ["HPC_DIR"]) / "clusters" / name
            files = {role: _without_unix(directory / f"{role}.json") for role in ("client", "engine")}
            command = [*cli[:2], cli[2] + "ipengine", "--connection-file", str(files["engine"]), "--no-mpi"]
            processes += [_start(command, log) for _ in range(n)]
            rc = hpc.connect(str(files["client"]))
            try:
                rc.wait_for_engines(n, timeout=60)
                yield rc
            finally:
                rc.close()
        finally:
            for process in reversed(processes):
                process.send_signal(signal.SIGTERM)
            for process in processes:
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _start(command: list[str], log: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _without_unix(path: Path, timeout_s: float = 20) -> Path:
    deadline = time.monotonic() + timeout_s
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no connection file {path} after {timeout_s} s")
        time.sleep(0.02)
    content = json.loads(path.read_text())
    content["unix"] = ""
    other = path.with_name(f"{path.stem}-tcp.json")
    with open(os.open(other, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(content, file)
    return other


def processes(rc: Any) -> tuple[int, list[int], list[int]]:
    """Return the pids of the controller, of the engines, and of all other processes that belong to the cluster."""
    engines: list[int] = rc[:].apply_sync(os.getpid)
    found = {}
    for path in Path(os.environ["HPC_DIR"]).glob("clusters/*/client.json"):
        found[path] = json.loads(path.read_text())["pid"]
    controllers = [pid for pid in found.values() if psutil.pid_exists(pid)]
    if len(controllers) != 1:
        raise RuntimeError(f"expected one controller, found {found}")
    controller = controllers[0]
    # The supervisor, if there is one, is the controller's parent; launchers are engines' parents.
    family = {psutil.Process(pid).ppid() for pid in (controller, *engines)}
    others = family - {1, os.getpid(), controller, *engines}
    return controller, engines, sorted(others)
