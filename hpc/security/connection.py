"""Connection files: what they hold, where they are, and which one is meant."""

import socket
from pathlib import Path

import msgspec

from hpc.errors import ConnectError, SecurityError
from hpc.security.folders import base_dir, check_name, cluster_dir, clusters_dir, runtime_dir
from hpc.security.host import hostname
from hpc.security.info import ConnectionInfo

__all__ = [
    "ConnectionInfo",
    "advertised",
    "base_dir",
    "cluster_dir",
    "clusters",
    "clusters_dir",
    "find",
    "matches",
    "runtime_dir",
]

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def clusters(role: str = "client") -> list[ConnectionInfo]:
    """Return the connection files of all clusters, the newest first; stale ones too, unreadable ones not."""
    return _clusters(role)[0]


def _clusters(role: str) -> tuple[list[ConnectionInfo], list[str]]:
    """Return the connection files of all clusters, the newest first, and why some cannot be used."""
    found, refused = [], []
    for path in clusters_dir().glob(f"*/{role}.json"):
        try:
            found.append(ConnectionInfo.load(path))
        except (ConnectError, SecurityError) as error:
            refused.append(str(error))
    return sorted(found, key=lambda info: info.created, reverse=True), refused


def find(
    role: str,
    *,
    name: str | None = None,
    address: tuple[str, int] | None = None,
    path: Path | str | None = None,
) -> ConnectionInfo:
    """Return the newest connection file for that role that fits and whose controller may be alive.

    Parameters
    ----------
    role : str
        ``client``, ``engine`` or ``monitor``.
    name, address, path
        The cluster's name; host and port of its controller; the file, or the directory that holds it. At most one;
        with none of them, the newest cluster.

    Raises
    ------
    ConnectError
        Nothing fits; it says what was looked for, where, and what to do.
    SecurityError
        The file that was asked for is not private.
    """
    if path is not None:
        return _at(Path(path), role)
    if name is not None:
        return _named(name, role)
    known, refused = _clusters(role)
    if address is not None:
        known = [info for info in known if matches(info, *address)]
    for info in known:
        if not info.is_stale():
            return info if address is None else _towards(info, *address)
    what = f"{address[0]}:{address[1]}" if address else "any cluster"
    gone = "".join(f"; {info.name!r} was there, but {info.is_stale()}" for info in known[:3])
    gone += "".join(f"; {reason}" for reason in refused[:3])
    raise ConnectError(
        f"no {role} connection file for {what} in {clusters_dir()}{gone}. Start a cluster with `ipcluster -n 4`"
        + (f", or copy its {role}.json from the controller's machine and name that file" if address else "")
    )


def _at(path: Path, role: str) -> ConnectionInfo:
    info = ConnectionInfo.load(path / f"{role}.json" if path.is_dir() else path)
    if info.role != role:
        raise ConnectError(f"{path} holds keys for the role {info.role}, not {role}: use {role}.json")
    reason = info.is_stale()
    if reason:
        raise ConnectError(f"{path} is of a cluster that ended: {reason}")
    return info


def _named(name: str, role: str) -> ConnectionInfo:
    check_name(name)
    file = clusters_dir() / name / f"{role}.json"
    if not file.exists():
        others = ", ".join(repr(info.name) for info in clusters(role) if not info.is_stale()) or "none"
        raise ConnectError(
            f"there is no cluster {name!r}: no {file}. Running: {others}. Start it with `ipcluster start --name {name}`"
        )
    info = ConnectionInfo.load(file)
    reason = info.is_stale()
    if reason:
        raise ConnectError(f"the cluster {name!r} ended: {reason}. Start it with `ipcluster start --name {name}`")
    return info


def advertised(info: ConnectionInfo) -> list[tuple[str, int]]:
    """Return host and port of every address that the role of the file may use, those that are meant for it first."""
    pairs = []
    for address in (*info.engine_addresses, *info.addresses) if info.role == "engine" else info.addresses:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        pairs.append((host.strip("[]"), int(port)))
    return pairs


def matches(info: ConnectionInfo, host: str, port: int) -> bool:
    """Say whether ``host:port`` may mean the controller of this file.

    The port must be right. A host is right if it is advertised, if it is the controller's by name (with or without the
    domain), if it is a loopback (here, or the end of a tunnel), or if its name means an advertised address.
    """
    pairs = advertised(info)
    if port not in {advertised_port for _, advertised_port in pairs}:
        return False
    hosts = {advertised_host for advertised_host, _ in pairs}
    if host in hosts or host in _LOOPBACK or _short(host) == _short(info.host):
        return True
    if info.is_local() and _short(host) == _short(hostname()):
        return True
    try:
        meant = {str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except OSError:
        return False
    return bool(meant & hosts) or (info.is_local() and bool(meant & _LOOPBACK))


def _short(host: str) -> str:
    is_name = any(letter.isalpha() for letter in host) and ":" not in host
    return host.partition(".")[0].lower() if is_name else host


def _towards(info: ConnectionInfo, host: str, port: int) -> ConnectionInfo:
    """Return the file with the address that was asked for in front."""
    asked = f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
    if info.role == "engine" and info.engine_addresses:
        rest = [address for address in info.engine_addresses if address != asked]
        return msgspec.structs.replace(info, engine_addresses=[asked, *rest])
    rest = [address for address in info.addresses if address != asked]
    return msgspec.structs.replace(info, addresses=[asked, *rest])
