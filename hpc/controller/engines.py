"""Who is there: engines, the groups they were started in, their ids and states."""

import math
from collections import deque
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

from hpc.controller.balance import AHEAD_S, LOW_S, Seat
from hpc.controller.bundles import Part
from hpc.errors import ranges
from hpc.wire import messages as m

# Parts sent to one engine and not finished. An engine reads nothing while user code runs, so what is sent ahead only
# has to bridge the way of a result and the next message.
WINDOW: Final = 16
# More ranks than any machine has: a larger size is an error, not a group.
MAX_GROUP_SIZE: Final = 1 << 24
# How engines ended is told for so many, the latest.
MAX_ENDS: Final = 10_000


class Shelf(IntEnum):
    """How an engine is filed in its pools: it takes no load-balanced work, can take more, or has nothing to do."""

    NONE = 0
    LEAN = 1
    IDLE = 2


class Farewell(IntEnum):
    """How far an engine is that leaves because its allocation ends.

    It has given notice, was asked for what it has not begun, was told that nothing more will come.
    """

    NONE = 0
    NOTICED = 1
    ASKED = 2
    TOLD = 3


class Recall:
    """A `hpc.wire.messages.Revoke` that has not been answered yet."""

    __slots__ = ("client", "first", "seat")

    def __init__(self, client: int, first: int, seat: Seat | None) -> None:
        self.client = client
        self.first = first
        self.seat = seat

    def __repr__(self) -> str:
        return f"<Recall of {self.client}/{self.first}>"


class Engine:
    """One engine: its connections, what it holds, what waits for it."""

    __slots__ = (
        "backlog_s",
        "completed",
        "control_up",
        "direct",
        "dying",
        "ends_at",
        "failed",
        "farewell",
        "group",
        "holds",
        "id",
        "info",
        "leaves_as",
        "lost",
        "n_tasks",
        "ready",
        "recalls",
        "seats",
        "sent",
        "shelf",
        "stopping",
        "unreachable",
        "work_up",
    )

    def __init__(self, number: int, info: m.EngineInfo, group: "Group") -> None:
        self.id = number
        self.info = info
        self.group = group
        self.ready = False
        self.work_up = False
        self.control_up = False
        self.unreachable = False
        self.dying = False
        self.stopping = False
        self.lost = False
        # When tasks have to be over, by the brain's clock, and how it ends if it leaves in order.
        self.ends_at = math.inf
        self.leaves_as = m.EndReason.SHUTDOWN
        self.farewell = Farewell.NONE
        self.direct: deque[Part] = deque()
        self.sent: deque[Part] = deque()
        self.n_tasks = 0
        self.backlog_s = 0.0
        self.recalls: list[Recall] = []
        self.holds: set[bytes] = set()
        self.seats: list[Seat] = []
        self.shelf = Shelf.NONE
        self.completed = 0
        self.failed = 0

    def __repr__(self) -> str:
        ways = "+".join(way for way, up in (("work", self.work_up), ("control", self.control_up)) if up) or "cut"
        return (
            f"<Engine {self.id} rank {self.info.rank} on {self.info.host} {self.state} ({ways}), "
            f"{self.n_tasks} tasks sent, {len(self.direct)} parts queued>"
        )

    @property
    def open(self) -> bool:
        """Whether work may be sent to it."""
        return self.work_up and self.group.visible and not (self.dying or self.stopping or self.lost)

    @property
    def visible(self) -> bool:
        """Whether clients know of it."""
        return self.group.visible and not self.lost

    @property
    def state(self) -> str:
        """The state as clients see it."""
        if self.unreachable:
            return "unreachable"
        if self.farewell:
            return "leaving"
        return "busy" if self.sent or self.direct else "idle"

    def holding(self, client: int, first: int, start: int, stop: int) -> Part | None:
        """Return the part sent to it that holds a range of a bundle."""
        for part in self.sent:
            if part.start <= start < stop <= part.stop and part.bundle.is_named(client, first):
                return part
        return None

    def row(self) -> m.EngineRow:
        """Describe the engine for clients."""
        info = self.info
        return m.EngineRow(
            self.id, info.rank, info.size, info.group, info.host, info.pid, self.state, info.mpi, info.deadline
        )

    def wanted_shelf(self) -> Shelf:
        """Say how the engine should be filed."""
        if not self.open or self.direct:
            return Shelf.NONE
        n_parts = len(self.sent)
        if not n_parts:
            return Shelf.IDLE
        backlog_s = self.backlog_s
        if n_parts < WINDOW and (backlog_s < LOW_S or (self.n_tasks == 1 and backlog_s < AHEAD_S)):
            return Shelf.LEAN
        return Shelf.NONE

    def refile(self) -> None:
        """File the engine in its pools by how much it has to do."""
        shelf = self.wanted_shelf()
        old = self.shelf
        if shelf is old:
            return
        self.shelf = shelf
        number = self.id
        for seat in self.seats:
            pool = seat.pool
            if old is Shelf.IDLE:
                del pool.idle[number]
            elif old is Shelf.LEAN:
                del pool.lean[number]
            if shelf is Shelf.IDLE:
                pool.idle[number] = seat
            elif shelf is Shelf.LEAN:
                pool.lean[number] = seat

    def end(self, reason: m.EndReason, signal: int = -1, exit_code: int = -1, detail: str = "") -> m.End:
        """Describe how the engine ended."""
        info = self.info
        return m.End(self.id, info.rank, info.host, info.pid, reason, signal, exit_code, detail)


