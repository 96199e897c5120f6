"""Load balancing: pools of waiting work, how large a piece is, whom to steal from.

Everything here costs the same for ten engines and for ten thousand: engines that can take work stand in dictionaries
used as ordered sets, those that hold more than they run stand in buckets by the magnitude of what they hold.
"""

from collections import deque
from typing import TYPE_CHECKING, Final

from hpc.controller.bundles import Bundle, Client, Part

if TYPE_CHECKING:
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
    """The waiting parts of one client in one pool."""

    __slots__ = ("client", "parts")

    def __init__(self, client: Client) -> None:
        self.client = client
        self.parts: deque[Part] = deque()

    def __repr__(self) -> str:
        return f"<Line of client {self.client.number}: {len(self.parts)} parts>"


class Pool:
    """Engines that may take the same load-balanced work, and the work that waits for them.

    Clients take turns, a piece each; pieces take about the same time, so each client gets about the same share.
    """

    def __init__(self, eligible: frozenset[int] | None, needs_s: float = 0.0) -> None:
        self.eligible = eligible
        # How long an engine must still be there for one of these tasks.
        self.needs_s = needs_s
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
        return f"<Pool {who}: {self.waiting} waiting, {len(self.idle)} idle and {len(self.lean)} lean engines>"

    @property
    def forsaken(self) -> bool:
        """Whether nobody can ever do what waits here: its engines are gone, and ids are not given twice."""
        return self.eligible is not None and not self.seats

    @property
    def why_forsaken(self) -> str:
        """Say what is missing."""
        if self.needs_s:
            return f"none of the engines that it may run on will be there for the {self.needs_s:.3g} s that it takes"
        return "none of the engines that it may run on is there"

    def push(self, part: Part) -> None:
        """Queue a part behind what its client has waiting."""
        self._line(part.bundle.client).parts.append(part)
        self.waiting += part.stop - part.start

    def push_front(self, part: Part) -> None:
        """Queue a part that came back before what its client has waiting."""
        parts = self._line(part.bundle.client).parts
        self.waiting += part.stop - part.start
        if parts and parts[0].bundle is part.bundle and parts[0].start == part.stop != parts[0].stop:
            parts[0].start = part.start
            part.bundle.parts.remove(part)
        else:
            parts.appendleft(part)

    def _line(self, client: Client) -> Line:
        line = self.lines.get(client.number)
        if line is None:
            line = self.lines[client.number] = Line(client)
            self.turns.append(line)
        return line

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
                break
            self._delist(line)
        part = parts[0]
        n, length = self.piece_size(part.bundle), part.stop - part.start
        if n < length:
            piece = Part(part.bundle, part.start, part.start + n)
            part.start += n
            if len(turns) > 1:
                turns.rotate(-1)
        else:
            n, piece = length, parts.popleft()
            if not parts:
                self._delist(line)
            elif len(turns) > 1:
                turns.rotate(-1)
        self.waiting -= n
        return piece

    def _delist(self, line: Line) -> None:
        self.turns.popleft()
        del self.lines[line.client.number]

    def piece_size(self, bundle: Bundle) -> int:
        """Return how many tasks of a bundle make a piece now.

        Without knowledge of their length, half of a fair share of all that waits (guided self-scheduling); else so many
        that they take `PIECE_S`, at most a fair share, so that all engines end together.
        """
        pace = bundle.pace
        n_engines = self.n_open or 1
        if pace is None or pace.seconds < 0:
            if self.needs_s:
                return max(1, min(self.waiting // n_engines, int(PIECE_S / self.needs_s)))
            return self.waiting // (2 * n_engines) or 1
        least_s = max(SMALLEST_PIECE_S, bundle.nbytes * SECONDS_PER_BODY_BYTE)
        each_s = pace.seconds if pace.seconds > 1e-9 else 1e-9
        share = self.waiting // n_engines
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
        return next(iter(self.buckets[self.mask.bit_length() - 1].values()))
