"""What stands in a connection file: where a controller is and the keys that it lets in, for one role."""

import os
import stat
import tempfile
from pathlib import Path
from typing import Final, Self

import msgspec

from hpc.errors import ConnectError, SecurityError
from hpc.security.host import boot_id, hostname, pid_space, start_ticks

VERSION: Final = 1
# A connection file is a few hundred bytes; whatever is larger is something else.
MAX_NBYTES: Final = 1024 * 1024


class ConnectionInfo(msgspec.Struct, kw_only=True, frozen=True):
    """What a peer needs to reach a controller and to be let in; the content of a connection file.

    Attributes
    ----------
    cluster, name : str
        The cluster's unique id (hexadecimal), and its name, which is that of its directory.
    role : str
        ``client``, ``engine`` or ``monitor``: what the keys are good for.
    host, boot_id : str
        Where the controller runs, and since which start of that machine.
    addresses, engine_addresses : list of str
        ``tcp://10.0.0.1:10000``, all that the controller may be found at; the second list is for engines, empty if
        they use the same port.
    unix : str
        Path of its unix socket on that host.
    server_key, public_key, secret_key : str
        CURVE: the controller's public key, and the key pair of the role.
    pid, started : int
        The controller's process, and when it began in clock ticks since boot.
    pid_space : str
        Where that number means that process, '' if it is not known.
    created : float
        When the file was written, seconds since the epoch.
    """

    cluster: str
    name: str
    role: str
    host: str
    boot_id: str
    addresses: list[str]
    server_key: str
    public_key: str
    secret_key: str
    engine_addresses: list[str] = []
    unix: str = ""
    pid: int = 0
    started: int = 0
    pid_space: str = ""
    created: float = 0.0
    version: int = VERSION

    def __repr__(self) -> str:
        return (
            f"<ConnectionInfo {self.role} of cluster {self.name!r} ({self.cluster[:8]}) on {self.host}, pid {self.pid}>"
        )

    def save(self, path: Path | str) -> None:
        """Write the file with mode 0600; whoever reads it sees all of it or nothing."""
        path = Path(path)
        content = msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"
        # mkstemp creates with mode 0600, so there is no moment at which others can read.
        fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a file.

        Raises
        ------
        SecurityError
            Others can read it, or it belongs to somebody else.
        ConnectError
            It is not there, or it is no connection file.
        """
        try:
            # A pipe in its place must not make anybody wait.
            with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise SecurityError(f"{path} is no regular file: not trusting it")
                if found.st_uid != os.geteuid():
                    raise SecurityError(f"{path} belongs to user {found.st_uid}, not to you: not trusting its keys")
                if found.st_mode & 0o077:
                    raise SecurityError(f"others can read the keys in {path}: chmod 600 {path} (and make new keys)")
                content = file.read(MAX_NBYTES)
        except OSError as error:
            raise ConnectError(f"cannot read the connection file {path}: {error.strerror}") from None
        try:
            version = msgspec.json.decode(content, type=_Version).version
            if version != VERSION:
                raise ConnectError(
                    f"{path} has version {version}, this release of hpc reads {VERSION}: use the release that wrote it"
                )
            return msgspec.json.decode(content, type=cls)
        except msgspec.MsgspecError as error:
            raise ConnectError(f"{path} is no connection file: {error}") from None

    def is_local(self) -> bool:
        """Say whether the controller runs on this host."""
        return self.host == hostname() and self.boot_id == boot_id()

    def is_stale(self) -> str:
        """Return why its controller is gone; '' if it may live (one on another host or in a container may)."""
        if self.host != hostname():
            return ""
        if self.boot_id != boot_id():
            return f"{self.host} was started again since"
        if self.pid_space and self.pid_space != pid_space():
            return ""  # in or from a container: its processes are not seen here
        started = start_ticks(self.pid)
        if not started:
            return f"its controller (process {self.pid}) is gone"
        if self.started and started != self.started:
            return f"its controller is gone: process {self.pid} is another one now"
        return ""


class _Version(msgspec.Struct):
    version: int
