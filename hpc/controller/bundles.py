"""What clients have submitted: bundles, and the parts of them that wait or have been sent.

A bundle is never taken apart into tasks. Its unfinished tasks are covered by *parts*, half-open ranges that do not
overlap; each part waits (in a pool, or for its engine) or has been sent to an engine.
"""

from typing import TYPE_CHECKING, Final

from hpc.controller.events import Frames
from hpc.controller.past import Past
from hpc.wire import messages as m

if TYPE_CHECKING:
    from hpc.controller.balance import Pool, Seat
    from hpc.controller.dependencies import Hold, Watch
    from hpc.controller.engines import Engine
    from hpc.controller.feeding import Awaited

# Built-in operations need no definition, and their names say nothing about how long they take.
BUILT_IN: Final = b"!"
# Weight of the newest observation in the running mean of seconds per task.
PACE_WEIGHT: Final = 0.3


class Pace:
    """Running mean of the seconds that a task of one function takes; -1 while nothing is known."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds = -1.0

    def __repr__(self) -> str:
        return f"<Pace {self.seconds * 1e6:.1f} us>" if self.seconds >= 0 else "<Pace unknown>"

    def observe(self, seconds: float) -> None:
        """Take one observation in."""
        if self.seconds < 0:
            self.seconds = seconds
        else:
            self.seconds += PACE_WEIGHT * (seconds - self.seconds)


class Client:
    """What the brain knows of a client: its unfinished bundles by the number of their first task."""

    __slots__ = ("bundles", "gone", "number", "pace", "past")

    def __init__(self, number: int) -> None:
        self.number = number
        self.gone = False
        self.bundles: dict[int, Bundle] = {}
        self.pace = Pace()
        self.past = Past()

    def __repr__(self) -> str:
        return f"<Client {self.number}{' (gone)' if self.gone else ''}, {len(self.bundles)} bundles>"


class Bundle:
    """A run of tasks that were submitted together, with their body."""

    __slots__ = (
        "aborts",
        "allocations",
        "awaits",
        "body",
        "client",
        "count",
        "declared_s",
        "everyone",
        "feeds",
        "first",
        "functions",
        "give_up_at",
        "hold",
        "kind",
        "left",
        "nbytes",
        "needs",
        "options",
        "pace",
        "parts",
        "pool",
        "printed",
        "priority",
        "ranks",
        "retries",
        "route",
        "share",
        "since",
        "terms",
        "tries",
        "watches",
    )

    def __init__(
        self, client: Client, submit: m.Submit, body: Frames, needs: tuple[bytes, ...], pace: Pace | None
    ) -> None:
        self.client = client
        self.first = submit.first
        self.count = self.left = submit.count
        self.kind = submit.kind
        self.functions = submit.functions
        self.route = submit.route
        self.needs = needs
        self.pace = pace
        self.body = body
        # What is yet to come, and what the result of this bundle is for (`hpc.controller.feeding`).
        self.awaits: Awaited | None = None
        self.feeds: tuple[Bundle, int] | None = None
        # Counted where it matters, for load-balanced work.
        self.nbytes = 0
        self.options = options = submit.options
        # How many ranks run each task together, and whether the values of all of them are wanted.
        self.ranks = options.ranks if options is not None else 0
        self.everyone = options is not None and options.everyone
        self.terms: m.Terms | None = None
        if options is None:
            self.retries, self.priority, self.share, self.declared_s = 0, 0.0, 1.0, 0.0
        else:
            self.retries, self.priority, self.share = options.retries, options.priority, options.share
            # What a task takes, as the client says; 0 if it says nothing.
            self.declared_s = options.expected_s
            if options.run_timeout_s or options.condition:
                self.terms = m.Terms(options.run_timeout_s, options.condition)
        # When it came, and until when it waits for an engine that can take it if there is none.
        self.since = self.give_up_at = 0.0
        # What it waits for, and what waits for it (`hpc.controller.dependencies`).
        self.hold: Hold | None = None
        self.watches: list[Watch] | None = None
        # How many pieces of output the earlier tries of a task have sent, where there are any.
        self.printed: dict[int, int] | None = None
        self.pool: Pool | None = None
        self.parts: set[Part] = set()
        self.aborts: list[tuple[int, int]] = []
        # How often a task was tried in vain, and how many allocations have ended under it.
        self.tries: dict[int, int] = {}
        self.allocations: dict[int, int] | None = None

    def __repr__(self) -> str:
        where = "load-balanced" if self.pool is not None else "direct"
        return (
            f"<Bundle {self.client.number}/{self.first} {where}, {self.left} of {self.count} left, "
            f"parts {sorted((p.start, p.stop) for p in self.parts)}>"
        )

    def heard(self, offset: int, n_outputs: int) -> None:
        """Take note of how many pieces of output the tries of a task have sent."""
        if self.printed is None:
            self.printed = {}
        self.printed[offset] = n_outputs

    def is_named(self, client: int, first: int) -> bool:
        """Say whether this is the bundle that a message names."""
        return self.first == first and self.client.number == client

    @property
    def expected_s(self) -> float:
        """What a task is expected to take: by its function, by what its client says or has seen; -1 if unknown."""
        pace = self.pace
        if pace is None:
            return -1.0
        return pace.seconds if pace.seconds >= 0 else self.declared_s or self.client.pace.seconds

    def forget_body(self) -> None:
        """Let go of the buffers of direct work that all its engines were sent, and that none of them can ask for again.

        Its sender has its memory back then.
        """
        if len(self.body) > 1 and self.pool is None and not self.needs and all(part.sent for part in self.parts):
            self.body = ()

    def ended(self, n: int) -> None:
        """Count ``n`` tasks as ended; a bundle without unfinished tasks is forgotten."""
        self.left -= n
        if not self.left:
            self.hold = None
            del self.client.bundles[self.first]
            if self.pool is not None:
                self.pool.n_bundles -= 1

    def split_aborted(self, start: int, stop: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Divide [start, stop) into the ranges that are to be aborted and those that are not."""
        aborted: list[tuple[int, int]] = []
        kept = [(start, stop)]
        for low, high in self.aborts:
            rest: list[tuple[int, int]] = []
            for a, b in kept:
                cut, end = max(a, low), min(b, high)
                if cut >= end:
                    rest.append((a, b))
                    continue
                aborted.append((cut, end))
                rest += [(x, y) for x, y in ((a, cut), (end, b)) if x < y]
            kept = rest
        return sorted(aborted), kept


