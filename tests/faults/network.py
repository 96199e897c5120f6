"""Two hosts made of namespaces, the wire between them, and a cluster across it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.system import netns
from tests.system.conftest import Processes, wait_until

# The kernel leaves checksums and segmentation to the hardware, which the wire is none of.
OFFLOADS_OFF = """
import array, fcntl, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    for command in (0x17, 0x1F, 0x24, 0x2C):  # ETHTOOL_STXCSUM, STSO, SGSO, SGRO
        value = array.array("B", struct.pack("II", command, 0))
        fcntl.ioctl(sock, 0x8946, struct.pack("16sP", b"eth0", value.buffer_info()[0]))  # SIOCETHTOOL
"""
REPOSITORY = Path(__file__).parents[2]


def missing() -> str:
    """Say why there can be no such network here; '' if there can."""
    return netns.missing()


class Network(netns.Hosts):
    """Hosts h1 and h2, joined by a wire alone."""

    def __init__(self, directory: Path) -> None:
        super().__init__(2, directory)
        for name in ("p1", "p2"):
            self._ip("switch", "link", "set", name, "nomaster")
        for name in self.names:
            subprocess.run(self.on(name, sys.executable, "-c", OFFLOADS_OFF), check=True, timeout=20)
        self._wire = subprocess.Popen(
            self.on("switch", sys.executable, str(Path(__file__).with_name("wire.py")), "p1", "p2"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"]},
        )
        self._hear("ready\n")

    def _hear(self, expected: str) -> None:
        assert self._wire.stdout is not None
        said = self._wire.stdout.readline()
        assert said == expected, f"the wire says {said!r}"

    def wire(self, **settings: Any) -> None:
        """Have the wire do this from now on, and nothing else: see `tests.faults.wire.DEFAULTS`."""
        assert self._wire.stdin is not None
        self._wire.stdin.write(json.dumps(settings) + "\n")
        self._wire.stdin.flush()
        self._hear("set\n")

    def cut(self) -> None:
        """Let nothing through."""
        self.wire(cut=[0, 1])

    def close(self) -> None:
        """End the wire and the hosts."""
        assert self._wire.stdin is not None
        assert self._wire.stdout is not None
        self._wire.stdin.close()
        self._wire.wait(5)
        self._wire.stdout.close()
        super().close()


class Across:
    """A controller on h1, engines on h2, and clients on either."""

    def __init__(self, network: Network, processes: Processes, n: int) -> None:
        self.network, self.processes = network, processes
        self.directory = processes.home / "clusters" / "across"
        self.controller = self.run("h1", "-m", "hpc.cli.ipcontroller", "--name", "across", "--port", "0")
        wait_until(lambda: (self.directory / "engine.json").exists(), "the connection files")
        self.engines = [self.engine() for _ in range(n)]

    def run(self, host: str, *arguments: str) -> "subprocess.Popen[str]":
        """Run Python on a host."""
        log = open(self.processes.home / "across.log", "a")  # noqa: SIM115 - the process has it
        with log:
            process = subprocess.Popen(
                self.network.on(host, sys.executable, *arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                cwd=REPOSITORY,
            )
        self.processes._spawned.append(process)
        return process

    def engine(self, host: str = "h2") -> "subprocess.Popen[str]":
        """Start an engine."""
        return self.run(host, "-m", "hpc.cli.ipengine", "--no-mpi", "--name", "across")

    def load(self, host: str, **options: Any) -> "Load":
        """Start a client that submits tasks and counts what comes of them."""
        return Load(self.run(host, "-m", "tests.faults.load", json.dumps({"name": "across", **options})))


class Load:
    """The client program of `tests.faults.load`, from outside."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def hear(self) -> dict[str, Any]:
        """Return what it says next."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the client ended with status {self.process.wait(5)}"
        said: dict[str, Any] = json.loads(line)
        return said

    def stop(self, timeout_s: float = 60.0) -> dict[str, Any]:
        """Have it submit no more, wait for all results, and return its counts."""
        out, _ = self.process.communicate("stop\n", timeout_s)
        counts: dict[str, Any] = json.loads(out.splitlines()[-1])
        return counts
