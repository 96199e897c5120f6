"""The brain alone, simulated: what an event costs with 10 to 10,000 engines and a million waiting tasks."""

import gc
import time
from collections import deque
from collections.abc import Callable, Sequence

from benchmarks.harness import Row, at_most, table
from hpc.controller import events as ev
from hpc.controller.brain import Brain
from hpc.wire import messages as m

ENGINES = (10, 100, 1_000, 10_000)
WAITING = 1_000_000
BUNDLE = 250
FUNCTION = b"0123456789abcdef"
FLAT = 1.5


class World:
    """A brain, as many engines as wanted, and what these have been told to run. Only `handle` is on the clock."""

    def __init__(self, n_engines: int) -> None:
        self.brain = Brain()
        self.now = 0.0
        self.seconds = 0.0
        self.events = 0
        self.first = 1
        self.engines = n_engines
        self.runs: deque[tuple[int, m.Run]] = deque()
        self.revokes: deque[tuple[int, m.Revoke]] = deque()
        self.feed([ev.ClientCame(1), ev.ClientSaid(1, m.Define(FUNCTION, "f"), (b"", b"f"))])
        for number in range(n_engines):
            info = m.EngineInfo(f"e{number}", f"g{number}", 0, 1, "h", number, 1, "b")
            self.feed([ev.EngineCame(info, "control"), ev.EngineCame(info, "work")])

    def feed(self, events: Sequence[ev.Event]) -> None:
        """Have the brain handle events, and note what it sends."""
        handle, now = self.brain.handle, self.now
        start = time.perf_counter()
        outcome = [handle(event, now) for event in events]
        self.seconds += time.perf_counter() - start
        self.events += len(events)
        for actions in outcome:
            for action in actions:
                message = getattr(action, "message", None)
                if isinstance(message, m.Run):
                    self.runs.append((action.engine, message))
                elif isinstance(message, m.Revoke):
                    self.revokes.append((action.engine, message))

    def submit(self, count: int, targets: list[int] | None = None) -> ev.Event:
        """Make the event that more tasks come."""
        first, self.first = self.first, self.first + count
        return ev.ClientSaid(1, m.Submit(first, count, m.Kind.CALLS, [FUNCTION], targets, 0.0), (b"body",))

    def results(self, each_s: float, n: int) -> list[ev.Event]:
        """Make the events that the ``n`` oldest ranges under way have ended."""
        ended: list[ev.Event] = []
        while self.runs and len(ended) < n:
            engine, run = self.runs.popleft()
            results = m.Results(1, run.first, run.start, run.stop, False, [], each_s * (run.stop - run.start))
            ended.append(ev.EngineSaid(engine, results, (b"entries",)))
        return ended

    def start_clock(self) -> None:
        """Count from here on."""
        self.seconds, self.events = 0.0, 0

    def microseconds(self) -> float:
        """Return the time of an event."""
        return self.seconds / self.events * 1e6

    def fill(self, each_s: float) -> None:
        """Let a million tasks wait, of a function whose duration is known."""
        self.feed([self.submit(1)])
        self.feed(self.results(each_s, 1))
        self.feed([self.submit(BUNDLE) for _ in range(WAITING // BUNDLE)])


def balanced(world: World, n_events: int) -> float:
    """Have results of single tasks come in and the next ones go out, while a million wait."""
    world.fill(each_s=0.02)
    world.start_clock()
    while world.events < n_events:
        world.feed(world.results(0.02, 1000))
    return world.microseconds()


def pieces(world: World, n_events: int) -> float:
    """Do the same with tasks of 30 microseconds, which go out in pieces of up to a hundred."""
    world.fill(each_s=30e-6)
    world.start_clock()
    while world.events < n_events and world.runs:
        world.feed(world.results(30e-6, 1000))
    return world.microseconds()


def lone(world: World, n_events: int) -> float:
    """Have single tasks come for idle engines and end: two events each."""
    world.start_clock()
    while world.events < n_events:
        n = min(1000, world.engines)
        world.feed([world.submit(1) for _ in range(n)])
        world.feed(world.results(0.0, n))
    return world.microseconds()


def burst(world: World, n_events: int) -> float:
    """Have a single task come for every idle engine before the first of them ends."""
    world.start_clock()
    while world.events < n_events:
        world.feed([world.submit(1) for _ in range(world.engines)])
        world.feed(world.results(0.0, world.engines))
    return world.microseconds()


def direct(world: World, n_events: int) -> float:
    """Have single tasks come for one engine each, behind many others."""
    n, depth = world.engines, max(2, 200_000 // world.engines)
    for _ in range(min(depth, 200)):
        world.feed([world.submit(1, [engine]) for engine in range(n)])
    world.start_clock()
    number = 0
    while world.events < n_events:
        targets = [(number + i) % n for i in range(500)]
        number += 500
        world.feed([world.submit(1, [target]) for target in targets])
        world.feed(world.results(0.0, 500))
    return world.microseconds()


def stealing(world: World, n_events: int) -> float:
    """Have some engines end early, and take from those that hold more than they run."""
    world.start_clock()
    spent_s, counted = 0.0, 0
    while counted < n_events:
        world.now += 1.0
        world.feed([world.submit(4 * world.engines)])
        world.start_clock()
        while world.runs or world.revokes:
            world.feed(world.results(0.01, 1 + world.engines // 20))
            answers: list[ev.Event] = []
            while world.revokes:
                engine, revoke = world.revokes.popleft()
                kept = next(
                    (i for i, (e, run) in enumerate(world.runs) if e == engine and run.first == revoke.first), -1
                )
                stop = revoke.start
                if kept >= 0 and world.runs[kept][1].stop == revoke.stop > revoke.start > world.runs[kept][1].start:
                    run = world.runs[kept][1]
                    world.runs[kept] = engine, m.Run(1, run.first, run.start, revoke.start, run.kind, run.functions)
                    stop = revoke.stop
                answers.append(ev.EngineSaid(engine, m.Revoked(1, revoke.first, revoke.start, stop)))
            world.feed(answers)
        spent_s += world.seconds
        counted += world.events
    return spent_s / counted * 1e6


def losses(world: World, n_events: int) -> float:
    """Have engines die and others come, while a million tasks wait."""
    world.fill(each_s=0.02)
    world.start_clock()
    for number in range(min(n_events // 3, 2000)):
        victim = next(iter(world.brain.registry.engines))
        info = m.EngineInfo(f"n{number}", f"n{number}", 0, 1, "h", 10_000_000 + number, 1, "b")
        world.feed([ev.EngineDied(victim, 9, -1), ev.EngineCame(info, "control"), ev.EngineCame(info, "work")])
    return world.microseconds()


CASES: dict[str, tuple[Callable[[World, int], float], int]] = {
    "brain: result in, next task out": (balanced, 40_000),
    "brain: the same in pieces": (pieces, 8_000),
    "brain: lone task, submit or result": (lone, 40_000),
    "brain: a task for each idle engine, submit or result": (burst, 40_000),
    "brain: direct task, submit or result": (direct, 40_000),
    "brain: stealing": (stealing, 10_000),
    "brain: engine lost or come": (losses, 6_000),
}


def measure(quick: bool = False) -> list[Row]:
    """Return a row a workload and number of engines; the baseline is the same with the fewest engines."""
    rows = []
    for name, (case, n_events) in CASES.items():
        fewest = 0.0
        for n_engines in ENGINES:
            best = min(_once(case, n_engines, n_events // (4 if quick else 1)) for _ in range(1 if quick else 2))
            fewest = fewest or best
            note = "" if n_engines > ENGINES[0] else "the baseline"
            workload = f"{name}, {n_engines:,} engines"
            rows.append(at_most(workload, "us", best, f"{ENGINES[0]} engines", fewest, FLAT, note))
    return rows


def _once(case: Callable[[World, int], float], n_engines: int, n_events: int) -> float:
    world = World(n_engines)
    # As the controller does it: what is there is not looked at again.
    gc.collect()
    gc.freeze()
    threshold = gc.get_threshold()
    gc.set_threshold(50_000, 20, 50)
    try:
        return case(world, n_events)
    finally:
        gc.set_threshold(*threshold)
        gc.unfreeze()


def main() -> None:
    """Print the curve."""
    print(table(measure()))


if __name__ == "__main__":
    main()
