"""Finding the controller, again if need be."""

from pathlib import Path
from typing import Any, Final

from hpc import transport
from hpc.errors import ConnectError
from hpc.security import connection

ATTEMPT_S: Final = 10.0


class Dialer:
    """Makes connections to one and the same cluster, wherever its controller is by then.

    Parameters
    ----------
    name, address, path
        As for `hpc.security.connection.find`.
    """

    def __init__(self, name: str | None, address: tuple[str, int] | None, path: str | Path | None) -> None:
        self._wanted: dict[str, Any] = {"name": name, "address": address, "path": path}
        self._info: connection.ConnectionInfo | None = None
        self._cluster = ""

    def __repr__(self) -> str:
        return f"<Dialer {self._info!r}>" if self._info else f"<Dialer {self._wanted}>"

    def __call__(self) -> transport.Connection:
        """Connect.

        Raises
        ------
        ConnectError
            There is no connection file, or nobody answers; it says what was tried.
        SecurityError
            The connection file is not to be trusted.
        """
        info = self._info or connection.find(role="engine", **self._wanted)
        if self._cluster not in ("", info.cluster):
            raise ConnectError(f"cluster {self._cluster[:8]} is gone, {info.cluster[:8]} is in its place")
        self._info = None  # look it up again, unless this succeeds
        made = transport.connect(
            unix=info.unix if info.is_local() else "",
            addresses=info.engine_addresses or info.addresses,
            server_key=info.server_key,
            public_key=info.public_key,
            secret_key=info.secret_key,
            timeout_s=ATTEMPT_S,
        )
        self._info, self._cluster = info, info.cluster
        return made
