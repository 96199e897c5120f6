"""Hosts made of namespaces: each has its own network, address, name, /etc/hosts and /dev/shm, and one wire joins them.

What they share is what hosts of a cluster share: the file system, and the clock. Needs root and iproute2.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NETWORK = "10.213.77"
# What reaches a program on another host; ssh would not pass on more either.
PASSED_ON = ("PATH", "HOME", "LANG", "HPC_", "XDG_RUNTIME_DIR", "PYTHONPATH", "VIRTUAL_ENV", "OMPI_", "PRTE_", "UCX_")
PASSED_ON += ("MPI4PY_", "LD_LIBRARY_PATH")

# The holder of a host: it lives, and the host with it, as long as its standard input is open.
HOLDER = """
set -e
hostname "$0"
mount -t tmpfs tmpfs /dev/shm
mount --bind "$1" /etc/hosts
ip link set lo up
echo ready
exec cat
"""
SWITCH = """
set -e
ip link set lo up
ip link add br0 type bridge
ip link set br0 up
echo ready
exec cat
"""
# What mpirun calls instead of ssh: options, the host, and the command as one or several words.
AGENT = """#!/bin/sh
while [ "${{1#-}}" != "$1" ]; do shift; done
host=${{1#*@}}; shift
case $host in
{cases}
*) echo "no host $host" >&2; exit 255 ;;
esac
exec nsenter --target "$pid" --net --uts --mount --root --wd env -i {variables} sh -c "$*"
"""


def missing() -> str:
    """Say why there can be no such hosts here; "" if there can."""
    if sys.platform != "linux":
        return "namespaces are Linux's"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    for program in ("ip", "unshare", "nsenter", "hostname"):
        if shutil.which(program) is None:
            return f"no {program} on PATH"
    made = subprocess.run(
        ["unshare", "--net", "--uts", "--mount", "sh", "-c", "ip link add br0 type bridge && ip link add v0 type veth"],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if made.returncode == 0 else f"no namespaces, bridges or veth links here: {made.stderr.strip()}"


class Hosts:
    """Hosts h1 to hN with the addresses 10.213.77.1 to N, until `close`."""

    def __init__(self, n: int, directory: Path) -> None:
        self.names = [f"h{i}" for i in range(1, n + 1)]
        self.addresses = {name: f"{NETWORK}.{i}" for i, name in enumerate(self.names, 1)}
        self._holders: dict[str, subprocess.Popen[str]] = {}
        self._directory = directory
        table = directory / "hosts"
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in self.addresses.items())]
        table.write_text("\n".join(lines) + "\n")
        try:
            self._hold("switch", SWITCH)
            for i, name in enumerate(self.names, 1):
                self._hold(name, HOLDER, name, str(table))
                pid = str(self._holders[name].pid)
                self._ip("switch", "link", "add", f"p{i}", "type", "veth", "peer", "name", "eth0", "netns", pid)
                self._ip("switch", "link", "set", f"p{i}", "master", "br0", "up")
                self._ip(name, "addr", "add", f"{self.addresses[name]}/24", "dev", "eth0")
                self._ip(name, "link", "set", "eth0", "up")
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<Hosts {', '.join(self.names)}>"

    def _hold(self, name: str, script: str, *arguments: str) -> None:
        spaces = ["--net", "--uts", "--mount", "--propagation", "private"]
        holder = subprocess.Popen(
            ["unshare", *spaces, "sh", "-c", script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"]},  # or it would be looked upon as left behind by the test
        )
        self._holders[name] = holder
        assert holder.stdout is not None
        said = holder.stdout.readline()
        assert said == "ready\n", f"{name} cannot be made: it ended with status {holder.wait(5)}"

    def _ip(self, name: str, *arguments: str) -> None:
        subprocess.run(self.on(name, "ip", *arguments), check=True, timeout=10)

    def on(self, name: str, *command: str) -> list[str]:
        """Return the command that runs a command on a host, with this process's environment."""
        spaces = ("--net", "--uts", "--mount", "--root", "--wd")
        return ["nsenter", "--target", str(self._holders[name].pid), *spaces, *command]

    def agent(self, environment: dict[str, str]) -> str:
        """Write the program that mpirun is to call instead of ssh; return its path."""
        cases = "\n".join(f"{name}) pid={self._holders[name].pid} ;;" for name in self.names)
        passed = {key: value for key, value in environment.items() if key.startswith(PASSED_ON)}
        variables = " ".join(f"'{key}={value}'" for key, value in passed.items())
        path = self._directory / "rsh"
        path.write_text(AGENT.format(cases=cases, variables=variables))
        path.chmod(0o755)
        return str(path)

    def close(self) -> None:
        """End the hosts; what still runs there keeps them alive."""
        for holder in self._holders.values():
            assert holder.stdin is not None
            assert holder.stdout is not None
            holder.stdin.close()
            holder.wait(5)
            holder.stdout.close()
