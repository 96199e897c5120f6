"""Groups of engines, as whoever starts them counts them: what there is, what a new total needs, who leaves first."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from hpc.cluster.options import GroupRow


@dataclass
class EngineGroup:
    """Engines that start and end together: one process, the ranks of one ``mpirun``, or those of one job.

    ``label`` is its name and that of its log. ``state`` is ``starting``, ``pending`` (its job waits in the queue),
    ``running`` or ``leaving``. ``pid`` is 0 for a job, whose number is ``job``. ``line`` is what a job script says in
    front of the program.
    """

    label: str
    n: int
    state: str = "starting"
    pid: int = 0
    job: str = ""
    reason: str = ""
    start_s: float = 0.0
    end_s: float = 0.0
    nodes: tuple[str, ...] = ()
    line: str = ""

    def row(self) -> GroupRow:
        """Return what people and records are told."""
        return GroupRow(
            self.label, self.n, self.state, self.pid, self.job, self.reason, self.start_s, self.end_s, self.nodes
        )

    def holds(self, engine: dict[str, Any], host: str) -> bool:
        """Say whether an engine, as the controller describes it, is of this group; ``host`` is where ``pid`` counts."""
        named = str(engine["group"]).startswith(f"{self.label}-")
        return named or bool(self.pid and engine["pid"] == self.pid and engine["host"] == host)


def total(groups: Iterable[EngineGroup]) -> int:
    """Count the engines that there are or will be."""
    return sum(group.n for group in groups if group.state != "leaving")


def choose_leaving(groups: Iterable[EngineGroup], surplus: int, busy: Collection[str]) -> list[EngineGroup]:
    """Return the groups to end so that there are ``surplus`` engines less.

    Those whose job is still pending go first, then the idle ones, of equals the newest. ``busy`` are labels.

    Raises
    ------
    ValueError
        Groups end as a whole, and no choice of them gives this total; it says which totals there are.
    """
    staying = [group for group in groups if group.state != "leaving"]
    newest = reversed(staying)
    order = sorted(newest, key=lambda group: (group.state != "pending", group.label in busy))
    chosen, left = [], surplus
    for group in order:
        if group.n <= left:
            chosen.append(group)
            left -= group.n
    if not left:
        return chosen
    # Groups of different sizes: the first way to reach each sum, in the order of preference.
    ways: dict[int, tuple[EngineGroup, ...]] = {0: ()}
    for group in order:
        for reached, way in list(ways.items()):
            ways.setdefault(reached + group.n, (*way, group))
        if surplus in ways:
            return list(ways[surplus])
    now = total(staying)
    totals = sorted(now - reached for reached in ways)
    raise ValueError(
        f"the engines of a group end together: of {now} engines now, the totals to be had are"
        f" {', '.join(map(str, totals))}, not {now - surplus}"
    )
