"""What a controller can be told when it starts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

DEFAULT_PORT: Final = 10000


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerOptions:
    """How to start a controller.

    Attributes
    ----------
    name : str
        The cluster's name.
    ip : str
        Where to listen; ``*`` for all interfaces.
    port : int
        For all peers; 0 for any free one.
    engine_port : int, optional
        A second port, which connection files of engines name.
    grace_s : float
        How long an engine may be unreachable before it counts as lost.
    lease_s : float
        How long a client may be away before what is kept for it is dropped.
    policy : str
        What comes of it when an engine has crashed: ``report``, ``restart`` or ``survivors``.
    log_level : str
        ``debug``, ``info``, ``warning`` or ``error``.
    log_file : path, optional
        Where to log; standard error by default.
    """

    name: str = "default"
    ip: str = "*"
    port: int = DEFAULT_PORT
    engine_port: int | None = None
    grace_s: float = 30.0
    lease_s: float = 3600.0
    policy: str = "report"
    log_level: str = "info"
    log_file: str | Path | None = None
