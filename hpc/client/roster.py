"""What the client knows of the engines: those that are there, and how the others went."""

import logging
import signal
from collections.abc import Callable

from hpc.wire import messages as m

log = logging.getLogger("hpc")

# These ends are nothing to warn of: somebody asked for it, or it was known beforehand.
_IN_ORDER = (m.EndReason.SHUTDOWN, m.EndReason.GOODBYE, m.EndReason.WALLTIME, m.EndReason.PREEMPTED)


class Roster:
    """Engines by id. The thread that receives changes it, under the lock of its link.

    Attributes
    ----------
    engines : dict of int to EngineRow
        Those that are there. The dict is replaced at each change, never changed: who holds it may iterate over it.
    departed : dict of int to End
        How the others ended; an id that is used again leaves it.
    known : bool
        Whether the controller has sent its list yet.
    on_lost : list of callables
        Called with the `End` of each engine that ends otherwise than in order.
    """

    def __init__(self) -> None:
        self.engines: dict[int, m.EngineRow] = {}
        self.departed: dict[int, m.End] = {}
        self.lost: list[m.End] = []
        self.known = False
        self.version = 0
        self.on_lost: list[Callable[[m.End], object]] = []

    def __repr__(self) -> str:
        return f"<Roster engines {sorted(self.engines)}, departed {sorted(self.departed)}>"

    def update(self, message: m.Engines) -> list[m.End]:
        """Take a message of the controller in; return the engines that were lost."""
        engines = {} if message.snapshot else dict(self.engines)
        for row in message.joined:
            engines[row.id] = row
            self.departed.pop(row.id, None)
        lost = []
        for end in message.left:
            engines.pop(end.id, None)
            repeated = self.departed.get(end.id) == end
            self.departed[end.id] = end
            if end.reason not in _IN_ORDER and not repeated:
                lost.append(end)
        self.engines = dict(sorted(engines.items()))
        self.lost += lost
        self.known = True
        self.version += 1
        return lost

    def place(self, engine_id: int) -> tuple[int, str]:
        """Return rank and host of an engine, also of one that is gone."""
        row = self.engines.get(engine_id) or self.departed.get(engine_id)
        return (row.rank, row.host) if row is not None else (0, "")


def describe_end(end: m.End) -> str:
    """Say which engine ended and how: ``engine 3 (rank 1, host n2, pid 4711) was killed by signal 9 (SIGKILL)``."""
    text = f"engine {end.id} (rank {end.rank}, host {end.host}, pid {end.pid}) {_how(end)}"
    if end.stderr:
        text += "; the last lines on its stderr:" + "".join(f"\n    {line}" for line in end.stderr.splitlines())
    return text


def _how(end: m.End) -> str:
    if end.signal > 0:
        try:
            name = signal.Signals(end.signal).name
        except ValueError:
            name = f"signal {end.signal}"
        text = f"was killed by signal {end.signal}{f' ({name})' if name.startswith('SIG') else ''}"
        more = end.detail.removeprefix(f"was killed by {name}").strip()
        if not more:
            return text
        return f"{text} {more}" if more.startswith(("(", "when ", "because ", "after ")) else f"{text}; it {more}"
    if end.detail:
        return end.detail  # the controller's words continue the sentence
    if end.reason == m.EndReason.EXIT and end.exit_code >= 0:
        return f"exited with status {end.exit_code}"
    return {
        m.EndReason.SIGNAL: "was killed by a signal",
        m.EndReason.EXIT: "exited",
        m.EndReason.VANISHED: "vanished: neither its process nor its host answers",
        m.EndReason.SHUTDOWN: "was shut down",
        m.EndReason.GROUP: "ended together with its group",
        m.EndReason.GOODBYE: "left of its own accord",
        m.EndReason.WALLTIME: "left at the end of its allocation",
        m.EndReason.PREEMPTED: "left because its job was preempted",
        m.EndReason.OUT_OF_MEMORY: "was killed because memory ran out",
        m.EndReason.MPI_ABORT: "called MPI_Abort",
    }.get(end.reason, "is gone")