class Part:
    """Tasks [start, stop) of a bundle: waiting in a pool (no engine), waiting for its engine, or sent to it.

    ``start`` moves up as results come in. An empty part is a leftover of an abort that its queue skips.
    """

    __slots__ = ("bundle", "each_s", "engine", "seat", "sent", "start", "stop")

    def __init__(self, bundle: Bundle, start: int, stop: int) -> None:
        self.bundle = bundle
        self.start = start
        self.stop = stop
        self.engine: Engine | None = None
        self.seat: Seat | None = None
        self.sent = False
        # Seconds that were expected per task when the part was sent: what it adds to its engine's backlog.
        self.each_s = 0.0
        bundle.parts.add(self)

    def split(self, at: int) -> "Part":
        """Keep what is before ``at``; return the rest, which is where this is."""
        rest = Part(self.bundle, at, self.stop)
        rest.engine, rest.seat, rest.sent, rest.each_s = self.engine, self.seat, self.sent, self.each_s
        self.stop = at
        return rest

    @property
    def awaits(self) -> bool:
        """Whether it cannot be sent yet, because the body of its bundle is yet to come."""
        return self.bundle.awaits is not None and self.start < self.stop

    def __repr__(self) -> str:
        state = "waits" if self.engine is None else f"{'on' if self.sent else 'for'} engine {self.engine.id}"
        return f"<Part {self.bundle.client.number}/{self.bundle.first}[{self.start}:{self.stop}] {state}>"


def run_message(part: Part, start: int = -1, stop: int = -1) -> m.Run:
    """Return the message that has a part, or some of it, run."""
    bundle = part.bundle
    if start < 0:
        start, stop = part.start, part.stop
    run = m.Run(bundle.client.number, bundle.first, start, stop, bundle.kind, bundle.functions, bundle.route)
    run.terms = bundle.terms
    if bundle.printed is not None and start in bundle.printed:
        terms = bundle.terms or m.Terms()
        run.terms = m.Terms(terms.limit_s, terms.condition, bundle.printed[start])
    if bundle.ranks and part.engine is not None and part.engine.team is not None:
        run.team, run.everyone = part.engine.team.ranks, bundle.everyone
    return run
