"""How an engine ended: what is known of it, from whom it came, and what to call it. Pure."""

import math
import re
import signal as signals
from dataclasses import dataclass, field
from typing import Final

from hpc.wire import messages as m

# What the ranks of MPICH and of Open MPI print when one of them calls MPI_Abort, or an error in MPI is fatal.
_ABORTS: Final = (
    re.compile(r"Abort\(-?\d+\) on node \d+(?: \(rank (\d+) in comm 0\))?"),
    re.compile(r"MPI_ABORT was invoked on rank (\d+) in communicator"),
    re.compile(r"MPI_ERRORS_ARE_FATAL()"),
)
# What launchers say of a crash, which is about themselves. (Whom MPICH's blames there need not be the one who did it.)
_BANNERS: Final = re.compile(
    r"^(=|-{8}|YOUR APPLICATION TERMINATED|This typically refers|Please see the FAQ|\S+ noticed that process rank)"
)
# What srun and job scripts print.
_OOM: Final = re.compile(r"oom[-_ ]kill", re.IGNORECASE)
# By these a launcher ends the other ranks when one has crashed.
_CONSEQUENCES: Final = (signals.SIGKILL, signals.SIGTERM)


@dataclass(slots=True)
class Fate:
    """What is known of an end, -1 for what is not. ``lines`` are the last of its stderr, ``goodbye`` what it has said.

    ``aborts``: it has said that it calls MPI_Abort. What ranks or launchers print of that names another one, perhaps.

    Whoever started the process will tell more (``awaits_report``), has shown the log (``heard``), or has told all that
    it knows (``reported``).
    """

    signal: int = -1
    exit_code: int = -1
    oom: bool = False
    lines: list[str] = field(default_factory=list)
    goodbye: str = ""
    aborts: bool = False
    died_at: float = math.inf
    launch_ended_at: float = -math.inf
    awaits_report: bool = False
    heard: bool = False
    reported: bool = False

    def add(self, signal: int, exit_code: int, lines: str, *, oom: bool, reported: bool) -> None:
        """Take in what somebody says."""
        if self.signal < 0 and self.exit_code < 0:
            self.signal, self.exit_code = signal, exit_code
        self.oom = self.oom or oom
        self.reported = self.reported or reported
        self.lines = lines.splitlines() or self.lines

    @property
    def known(self) -> bool:
        """Whether there is a status."""
        return self.signal >= 0 or self.exit_code >= 0

    @property
    def aborted(self) -> int | None:
        """The rank that called MPI_Abort; -1 if some rank did, None if none."""
        for line in self.lines:
            for pattern in _ABORTS:
                if found := pattern.search(line):
                    return int(found[1]) if found[1] else -1
        return None

    @property
    def is_enough(self) -> bool:
        """Whether nothing that changes the picture is to be expected.

        Who made a launcher end all ranks is said in the words of that one, which may still be on their way.
        """
        if self.reported or (self.known and not self.awaits_report):
            return True
        if self.aborts or self.aborted is not None:
            return self.heard and (self.known or bool(self.goodbye))
        return self.heard and self.known and not self.goodbye and self.signal not in _CONSEQUENCES

    @property
    def stderr(self) -> str:
        """The lines, without those that launchers add to each crash."""
        return "\n".join(line for line in self.lines if not _BANNERS.match(line))

    def is_cause(self, rank: int) -> bool:
        """Say whether this end of a rank looks like the reason for those of others, not like one of their kind."""
        if self.aborts:
            return True
        if self.aborted is not None and self.aborted >= 0:
            return self.aborted == rank
        return self.oom or (self.known and self.signal not in _CONSEQUENCES and self.exit_code != 0)

    def verdict(self) -> tuple[m.EndReason, str]:
        """Return the reason, and the words for it."""
        text = describe_status(self.signal, self.exit_code)
        if self.oom or (self.signal == signals.SIGKILL and any(map(_OOM.search, self.lines))):
            return m.EndReason.OUT_OF_MEMORY, f"{text} because memory ran out"
        if self.aborts or self.aborted is not None:
            return m.EndReason.MPI_ABORT, f"{text} after MPI_Abort" if self.known else "called MPI_Abort"
        return (m.EndReason.SIGNAL if self.signal > 0 else m.EndReason.EXIT), text


def describe_status(signal: int, exit_code: int) -> str:
    """Say how a process ended."""
    if signal > 0:
        try:
            return f"was killed by {signals.Signals(signal).name}"
        except ValueError:
            return f"was killed by signal {signal}"
    return f"exited with status {exit_code}" if exit_code >= 0 else "ended, its exit status is not known"
