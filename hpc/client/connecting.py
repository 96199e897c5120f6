"""From what a person names a cluster by to a connection."""

import os
import pwd
import socket
import time
from pathlib import Path
from typing import TypeAlias

from hpc import __version__
from hpc.client.line import Connection
from hpc.client.waiting import jitter
from hpc.errors import ConnectError, KeyRefused
from hpc.security.connection import ConnectionInfo, find
from hpc.transport import connect as open_connection
from hpc.wire import codec
from hpc.wire import messages as m
from hpc.wire.session import Peer

Address: TypeAlias = tuple[str, int]

PAUSE_S = 0.2


class Target:
    """Which cluster is meant: by address, name or connection file; none of them means the newest that runs.

    After the first connection it means that very cluster.
    """

    def __init__(self, address: Address | None = None, name: str | None = None, path: Path | None = None) -> None:
        self.address = address
        self.name = name
        self.path = path
        self.info: ConnectionInfo | None = None

    def __repr__(self) -> str:
        return f"<Target {self}>"

    def __str__(self) -> str:
        if self.info is not None:
            return f"cluster {self.info.name!r} on {self.info.host}"
        if self.address is not None:
            return f"{self.address[0]}:{self.address[1]}"
        if self.path is not None:
            return str(self.path)
        return f"cluster {self.name!r}" if self.name is not None else "the newest cluster"

    @classmethod
    def of(cls, target: "str | os.PathLike[str] | Address | None") -> "Target":
        """Tell a name, a path and an address apart."""
        if target is None:
            return cls()
        if isinstance(target, tuple):
            host, port = target
            return cls(address=(str(host), int(port)))
        text = os.fspath(target)
        if isinstance(target, os.PathLike) or os.sep in text or text.endswith(".json"):
            return cls(path=Path(text).expanduser())
        return cls(name=text)

    def open(self, timeout_s: float) -> Connection:
        """Connect; while there is no controller to be found try again, until the time is over.

        Raises
        ------
        ConnectError
            It says what was looked for, what was tried, and what to do.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return self._open_once(max(1.0, deadline - time.monotonic()))
            except ConnectError as error:
                left_s = deadline - time.monotonic()
                # While a controller waits to be started its file may be an old one; one that was named is what it is.
                if left_s <= 0 or (isinstance(error, KeyRefused) and self.path is not None):
                    raise ConnectError(f"cannot connect to {self}: {error}") from None
                time.sleep(min(left_s, PAUSE_S * jitter()))

    def _open_once(self, timeout_s: float) -> Connection:
        info = find("client", name=self.name, address=self.address, path=self.path)
        if self.info is not None and info.cluster != self.info.cluster:
            info = self.info  # a newer cluster is not the one that this client was connected to
        connection = open_connection(
            unix=info.unix if info.is_local() else "",
            addresses=info.addresses,
            server_key=info.server_key,
            public_key=info.public_key,
            secret_key=info.secret_key,
            timeout_s=timeout_s,
        )
        self.info = info
        return connection


def new_peer() -> Peer:
    """Return a client's half of a new session."""
    return Peer(
        m.Hello(
            protocol=codec.PROTOCOL,
            software=__version__,
            role="client",
            session=os.urandom(16).hex(),
            channel="",
            received=0,
            host=socket.gethostname(),
            pid=os.getpid(),
            user=_user(),
        )
    )


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # an account without a name, as in some containers
        return str(os.getuid())
