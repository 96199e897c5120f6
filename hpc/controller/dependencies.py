"""Tasks that wait for other tasks: ``after`` says when they may begin, ``follow`` says where.

A bundle that waits is *held*: its tasks are covered by parts that are nowhere queued. The bundles that it waits for
keep *watches*, so that each of their results costs the same however many wait for something.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from hpc.controller.bundles import Bundle, Client, Part
from hpc.errors import ProtocolError
from hpc.wire import messages as m

if TYPE_CHECKING:
    from hpc.controller.feeding import Awaited
    from hpc.controller.queues import Queues


class Wanted:
    """How far the tasks that others wait for have come: so many have not ended, ended well, ended otherwise."""

    __slots__ = ("all", "bad", "engines", "failure", "good", "here", "left", "success")

    def __init__(self, after: m.After, here: bool) -> None:
        self.all, self.success, self.failure = after.all, after.success, after.failure
        self.here = here  # where they have run matters
        self.left, self.good, self.bad = 0, after.good, after.bad
        self.engines = set(after.engines)

    def __repr__(self) -> str:
        return f"<Wanted {'all' if self.all else 'any'}: {self.left} to come, {self.good} good, {self.bad} bad>"

    def count(self, n: int, n_failed: int, engine: int) -> None:
        """Take note of ``n`` tasks that have ended, on one engine (-1: on none)."""
        good = (n - n_failed) * self.success + n_failed * self.failure
        self.good += good
        self.bad += n - good
        if good and engine >= 0:
            self.engines.add(engine)

    @property
    def is_met(self) -> bool:
        """Whether what waits for them may go on."""
        if not self.all:
            return self.good > 0 or not (self.left or self.bad)
        return not (self.left or self.bad)

    @property
    def is_impossible(self) -> bool:
        """Whether it never will."""
        if self.here and self.all and len(self.engines) > 1:
            return True
        return self.bad > 0 if self.all else not (self.left or self.good) and self.bad > 0

    def why_impossible(self) -> str:
        """Say what is wrong."""
        if self.here and self.all and len(self.engines) > 1:
            ids = ", ".join(map(str, sorted(self.engines)))
            return f"what it is to follow has run on several engines ({ids}), and it can run on one only"
        what = "did not fail" if not self.success else "failed" if not self.failure else "ended"
        return f"{'a task' if self.all else 'every task'} that it depends on {what}"


class Watch(NamedTuple):
    """Tasks [start, stop) of a bundle that something waits for; the numbers are offsets."""

    start: int
    stop: int
    wanted: Wanted
    hold: "Hold"


class Hold:
    """A bundle that waits, and with what it goes on."""

    __slots__ = ("after", "awaits", "bundle", "follow", "submit")

    def __init__(self, bundle: Bundle, submit: m.Submit, awaits: "Awaited | None") -> None:
        options = submit.options or m.Options()
        self.bundle, self.submit, self.awaits = bundle, submit, awaits
        self.after = Wanted(options.after, False) if options.after is not None else None
        self.follow = Wanted(options.follow, True) if options.follow is not None else None

    def __repr__(self) -> str:
        return f"<Hold of {self.bundle!r} for {self.after!r}, {self.follow!r}>"

    @property
    def wanted(self) -> list[Wanted]:
        """All that it waits for."""
        return [wanted for wanted in (self.after, self.follow) if wanted is not None]

    def reason(self) -> str:
        """Say what it waits for."""
        left = sum(wanted.left for wanted in self.wanted)
        return f"{left} task{'s' * (left != 1)} that it depends on {'have' if left != 1 else 'has'} not ended"


def hold(queues: "Queues", bundle: Bundle, submit: m.Submit, awaits: "Awaited | None") -> None:
    """Hold a new bundle until what it depends on has ended, which may be so already.

    Raises
    ------
    ProtocolError
        It depends on tasks that were not submitted before it.
    """
    held = Hold(bundle, submit, awaits)
    options = submit.options or m.Options()
    for after, wanted in ((options.after, held.after), (options.follow, held.follow)):
        if after is not None and wanted is not None:
            _watch(bundle.client, held, after, wanted)
    bundle.hold = held
    Part(bundle, 0, bundle.count)
    _look(queues, held)


def check(submit: m.Submit) -> None:
    """Raise `ProtocolError` if the options make no sense."""
    options = submit.options or m.Options()
    if (
        not math.isfinite(options.priority)
        or math.isnan(options.timeout_s)
        or not 0 <= options.run_timeout_s < math.inf
    ):
        raise ProtocolError("priority, timeout_s or run_timeout_s is not a number that can be used")
    if not m.SMALLEST_SHARE <= options.share <= m.LARGEST_SHARE:
        raise ProtocolError(f"a share of {options.share} is not from {m.SMALLEST_SHARE} to {m.LARGEST_SHARE}")
    for after in (options.after, options.follow):
        if after is None:
            continue
        if submit.targets is not None:
            raise ProtocolError("only load-balanced work can depend on tasks")
        if any(not 1 <= start < stop <= submit.first for start, stop in after.tasks) or min(after.good, after.bad) < 0:
            raise ProtocolError("a task can depend only on tasks that were submitted before it")


def _watch(client: Client, held: Hold, after: m.After, wanted: Wanted) -> None:
    for start, stop in after.tasks:
        n_open = 0
        for bundle in _bundles(client, start, stop):
            low, high = max(0, start - bundle.first), min(bundle.count, stop - bundle.first)
            n = _n_unfinished(bundle, low, high)
            if n:
                n_open += n
                bundle.watches = bundle.watches if bundle.watches is not None else []
                bundle.watches.append(Watch(low, high, wanted, held))
        wanted.left += n_open
        n_ended = stop - start - n_open
        if not n_ended:
            continue
        n_failed = client.past.n_failed(start, stop)
        wanted.count(n_ended, n_failed, -1)
        if wanted.here:
            # Only of results that the client had not got when it sent this.
            wanted.engines.update(client.past.where(start, stop).values())


def _bundles(client: Client, start: int, stop: int) -> Iterable[Bundle]:
    """Return the unfinished bundles that hold some of the tasks; they stand in order of their first."""
    firsts = client.past.firsts(client.bundles)
    index = max(0, bisect_right(firsts, start) - 1)
    while index < len(firsts) and firsts[index] < stop:
        bundle = client.bundles.get(firsts[index])
        if bundle is not None and bundle.first + bundle.count > start:
            yield bundle
        index += 1


def _n_unfinished(bundle: Bundle, start: int, stop: int) -> int:
    if bundle.awaits is not None and bundle.awaits.is_balanced:
        return max(0, stop - start)
    return sum(max(0, min(stop, part.stop) - max(start, part.start)) for part in bundle.parts)


def ended(queues: "Queues", bundle: Bundle, tasks: range, failed: Iterable[int], engine: int) -> None:
    """Tell those who wait for tasks of a bundle that some have ended, on an engine (-1: on none)."""
    start, stop = tasks.start, tasks.stop
    for watch in bundle.watches or ():
        low, high = max(start, watch.start), min(stop, watch.stop)
        if low < high:
            n_failed = sum(low <= offset < high for offset in failed)
            watch.wanted.left -= high - low
            watch.wanted.count(high - low, n_failed, engine)
            _look(queues, watch.hold)


def _look(queues: "Queues", held: Hold) -> None:
    if any(wanted.is_impossible for wanted in held.wanted) or all(wanted.is_met for wanted in held.wanted):
        # Not at once: what ends one may end the next, and so on, as deep as the chain is long.
        queues.settled.append(held)


def settle(queues: "Queues") -> Iterator[Hold]:
    """End the bundles that would wait for ever; yield those that wait no more, which hold nothing then."""
    for held in queues.settled:  # it may grow meanwhile
        bundle = held.bundle
        if bundle.hold is not held:  # it has ended
            continue
        impossible = next((wanted for wanted in held.wanted if wanted.is_impossible), None)
        if impossible is not None:
            drop(queues, bundle, m.EndReason.DEPENDENCY, impossible.why_impossible())
        else:
            bundle.hold = None
            yield held
    queues.settled.clear()


def drop(queues: "Queues", bundle: Bundle, reason: m.EndReason, detail: str) -> None:
    """End what a held bundle still holds."""
    bundle.hold = None
    for part in sorted(bundle.parts, key=lambda part: part.start):
        bundle.parts.remove(part)
        queues.end(bundle, part.start, part.stop, reason, detail)


def eligible(held: Hold) -> list[int] | None:
    """Return the engines that a bundle may run on, now that what it depends on has ended; None for all."""
    allowed = held.submit.eligible
    if held.follow is None or not held.follow.good:
        return allowed
    return [engine for engine in sorted(held.follow.engines) if allowed is None or engine in allowed]
