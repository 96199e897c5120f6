"""A brain on the bench: one client, some engines, and what the last event led to."""

import math

from hpc.controller import events as ev
from hpc.controller.brain import Brain
from hpc.wire import messages as m

F = b"f" * 16


class Bench:
    """A brain with one client, and what it wanted done by the last event."""

    def __init__(self, n_engines=0, **options):
        self.brain = Brain(**options)
        self.now = 0.0
        self.first = 1
        self.actions = []
        self.do(ev.ClientCame(1))
        self.do(ev.ClientSaid(1, m.Define(F, "f"), (b"", b"f")))
        for number in range(n_engines):
            self.engine(f"e{number}")

    def do(self, event):
        self.actions = self.brain.handle(event, self.now)
        self.brain.check_invariants()
        return self.actions

    def tick(self, seconds):
        self.now += seconds
        return self.do(ev.Tick())

    def engine(self, uuid, group=None, rank=0, size=1, channels=("control", "work"), left_s=math.inf, **more):
        fields = {"host": "h", "pid": 100 + len(self.brain.registry.engines), "started": 1, "boot_id": "b", **more}
        info = m.EngineInfo(uuid=uuid, group=group or uuid, rank=rank, size=size, **fields)
        for channel in channels:
            self.do(ev.EngineCame(info, channel, left_s))
        return info

    def submit(self, count=1, kind=m.Kind.SPAN, targets=None, function=F, **more):
        first, self.first = self.first, self.first + count
        self.do(ev.ClientSaid(1, m.Submit(first, count, kind, [function], targets, 0.0, **more), (b"body",)))
        return first

    def runs(self):
        return [(a.engine, a.message.first, a.message.start, a.message.stop) for a in self.of(m.Run)]

    def of(self, kind):
        """Return the actions that carry such a message."""
        return [a for a in self.actions if isinstance(getattr(a, "message", None), kind)]

    def messages(self, kind):
        return [a.message for a in self.of(kind)]

    def finish(self, engine, first, start, stop, each_s=0.0, failed=()):
        results = m.Results(1, first, start, stop, False, list(failed), each_s * (stop - start))
        return self.do(ev.EngineSaid(engine, results, (b"entries",)))

    def teach(self, each_s, engine=0):
        """Let the brain learn how long a task takes."""
        first = self.submit(1)
        ((who, *_),) = self.runs()
        self.finish(who, first, 0, 1, each_s)
