"""The brain against a model: whatever happens in whatever order, each task ends exactly once."""

import math
from collections import Counter
from typing import Any

from brain_engine import FakeEngine, draw_options, failed_of, frames_of
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hpc.controller import events as ev
from hpc.controller.brain import Brain
from hpc.wire import messages as m

FUNCTION = b"f" * 16
OTHER = b"g" * 16


class BrainModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.brain = Brain(grace_s=30)
        self.engines: dict[int, FakeEngine] = {}
        self.newcomers: list[FakeEngine] = []
        self.clients: dict[int, int] = {}
        self.n_clients = self.n_groups = self.serial = 0
        # By (client, task number).
        self.open_tasks, self.succeeded = set[tuple[int, int]](), set[tuple[int, int]]()
        self.outcomes, self.begins, self.spent, self.retries = (Counter[tuple[int, int]]() for _ in range(4))
        # By the first task of a bundle, also the tasks that it waits for.
        self.options: dict[tuple[int, int], m.Options] = {}
        self.after: dict[tuple[int, int], list[int]] = {}
        self.direct: dict[tuple[int, int], int] = {}  # serial numbers of submissions
        self.last_begun: dict[int, int] = {}
        self.known, self.gone_clients = set[int](), set[int]()

    # ------------------------------------------------------------ driving

    def do(self, event: ev.Event) -> list[ev.Action]:
        actions = self.brain.handle(event, self.now)
        for action in actions:
            self.apply(action)
        self.brain.check_invariants()
        return actions

    def apply(self, action: ev.Action) -> None:
        match action:
            case ev.Send(number, message, _):
                # What is sent while a connection is cut is kept by the session, in order.
                assert number in self.engines
                self.engines[number].received(message)
                if isinstance(message, m.Run):
                    options = self.options[message.client, message.first]
                    wanted = self.after.get((message.client, message.first), [])
                    missing = [task for task in wanted if (message.client, task) not in self.succeeded]
                    assert not missing or message.client in self.gone_clients, f"begun too early: {message}, {missing}"
                    assert set(options.labels) <= set(self.engines[number].info.labels), "not where it may run"
                    in_time = self.now + options.expected_s <= self.engines[number].ends_at + 1e-9  # sums are rounded
                    assert in_time or not options.expected_s, "a task that cannot end in time"
            case ev.Command(number, message):
                self.engines[number].called(message)
            case ev.Deliver(client, item, frames):
                assert item.engine in self.known, "a result of an engine that clients have not heard of"
                self.ended(client, item.first + item.start, item.first + item.stop)
                failed = failed_of(item, frames)
                for key in ((client, item.first + offset) for offset in failed):
                    tries = self.begins[key] + self.spent[key]
                    assert key in self.direct or tries > self.retries[key], "given up too early"
                done = range(item.start, item.stop)
                self.succeeded.update((client, item.first + offset) for offset in done if offset not in failed)
            case ev.Tell(client, m.Ended() as ended):
                if ended.reason is m.EndReason.TIMEOUT:
                    assert self.options[client, ended.first].timeout_s >= 0, "nobody said how long it may wait"
                if ended.end is not None:
                    assert ended.end.id not in self.known, "tasks failed before their engine was announced as lost"
                self.ended(client, ended.first + ended.start, ended.first + ended.stop)
            case ev.Announce(engines):
                self.known.update(row.id for row in engines.joined)
                for end in engines.left:
                    self.known.remove(end.id)
            case ev.Dropped(number, end):
                gone = self.engines.pop(number)  # and with it, as far as the brain knows, a task that had begun
                for client, first, start, _ in [*gone.runs][:1]:
                    key = client, first + start
                    self.spent[key] += not gone.begun
                    self.retries[key] += end.reason is m.EndReason.WALLTIME and self.retries[key] > 0  # costs none

    def ended(self, client: int, start: int, stop: int) -> None:
        assert client not in self.gone_clients
        for task in range(start, stop):
            assert (client, task) in self.open_tasks, "a task ended twice, or was never submitted"
            self.open_tasks.remove((client, task))
            self.outcomes[client, task] += 1

    def pick(self, data: st.DataObject) -> FakeEngine:
        return data.draw(st.sampled_from(sorted(self.engines.values(), key=lambda e: e.id)))

    # ------------------------------------------------------------ engines

    @initialize()
    def first_client(self) -> None:
        self.client_comes()

    @rule(size=st.sampled_from([1, 1, 1, 2, 3]), left_s=st.sampled_from([math.inf, math.inf, 1.0, 60.0]))
    def launch(self, size: int, left_s: float) -> None:
        self.n_groups += 1
        for rank in range(size):
            name = f"g{self.n_groups}"
            info = m.EngineInfo(f"{name}-{rank}", name, rank, size, "host", 1000 * self.n_groups + rank, 1, "boot")
            info.labels = ["big"] * (self.n_groups % 2)
            self.newcomers.append(FakeEngine(info, left_s))

    @precondition(lambda self: self.newcomers)
    @rule(data=st.data(), control_first=st.booleans())
    def engine_comes(self, data: st.DataObject, control_first: bool) -> None:
        fake = self.newcomers.pop(data.draw(st.integers(0, len(self.newcomers) - 1)))
        for channel in ("control", "work") if control_first else ("work",):
            self.connect(fake, channel)
            if fake.id < 0:
                return

    def connect(self, fake: FakeEngine, channel: str) -> None:
        if channel == "work" and fake.ends_at == math.inf:
            fake.ends_at = self.now + fake.left_s
        actions = self.brain.handle(ev.EngineCame(fake.info, channel, fake.left_s), self.now)
        if isinstance(actions[0], ev.Reject):
            assert len(actions) == 1
            return
        assert isinstance(actions[0], ev.Admit)
        assert fake.id in (-1, actions[0].engine)
        fake.id = actions[0].engine
        group = self.brain.registry.groups[fake.info.group]
        assert fake.id == group.base + fake.info.rank
        self.engines[fake.id] = fake
        fake.up[channel] = True
        for action in actions[1:]:
            self.apply(action)
        self.brain.check_invariants()

    @precondition(lambda self: self.engines)
    @rule(data=st.data(), channel=st.sampled_from(["work", "control"]))
    def cut_or_connect(self, data: st.DataObject, channel: str) -> None:
        fake = self.pick(data)
        if fake.up[channel]:
            fake.up[channel] = False
            self.do(ev.EngineCut(fake.id, channel))
        else:
            self.connect(fake, channel)

    @precondition(lambda self: self.engines)
    @rule(data=st.data(), n=st.integers(1, 6), failed=st.booleans())
    def work(self, data: st.DataObject, n: int, failed: bool) -> None:
        fake = self.pick(data)
        if fake.begun and fake.up["work"]:
            self.finish(fake, n, failed)
        elif fake.up["work"] and (declined := fake.decline()) is not None:
            self.do(ev.EngineSaid(fake.id, declined))
        elif not fake.declines and (task := fake.begin()) is not None:
            self.began(fake, *task)

    def finish(self, fake: FakeEngine, n: int, failed: bool) -> None:
        client, first, start, stop = fake.runs[0]
        for task in range(first + start + 1, first + min(start + n, stop)):
            self.began(fake, client, task)
        self.do(ev.EngineSaid(fake.id, results := fake.finish(n, failed), frames_of(results)))

    def began(self, fake: FakeEngine, client: int, task: int) -> None:
        key = client, task
        self.begins[key] += 1
        assert self.begins[key] <= 1 + self.retries[key], "a task ran twice"
        serial = self.direct.get(key)
        if serial is not None:
            assert serial > self.last_begun.get(fake.id, -1), "direct work ran out of order"
            self.last_begun[fake.id] = serial

    @precondition(lambda self: any(e.mail and e.up["control"] for e in self.engines.values()))
    @rule()
    def read_mail(self) -> None:
        self.read(next(e for e in self.engines.values() if e.mail and e.up["control"]))

    def read(self, fake: FakeEngine) -> None:
        message = fake.mail.popleft()
        if isinstance(message, m.Revoke):
            self.do(ev.EngineSaid(fake.id, fake.revoke(message)))

    @precondition(lambda self: any(e.up["control"] and not e.noticed for e in self.engines.values()))
    @rule(data=st.data())
    def allocation_ends(self, data: st.DataObject) -> None:
        fakes = [e for e in self.engines.values() if e.up["control"] and not (e.noticed or e.stopped)]
        if fakes:
            fake = data.draw(st.sampled_from(fakes))
            fake.noticed = True
            self.do(ev.EngineSaid(fake.id, m.Notice(m.EndReason.WALLTIME)))

    @precondition(lambda self: any(e.done for e in self.engines.values()))
    @rule()
    def leaves_in_order(self) -> None:
        self.leave(next(e for e in self.engines.values() if e.done))

    def leave(self, fake: FakeEngine) -> None:
        for action in self.do(ev.EngineSaid(fake.id, m.Goodbye("the end", m.EndReason.WALLTIME))):
            if isinstance(action, ev.Tell) and isinstance(action.message, m.Ended) and action.message.end is not None:
                assert (action.client, action.message.first) in self.direct, "a task was lost that it had not begun"

    @precondition(lambda self: self.engines)
    @rule(data=st.data(), how=st.sampled_from(["pidfd", "launcher", "unknown", "goodbye"]))
    def engine_dies(self, data: st.DataObject, how: str) -> None:
        fake = self.pick(data)
        # It may have begun the next task without the brain knowing.
        if how == "pidfd":
            self.do(ev.EngineDied(fake.id, 9, -1))
        elif how == "launcher":
            self.do(ev.ProcessEnded("host", fake.info.pid, 0, 3, ""))
        elif how == "unknown":
            self.do(ev.EngineDied(fake.id))
            assert fake.id in self.engines
            self.now += 0.1
            self.do(ev.Tick())
        else:
            self.do(ev.EngineSaid(fake.id, m.Goodbye("done")))
        assert fake.id not in self.engines

    @precondition(lambda self: self.engines)
    @rule(data=st.data())
    def shutdown(self, data: st.DataObject) -> None:
        fake = self.pick(data)
        tell, *_ = self.do(ev.ClientSaid(min(self.clients, default=0), m.Shutdown(1, [fake.id], False)))
        assert isinstance(tell, ev.Tell)
        answer = tell.message
        assert isinstance(answer, m.Answer)
        if not answer.error:
            assert fake.stopped or fake.told

    # ------------------------------------------------------------ clients

    @rule()
    def client_comes(self) -> None:
        if len(self.clients) < 3:
            self.n_clients += 1
            self.clients[self.n_clients] = 1
            self.do(ev.ClientCame(self.n_clients))
            self.do(ev.ClientSaid(self.n_clients, m.Define(FUNCTION, "f"), (b"", b"f")))
            self.do(ev.ClientSaid(self.n_clients, m.Define(OTHER, "g"), (b"", b"g")))

    @precondition(lambda self: len(self.clients) > 1)
    @rule()
    def client_goes(self) -> None:
        client = min(self.clients)
        del self.clients[client]
        self.gone_clients.add(client)
        self.open_tasks = {key for key in self.open_tasks if key[0] != client}
        self.do(ev.ClientGone(client))

    def submit(  # noqa: PLR0913, PLR0917 - what there is to say of a bundle
        self,
        data: st.DataObject,
        count: int,
        kind: m.Kind,
        targets: list[int] | None,
        options: m.Options | None = None,
        **more: Any,
    ) -> None:
        client = data.draw(st.sampled_from(sorted(self.clients)))
        first, options = self.clients[client], options or m.Options()
        tasks = []
        if first > 1 and options.after is not None:
            tasks = data.draw(st.lists(st.integers(1, first - 1), min_size=1, max_size=3, unique=True))
        # Nothing has changed so far: a draw may be the end of the example, before the brain hears of the tasks.
        self.clients[client] += count
        self.serial += 1
        for offset in range(count):
            self.open_tasks.add((client, first + offset))
            if targets is not None:
                self.direct[client, first + offset] = self.serial * 1000 + (0 if kind is m.Kind.EACH else offset)
        self.options[client, first] = options
        options.after = m.After([(task, task + 1) for task in tasks]) if tasks else None
        self.after[client, first] = tasks
        for offset in range(count):
            self.retries[client, first + offset] = options.retries
        message = m.Submit(first, count, kind, [FUNCTION], targets, 0.0, options, **more)
        self.do(ev.ClientSaid(client, message, (b"body",)))

    @rule(
        data=st.data(),
        count=st.sampled_from([1, 1, 2, 5, 30, 100]),
        retries=st.integers(0, 1),
        expected_s=st.sampled_from([0.0, 0.0, 0.4, 20.0]),
    )
    @precondition(lambda self: self.clients)
    def submit_balanced(self, data: st.DataObject, count: int, retries: int, expected_s: float) -> None:
        eligible, options = None, m.Options()
        if data.draw(st.integers(0, 3)) == 0:
            eligible = data.draw(st.lists(st.integers(0, max(self.engines, default=0) + 1), max_size=3))
        if data.draw(st.booleans()):
            options = draw_options(data, OTHER)
        options.retries, options.expected_s = retries, expected_s
        self.submit(data, count, m.Kind.SPAN, None, options, eligible=eligible)

    @rule(data=st.data(), times=st.sampled_from([1, 1, 20]))
    @precondition(lambda self: self.clients)
    def submit_each(self, data: st.DataObject, times: int) -> None:
        targets = data.draw(st.lists(st.integers(0, max(self.engines, default=0) + 1), min_size=1, unique=True))
        for _ in range(times):
            self.submit(data, len(targets), m.Kind.EACH, targets)

    @rule(data=st.data(), count=st.integers(1, 5))
    @precondition(lambda self: self.clients)
    def submit_calls(self, data: st.DataObject, count: int) -> None:
        target = data.draw(st.integers(0, max(self.engines, default=0)))
        self.submit(data, count, m.Kind.CALLS, [target])

    @rule(data=st.data())
    @precondition(lambda self: any(c.bundles for c in self.brain.clients.values()))
    def abort(self, data: st.DataObject) -> None:
        bundles = [b for c in self.brain.clients.values() for b in c.bundles.values()]
        bundle = data.draw(st.sampled_from(bundles))
        start = data.draw(st.integers(0, bundle.count))
        stop = data.draw(st.integers(start, bundle.count))
        self.do(ev.ClientSaid(bundle.client.number, m.Abort(bundle.first, start, stop)))

    @rule(data=st.data(), what=st.sampled_from(["status", "queue_status", "ping"]))
    @precondition(lambda self: self.clients)
    def query(self, data: st.DataObject, what: str) -> None:
        (tell,) = self.do(ev.ClientSaid(min(self.clients), m.Query(7, what)))
        assert isinstance(tell, ev.Tell)

    # ------------------------------------------------------------ time

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.5, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        timeout = self.brain.next_timeout(self.now)
        self.do(ev.Tick())
        after = self.brain.next_timeout(self.now)
        assert timeout is None or timeout > 0 or after is None or after > 0, "an alarm that is due stays due"

    @invariant()
    def group_is_shown_at_once(self) -> None:
        visible = {engine.id for engine in self.brain.registry.visible()}
        assert visible == self.known
        for group in self.brain.registry.groups.values():
            assert group.visible or not visible & set(range(group.base, group.base + group.size))

    def teardown(self) -> None:
        """Let all work end: every task must, once."""
        for fake in list(self.engines.values()):
            if fake.id in self.engines:
                for channel, up in fake.up.items():
                    if not up and fake.id in self.engines:
                        self.connect(fake, channel)
        last = FakeEngine(m.EngineInfo("last", "last", 0, 1, "other", 1, 1, "boot", labels=["big"]))
        self.connect(last, "work")
        self.connect(last, "control")
        self.work_off()
        while self.brain.next_timeout(self.now) is not None and self.open_tasks:  # some have no place to go
            self.now += 10.0
            self.do(ev.Tick())
            self.work_off()
        for fake in list(self.engines.values()):
            if fake.id in self.engines and not self.brain.registry.engines[fake.id].group.visible:
                self.do(ev.EngineDied(fake.id, 15, -1))
        assert not self.open_tasks, "tasks that never ended"
        assert all(n == 1 for n in self.outcomes.values())
        assert not any(client.bundles for client in self.brain.clients.values())

    def work_off(self) -> None:
        """Have the engines do all that they are sent."""
        for _ in range(500 + len(self.open_tasks)):
            if not any(e.runs or e.mail or e.stopped or e.told for e in self.engines.values()):
                break
            for fake in list(self.engines.values()):
                while fake.mail:
                    self.read(fake)
                if fake.stopped:
                    self.do(ev.EngineSaid(fake.id, m.Goodbye("told to")))
                elif fake.done:
                    self.leave(fake)
                elif (declined := fake.decline()) is not None:
                    self.do(ev.EngineSaid(fake.id, declined))
                elif fake.runs:
                    if not fake.begun:
                        task = fake.begin()
                        assert task is not None
                        self.began(fake, *task)
                    self.finish(fake, 50, False)
            self.now += 0.01
            self.do(ev.Tick())
        else:
            raise AssertionError(f"the work goes round in circles: {self.brain}, {self.engines}")


TestBrainModel = BrainModel.TestCase
TestBrainModel.settings = settings(
    max_examples=300,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
