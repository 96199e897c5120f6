"""A controller's identity: its keys, its addresses, the connection files that carry both to its peers."""

import contextlib
import os
import socket
import struct
import sys
import time
import uuid
from dataclasses import replace
from typing import Final

from hpc.controller.keyring import ROLES, KeyRing
from hpc.controller.options import ControllerOptions
from hpc.errors import ConnectError
from hpc.security.connection import advertised, clusters
from hpc.security.folders import SOCKET_NAME, cluster_dir, runtime_dir
from hpc.security.host import boot_id, hostname, own_start_ticks, pid_space
from hpc.security.info import ConnectionInfo
from hpc.transport import new_keypair

_SIOCGIFCONF: Final = 0x8912
_IFREQ_NBYTES: Final = 40


class Files:
    """Keys made for this run, and where they are written."""

    def __init__(self, options: ControllerOptions) -> None:
        self.options = options = replace(options, ip=address_of(options.ip))
        self.cluster = uuid.uuid4().hex
        self.directory = cluster_dir(options.name)
        refuse_second(options.name)
        self.runtime = runtime_dir(self.cluster)
        self.unix = str(self.runtime / SOCKET_NAME)
        self.server_public, self.server_secret = new_keypair()
        self.keys = KeyRing()
        self.addresses: list[str] = []
        self._ports: list[int] = []

    def __repr__(self) -> str:
        return f"<Files of cluster {self.options.name!r} ({self.cluster[:8]}) in {self.directory}>"

    def authorise(self, public_key: str) -> str | None:
        """Return the role that a public key stands for."""
        return self.keys.authorise(public_key)

    def endpoints(self) -> list[str]:
        """Return what to bind: the port for all, then that for engines if there is one."""
        options = self.options
        ip = f"[{options.ip}]" if ":" in options.ip else options.ip
        ports = [options.port]
        # Port 0 twice means two ports; any other number twice means one.
        if options.engine_port is not None and (options.engine_port != options.port or not options.port):
            ports.append(options.engine_port)
        return [f"tcp://{ip}:{port}" for port in ports]

    def write(self, ports: list[int]) -> None:
        """Write a connection file for each role, and the controller's own."""
        self._ports = ports
        hosts = interfaces() if self.options.ip == "*" else [self.options.ip]
        self.addresses = _addresses(hosts, ports[0])
        engine_addresses = _addresses(hosts, ports[1]) if len(ports) > 1 else []
        created = time.time()
        for role in (*ROLES, "controller"):
            public, secret = self.server_public, self.server_secret
            if role in ROLES:
                own = self.keys.own(role)
                public, secret = own.public, own.secret
            info = ConnectionInfo(
                cluster=self.cluster,
                name=self.options.name,
                role=role,
                host=hostname(),
                boot_id=boot_id(),
                addresses=self.addresses,
                engine_addresses=engine_addresses,
                unix=self.unix,
                server_key=self.server_public,
                public_key=public,
                secret_key=secret,
                pid=os.getpid(),
                started=own_start_ticks(),
                pid_space=pid_space(),
                created=created,
            )
            info.save(self.directory / f"{role}.json")

    def write_again(self) -> None:
        """Write the connection files once more, with the keys of now."""
        self.write(self._ports)

    def remove(self) -> None:
        """Remove the connection files, unless another controller has put its own there, and the runtime directory."""
        for role in (*ROLES, "controller"):
            path = self.directory / f"{role}.json"
            with contextlib.suppress(Exception):
                if ConnectionInfo.load(path).cluster == self.cluster:
                    path.unlink()
        for directory in (self.runtime, self.directory):
            with contextlib.suppress(OSError):  # not empty: the supervisor keeps its record and the logs there
                directory.rmdir()


def refuse_second(name: str) -> None:
    """Raise `ConnectError` if a cluster with that name has a controller that lives."""
    for info in clusters("client"):
        if info.name == name and not info.is_stale():
            raise ConnectError(
                f"cluster {name!r} has a controller already: pid {info.pid} on {info.host}."
                f" End it with `ipcluster stop --name {name}`, or choose another name with --name"
            )


def explain_busy(error: OSError, options: ControllerOptions) -> ConnectError:
    """Say why the ports cannot be had, and what to do."""
    wanted = {options.port, options.engine_port} - {0, None}
    for info in clusters("client"):
        taken = {port for _, port in advertised(info)} & wanted
        if taken and info.host == hostname() and not info.is_stale():
            return ConnectError(
                f"port {taken.pop()} is in use by the controller of cluster {info.name!r} (pid {info.pid})."
                f" End that with `ipcluster stop --name {info.name}`, or choose another port with --port"
            )
    return ConnectError(f"{error.strerror or error}. Choose another port with --port; 0 takes any free one")


def _addresses(hosts: list[str], port: int) -> list[str]:
    return [f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}" for host in hosts]


def address_of(ip: str) -> str:
    """Return the address of the interface that is called so (``ib0``); whatever is no interface stays as it is."""
    return next((address for name, address in _named() if name == ip), ip)


def interfaces() -> list[str]:
    """Return the IPv4 addresses of this host, loopback last: of use through a tunnel only."""
    found = dict.fromkeys(address for _, address in _named())
    return [*(address for address in found if not address.startswith("127.")), "127.0.0.1"]


def _named() -> list[tuple[str, str]]:
    """List the interfaces of this host, by name and IPv4 address."""
    if sys.platform == "linux":
        found = _ask_kernel()
    else:
        import psutil

        found = [
            (name, address.address)
            for name, addresses in psutil.net_if_addrs().items()
            for address in addresses
            if address.family == socket.AF_INET
        ]
    return found


def _ask_kernel() -> list[tuple[str, str]]:
    """List them by netdevice(7), SIOCGIFCONF."""
    import array
    import fcntl

    buffer = array.array("B", bytes(256 * _IFREQ_NBYTES))
    address, length = buffer.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock.fileno(), _SIOCGIFCONF, struct.pack("iP", length, address))
    (nbytes,) = struct.unpack_from("i", answer)
    raw = buffer.tobytes()
    # struct ifreq: 16 bytes of name, then a sockaddr_in: family, port, address.
    return [
        (raw[at : at + 16].partition(b"\0")[0].decode(errors="replace"), socket.inet_ntoa(raw[at + 20 : at + 24]))
        for at in range(0, nbytes, _IFREQ_NBYTES)
    ]
