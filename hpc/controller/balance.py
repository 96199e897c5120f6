"""Load balancing: pools of waiting work, how large a piece is, whom to steal from.

Everything here costs the same for ten engines and for ten thousand: engines that can take work stand in dictionaries
used as ordered sets, those that hold more than they run stand in buckets by the magnitude of what they hold.
"""

from bisect import bisect_left
from collections import deque
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from hpc.controller.bundles import Bundle, Part
from hpc.controller.demands import Demand
from hpc.errors import ranges

if TYPE_CHECKING:
    from hpc.controller.bundles import Client
    from hpc.controller.conditions import Refusal
    from hpc.controller.engines import Engine

# A piece should keep an engine busy for about this long: long against the round trip (0.1 ms on one host, 0.5 ms over
# a network), short against what a person or the balance at the end would notice.
PIECE_S: Final = 0.003
# Below this, splitting further costs more than the imbalance that it avoids.
SMALLEST_PIECE_S: Final = 0.0002
# Whoever gets a part of a bundle gets its whole body: let a piece work four times as long as its body travels (1 GB/s).
SECONDS_PER_BODY_BYTE: Final = 4e-9
# An engine with less than this ahead of it is given more, so that it never waits for a message.
LOW_S: Final = 0.004
# One task is sent ahead behind a single task that takes up to this long. Behind longer ones a round trip of idleness
# does not matter, while work that sits there would have to be taken back.
AHEAD_S: Final = 0.05
# What a task of unknown length counts: enough that nothing is queued behind it.
UNKNOWN_S: Final = 1.0
# Taking work back costs about a round trip and a half.
WORTH_STEALING_S: Final = 0.002
# Estimates may be wrong (one slow task among quick ones): while engines idle, work that did not move this long is
# stolen whatever the estimate says.
STUCK_S: Final = 0.005


def latest(shelf: "dict[int, Seat]") -> "Seat":
    """Return the seat that was filed last, which stays where it is. The shelf must not be empty."""
    # To look from either end would walk over the gaps of all that were taken out there since the dictionary last grew:
    # as many as there are engines, in a burst of work for idle ones. `popitem` closes them as it goes.
    number, seat = shelf.popitem()
    shelf[number] = seat
    return seat


class Seat:
    """One engine's place in one pool: how many unfinished tasks of the pool it holds, and where it is filed."""

    __slots__ = ("bucket", "engine", "n", "pool", "recalls")

    def __init__(self, engine: "Engine", pool: "Pool") -> None:
        self.engine = engine
        self.pool = pool
        self.n = 0
        self.bucket = 0
        self.recalls = 0

    def __repr__(self) -> str:
        return f"<Seat of engine {self.engine.id} in {self.pool!r}: {self.n} tasks, bucket {self.bucket}>"

    def refile(self) -> None:
        """File the seat by what could be stolen from it: nothing while a recall is under way."""
        n, bucket = self.n, 0
        if n and not self.recalls:
            engine = self.engine
            # A single task at the head of its engine has begun and cannot be taken back.
            if engine.control_up and (n > 1 or engine.sent[0].seat is not self):
                bucket = n.bit_length()
        if bucket != self.bucket:
            self.pool.refile(self, bucket)


class Line:
    """The waiting parts of one client in one pool: ``parts`` are those of the highest priority that there is."""

    __slots__ = ("client", "credit", "lower", "parts", "priority")

    def __init__(self, client: "Client", priority: float) -> None:
        self.client = client
        self.parts: deque[Part] = deque()
        self.priority = priority
        # How many pieces may go when it has its turn; whoever is alone needs none (`Pool.take`).
        self.credit = 0.0
        # The parts of lower priorities, the highest of them last.
        self.lower: list[tuple[float, deque[Part]]] = []

    def __repr__(self) -> str:
        return f"<Line of client {self.client.number}: {len(self.waiting())} parts>"

    def of(self, priority: float) -> deque[Part]:
        """Return where parts of a priority wait."""
        if priority == self.priority:
            return self.parts
        if priority > self.priority:
            if self.parts:
                self.lower.append((self.priority, self.parts))
                self.parts = deque()
            self.priority = priority
            return self.parts
        at = bisect_left(self.lower, priority, key=itemgetter(0))
        if at == len(self.lower) or self.lower[at][0] != priority:
            self.lower.insert(at, (priority, deque()))
        return self.lower[at][1]

    def descend(self) -> bool:
        """Go on with the next priority when nothing is left of the highest; say whether there is one."""
        if self.lower:
            self.priority, self.parts = self.lower.pop()
            return True
        return False

    def waiting(self) -> list[Part]:
        """Return all parts, some of which may be empty, in the order in which they come."""
        return [*self.parts, *(part for _, parts in reversed(self.lower) for part in parts)]