class Group:
    """The engines of one launch. Clients see it once all ``size`` ranks have come; ids are ``base + rank``."""

    __slots__ = ("base", "doomed", "first_end", "last_end_at", "members", "n_ready", "name", "size", "visible")

    def __init__(self, name: str, size: int, base: int) -> None:
        self.name = name
        self.size = size
        self.base = base
        self.members: dict[int, Engine] = {}
        self.n_ready = 0
        self.visible = False
        # Why the group can never be complete.
        self.doomed = ""
        # The member whose end took the others along, and when the latest of them ended.
        self.first_end: m.End | None = None
        self.last_end_at = 0.0

    def __repr__(self) -> str:
        return f"<Group {self.name}: {self.n_ready} of {self.size} from id {self.base}{' visible' * self.visible}>"

    def living(self) -> list[Engine]:
        """Return the members that are not lost, by rank."""
        return [engine for _, engine in sorted(self.members.items()) if not engine.lost]


class Registry:
    """All engines and groups, and the ids they have. An id is never given to another engine."""

    def __init__(self) -> None:
        self.engines: dict[int, Engine] = {}
        self.by_uuid: dict[str, Engine] = {}
        self.by_process: dict[tuple[str, int], Engine] = {}
        self.groups: dict[str, Group] = {}
        self.ends: dict[int, m.End] = {}
        self.next_id = 0

    def __repr__(self) -> str:
        return f"<Registry {len(self.engines)} engines in {len(self.groups)} groups, next id {self.next_id}>"

    def admit(self, info: m.EngineInfo) -> Engine | str:
        """Return the engine that this is, new or known, or why it cannot be one."""
        known = self.by_uuid.get(info.uuid)
        if known is not None and not known.lost:
            return known
        if not 0 <= info.rank < info.size <= MAX_GROUP_SIZE:
            return f"rank {info.rank} of {info.size} cannot be"
        group = self.groups.get(info.group)
        if group is None:
            group = self.groups[info.group] = Group(info.group, info.size, self.next_id)
            self.next_id += info.size
        if group.doomed:
            return group.doomed
        if group.size != info.size:
            return f"group {info.group} has {group.size} ranks, this engine says {info.size}"
        other = group.members.get(info.rank)
        if other is not None and other.info.uuid != info.uuid:
            return (
                f"rank {info.rank} of group {info.group} is engine {other.id} already"
                f" (pid {other.info.pid} on {other.info.host})"
            )
        engine = Engine(group.base + info.rank, info, group)
        group.members[info.rank] = engine
        self.engines[engine.id] = self.by_uuid[info.uuid] = self.by_process[info.host, info.pid] = engine
        self.ends.pop(engine.id, None)
        return engine

    def remove(self, engine: Engine, end: m.End) -> None:
        """Take out an engine that is lost. One that only vanished may come back, and has its id then."""
        engine.lost = True
        info, group = engine.info, engine.group
        del self.engines[engine.id]
        if len(self.ends) >= MAX_ENDS:
            del self.ends[next(iter(self.ends))]
        self.ends[engine.id] = end
        if self.by_process.get((info.host, info.pid)) is engine:
            del self.by_process[info.host, info.pid]
        if engine.ready:
            group.n_ready -= 1
        if end.reason is not m.EndReason.VANISHED:
            del self.by_uuid[info.uuid]
        if len(group.members) == group.size and not any(e.info.uuid in self.by_uuid for e in group.members.values()):
            del self.groups[group.name]

    def visible(self) -> Iterator[Engine]:
        """Iterate over the engines that clients know of, by id."""
        return (engine for _, engine in sorted(self.engines.items()) if engine.visible)

    def describe_ids(self) -> str:
        """Write the ids there are, for error messages."""
        ids = [engine.id for engine in self.visible()]
        return f"there are {ranges(ids)}" if ids else "there are no engines"
