"""What is said between a supervisor and whoever started it: options down its stdin, events up its stdout.

One JSON object a line. Plain tuples and `json`, because both sides want to be up before anything heavier is imported.
"""

import json
import math
import os
from typing import Final, NamedTuple

DEFAULT_PORT: Final = 10000
DEFAULT_NAME: Final = "default"
LAUNCHERS: Final = ("local", "mpiexec")
# After the options the starter keeps the supervisor's stdin open, its end ends the cluster; unless this came before.
DETACH: Final = b"detach"


class ClusterOptions(NamedTuple):
    """What to start.

    ``name`` is empty for "default", or the next free one after it. ``port`` -1 is 10000 or, where that is taken, any;
    0 is any. ``log_level`` is the controller's and the engines'. ``argv`` is what the person typed, for the record.
    """

    n: int
    name: str = ""
    launcher: str = "local"
    ip: str = "127.0.0.1"
    port: int = -1
    engine_port: int = -1
    start_timeout_s: float = 60.0
    grace_s: float = 3.0
    log_level: str = "info"
    argv: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """Return one line, ended by a newline."""
        return json.dumps(self._asdict()).encode() + b"\n"

    @classmethod
    def from_json(cls, line: bytes) -> "ClusterOptions":
        """Read what `to_json` wrote."""
        fields = json.loads(line)
        return cls(**{**fields, "argv": tuple(fields["argv"])})


class Event(NamedTuple):
    """What a supervisor reports.

    ``kind`` is ``claimed`` (name, logs, and in ``text`` what is worth saying about the name), ``controller`` (it
    listens: pid, address), ``launcher`` (``text`` says which), ``engines`` (``up`` of ``of`` are registered), ``ready``
    (all of them), ``lost`` (``text`` says which engine and why), or, last of all, ``ended`` (``text`` is the reason,
    ``logs`` is empty if they are removed).
    """

    kind: str
    text: str = ""
    name: str = ""
    logs: str = ""
    host: str = ""
    port: int = 0
    pid: int = 0
    up: int = 0
    of: int = 0
    failed: bool = False
    tail: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """Return one line, ended by a newline; fields that have their defaults are left out."""
        fields = {k: v for k, v in self._asdict().items() if v != self._field_defaults.get(k)}
        return json.dumps(fields).encode() + b"\n"

    @classmethod
    def from_json(cls, line: bytes) -> "Event":
        """Read what `to_json` wrote."""
        fields = json.loads(line)
        return cls(**{**fields, "tail": tuple(fields.get("tail", ()))})


def default_n() -> int:
    """Return how many engines to start where nobody says: one for each core that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def check(options: ClusterOptions) -> None:
    """Raise `ValueError`, naming the field, for options that cannot be meant."""
    if options.n < 0:
        raise ValueError(f"n is {options.n}: the number of engines cannot be negative")
    if options.launcher not in LAUNCHERS:
        raise ValueError(f"launcher is {options.launcher!r}: choose one of {', '.join(LAUNCHERS)}")
    for field, port in (("port", options.port), ("engine_port", options.engine_port)):
        if not -1 <= port <= 65535:
            raise ValueError(f"{field} is {port}: a port is a number from 0 (any free one) to 65535")
    if not (options.start_timeout_s > 0 and math.isfinite(options.start_timeout_s)):
        raise ValueError(f"timeout is {options.start_timeout_s}: give a positive number of seconds")