class Pool:
    """Engines that may take the same load-balanced work, and the work that waits for them.

    Clients take turns, a piece each; pieces take about the same time, so each client gets about the same share. With
    other shares than 1 it is that many pieces a turn, or one in several turns.
    """

    def __init__(self, eligible: frozenset[int] | None, needs_s: float = 0.0, demand: Demand | None = None) -> None:
        self.eligible = eligible
        # How long an engine must still be there for one of these tasks.
        self.needs_s = needs_s
        # What else it must have; and which engines do not meet the condition that is part of that.
        self.demand = demand
        self.refused: dict[int, Refusal] = {}
        # What its engines were at when somebody last looked (`hpc.controller.fairness`).
        self.heads: dict[int, Part] = {}
        self.waiting = 0
        self.n_bundles = 0
        self.n_open = 0
        self.seats: dict[int, Seat] = {}
        self.idle: dict[int, Seat] = {}
        self.lean: dict[int, Seat] = {}
        self.buckets: list[dict[int, Seat]] = [{}]
        self.mask = 0
        self.lines: dict[int, Line] = {}
        self.turns: deque[Line] = deque()

    def __repr__(self) -> str:
        who = "all" if self.eligible is None else f"{len(self.eligible)} eligible"
        who += f" with {self.needs_s:.3g} s left" if self.needs_s else ""
        if self.demand is not None:
            who += f" with {str(self.demand) or 'a condition'}"
        return f"<Pool {who}: {self.waiting} waiting, {len(self.idle)} idle and {len(self.lean)} lean engines>"

    @property
    def forsaken(self) -> bool:
        """Whether nobody that is there can do what waits here."""
        return self.is_choosy and not self.seats

    @property
    def is_choosy(self) -> bool:
        """Whether it takes certain engines only, and not just those that will be there for long enough."""
        return self.eligible is not None or self.demand is not None

    @property
    def why_forsaken(self) -> str:
        """Say what is missing."""
        if self.refused:
            said = next((refusal.why for refusal in self.refused.values() if refusal.why), "")
            engines = f"engine{'s' * (len(self.refused) > 1)} {ranges(sorted(self.refused))}"
            return f"its condition is not met on {engines}{said and ': ' + said}"
        if self.demand is not None and str(self.demand):
            among = "" if self.eligible is None else " of those that it may run on"
            return f"no engine{among} has what the task asks for ({self.demand})"
        if self.needs_s:
            return f"none of the engines that it may run on will be there for the {self.needs_s:.3g} s that it takes"
        return "none of the engines that it may run on is there"

    def push(self, part: Part) -> None:
        """Queue a part behind what its client has waiting."""
        self._parts(part.bundle).append(part)
        self.waiting += part.stop - part.start

    def push_front(self, part: Part) -> None:
        """Queue a part that came back before what its client has waiting."""
        bundle = part.bundle
        parts = self._parts(bundle)
        self.waiting += part.stop - part.start
        # What goes on where earlier tries have stopped is to be the first task of what is sent.
        if (
            parts
            and parts[0].bundle is bundle
            and parts[0].start == part.stop != parts[0].stop
            and bundle.printed is None
        ):
            parts[0].start = part.start
            bundle.parts.remove(part)
        else:
            parts.appendleft(part)

    def _parts(self, bundle: Bundle) -> deque[Part]:
        client = bundle.client
        line = self.lines.get(client.number)
        if line is None:
            line = self.lines[client.number] = Line(client, bundle.priority)
            self.turns.append(line)
        return line.parts if line.priority == bundle.priority else line.of(bundle.priority)

    def withdraw(self, n: int) -> None:
        """Count out ``n`` waiting tasks whose parts have been shortened or emptied in place."""
        self.waiting -= n
        if not self.waiting:
            # Emptied parts would otherwise stay until the next work comes.
            self.turns.clear()
            self.lines.clear()

    def take(self) -> Part:
        """Take the next piece out of the queue, which must not be empty."""
        turns = self.turns
        while True:
            line = turns[0]
            parts = line.parts
            while parts and parts[0].start == parts[0].stop:
                parts.popleft()
            if parts:
                if len(turns) == 1:
                    line.credit = 0.0
                    break
                if line.credit < 1.0:
                    line.credit += parts[0].bundle.share
                # Shares are bounded below, so that a piece costs a bounded number of turns.
                if line.credit >= 1.0:
                    line.credit -= 1.0
                    break
                turns.rotate(-1)
            elif not line.descend():
                self._delist(line)
        part = parts[0]
        length = part.stop - part.start
        n = self.piece_size(part.bundle, self.waiting if len(turns) == 1 else length)
        if n < length:
            piece = Part(part.bundle, part.start, part.start + n)
            part.start += n
            if line.credit < 1.0:
                turns.rotate(-1)
        else:
            n, piece = length, parts.popleft()
            if not parts and not (line.lower and line.descend()):
                self._delist(line)
            elif line.credit < 1.0:
                turns.rotate(-1)
        self.waiting -= n
        return piece

    def _delist(self, line: Line) -> None:
        self.turns.popleft()
        del self.lines[line.client.number]

    def piece_size(self, bundle: Bundle, waiting: int) -> int:
        """Return how many tasks of a bundle make a piece now, of so many that wait.

        Without knowledge of their length, half of a fair share of all that waits (guided self-scheduling); else so many
        that they take `PIECE_S`, at most a fair share, so that all engines end together.
        """
        pace = bundle.pace
        n_engines = self.n_open or 1
        if pace is None or pace.seconds < 0:
            if self.needs_s:
                return max(1, min(waiting // n_engines, int(PIECE_S / self.needs_s)))
            return waiting // (2 * n_engines) or 1
        least_s = max(SMALLEST_PIECE_S, bundle.nbytes * SECONDS_PER_BODY_BYTE)
        each_s = pace.seconds if pace.seconds > 1e-9 else 1e-9
        share = waiting // n_engines
        n = int(max(PIECE_S, least_s) / each_s)
        if share < n:
            n = max(share, int(least_s / each_s))
        return n or 1

    def refile(self, seat: Seat, bucket: int) -> None:
        """Move a seat to another bucket (0: none)."""
        number = seat.engine.id
        if seat.bucket:
            old = self.buckets[seat.bucket]
            del old[number]
            if not old:
                self.mask &= ~(1 << seat.bucket)
        if bucket:
            while len(self.buckets) <= bucket:
                self.buckets.append({})
            self.buckets[bucket][number] = seat
            self.mask |= 1 << bucket
        seat.bucket = bucket

    def richest(self) -> Seat | None:
        """Return a seat that holds (within a factor of two) the most that can be stolen."""
        if not self.mask:
            return None
        return latest(self.buckets[self.mask.bit_length() - 1])
