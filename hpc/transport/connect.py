"""Finding the way to the controller: the unix socket if there is one, else the first address that answers."""

import errno
import os
import selectors
import socket
import struct
import time
from collections.abc import Sequence
from typing import Final

from hpc.errors import ConnectError
from hpc.transport.connection import Connection
from hpc.transport.credentials import peer_credentials

# An address that does not answer the first packet of TCP within this is not the one to use.
PROBE_S: Final = 2.0


def connect(
    *,
    unix: str = "",
    addresses: Sequence[str] = (),
    server_key: str = "",
    public_key: str = "",
    secret_key: str = "",
    timeout_s: float = 10.0,
) -> Connection:
    """Connect to the controller of a connection file.

    Parameters
    ----------
    unix : str
        Path of its unix socket if it runs on this host, else empty.
    addresses : sequence of str
        Where else it may be: ``tcp://10.0.0.1:10000``. All are probed at once, the first that answers is used.
    server_key, public_key, secret_key : str
        The controller's public key, and the key pair of the role that this process takes. Not used for ``unix``.
    timeout_s : float
        How long all of it may take.

    Raises
    ------
    ConnectError
        Nobody is there; it says what was tried.
    KeyRefused
        Somebody is there, but the keys do not fit.
    """
    deadline = time.monotonic() + timeout_s
    tried: list[str] = []
    kind, obstacle = ConnectError, ""
    if unix:
        try:
            return _connect_unix(unix, timeout_s)
        except OSError as error:
            # Another user's, or that of a container with other directories.
            obstacle = f"{unix}: {error.strerror or error}"
            tried.append(obstacle)
    left = list(addresses)
    while left and (found := _probe(left, max(0.0, min(PROBE_S, deadline - time.monotonic())), tried)):
        from hpc.transport.tcp import connect_tcp

        try:
            connection = connect_tcp(found, server_key, public_key, secret_key, deadline)
        except ConnectError as error:
            # A private address may mean another machine here: somebody answered, but the next may be the right one.
            tried.append(str(error))
            left.remove(found)
            kind = type(error)
        else:
            connection.obstacle = obstacle
            return connection
    what = "; ".join(dict.fromkeys(tried)) or "nothing: no address is known"
    raise kind(f"cannot connect to the controller. Tried {what}")


def _connect_unix(path: str, timeout_s: float) -> Connection:
    from hpc.transport.unix import UnixConnection

    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Not settimeout: a non-blocking connect fails at once when many peers come at the same time.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", *_timeval(timeout_s)))
        sock.connect(path)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 0))
        uid, pid = peer_credentials(sock)
        if uid != os.geteuid():
            raise ConnectError(f"{path} belongs to process {pid} of user {uid}: not connecting to a stranger")
        return UnixConnection(sock, path)
    except BaseException:
        sock.close()
        raise


def _timeval(seconds: float) -> tuple[int, int]:
    whole = int(seconds)
    return whole, max(1, int((seconds - whole) * 1_000_000))  # (0, 0) would mean for ever


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``tcp://host:port``; ``[...]`` around an IPv6 address is taken away."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    if not host or not port.isdigit():
        raise ConnectError(f"{address!r} is no address: tcp://host:port is needed")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _probe(addresses: Sequence[str], timeout_s: float, tried: list[str]) -> str:
    """Return the first address that accepts a TCP connection, '' if none does; append to ``tried`` what went wrong."""
    deadline = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        try:
            for address in addresses:
                try:
                    _begin(address, selector)
                except OSError as error:
                    tried.append(f"{address}: {error.strerror or error}")
            while selector.get_map() and (left_s := deadline - time.monotonic()) > 0:
                for key, _ in selector.select(left_s):
                    sock, address = key.fileobj, key.data
                    assert isinstance(sock, socket.socket)  # noqa: S101 - for the type checker
                    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not code:
                        return str(address)
                    tried.append(f"{address}: {os.strerror(code)}")
                    selector.unregister(sock)
                    sock.close()
            tried += [f"{key.data}: no answer within {timeout_s:g} s" for key in selector.get_map().values()]
            return ""
        finally:
            for key in list(selector.get_map().values()):
                assert isinstance(key.fileobj, socket.socket)  # noqa: S101
                key.fileobj.close()


def _begin(address: str, selector: selectors.BaseSelector) -> None:
    host, port = split_address(address)
    # A name means what zmq takes it for: IPv4. IPv6 has to be written as such.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    family, kind, proto, _, target = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        code = sock.connect_ex(target)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    selector.register(sock, selectors.EVENT_WRITE, address)
