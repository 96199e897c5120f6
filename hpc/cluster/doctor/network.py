"""The network: which addresses others can reach, and whether a port is to be had."""

import socket
from collections.abc import Callable, Mapping, Sequence

from hpc.cluster import ports
from hpc.cluster.doctor.finding import Finding, failed, ok, warning
from hpc.cluster.options import DEFAULT_PORT


def addresses() -> dict[str, list[str]]:
    """Return the IPv4 addresses of this machine's interfaces that are up."""
    import psutil

    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    return {
        name: found
        for name, entries in psutil.net_if_addrs().items()
        if name in up and (found := [entry.address for entry in entries if entry.family == socket.AF_INET])
    }


def reachable(found: Mapping[str, Sequence[str]], wanted: str = "") -> list[str]:
    """Return the addresses, of the wanted interface or of all, that are not this machine's alone."""
    return [ip for name, ips in found.items() if wanted in ("", name) for ip in ips if not ip.startswith("127.")]


def interfaces(found: Mapping[str, Sequence[str]], wanted: str = "", *, nodes: bool = False) -> Finding:
    """Look for an address that other hosts can use; ``nodes`` says that engines will run there."""
    check = "interfaces"
    known = ", ".join(f"{name} {' '.join(ips)}" for name, ips in found.items()) or "none has an address"
    if wanted and wanted not in found:
        return failed(check, f"no interface {wanted} with an address here: {known}", "name another one in the profile")
    if reachable(found, wanted) or not nodes:
        return ok(check, known)
    return failed(
        check,
        f"only this machine itself reaches it: {known}",
        "run the controller in the job (`ipcluster submit`), or connect this machine to the nodes' network",
    )


def host_name(resolve: Callable[[str], str] = socket.gethostbyname) -> Finding:
    """Look up this machine's own name, as mpirun does."""
    name = socket.gethostname()
    try:
        return ok("host name", f"{name} is {resolve(name)}")
    except OSError as error:
        return warning(
            "host name",
            f"{name} has no address ({error.strerror}): mpirun waits for it in vain, or refuses",
            f"give it one: echo '127.0.1.1 {name}' >> /etc/hosts",
        )


def port(choose: Callable[[str], tuple[int, str]] = ports.choose, ip: str = "") -> Finding:
    """See whether a controller can listen."""
    default, _ = choose("*")
    try:
        with socket.create_server((ip, default)) as probe:
            number = probe.getsockname()[1]
    except OSError as error:
        return failed(
            "ports", f"none can be listened at: {error.strerror}", "see what forbids it: a container, or a policy"
        )
    if default == DEFAULT_PORT:
        return ok("ports", f"{DEFAULT_PORT} is free")
    return ok("ports", f"{DEFAULT_PORT} is taken, others are free, such as {number}: clusters take one by themselves")
