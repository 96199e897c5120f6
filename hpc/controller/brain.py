"""The brain: events and the time go in, actions come out; no socket, no clock, no thread.

Each event is handled completely before the next; its cost does not depend on how many engines or waiting tasks there
are (docs/decisions/0002-brain.md).
"""

from collections.abc import Callable
from typing import Any, Final

from hpc.controller import (
    conditions,
    dependencies,
    fairness,
    feeding,
    hearing,
    patience,
    requests,
    sending,
    stealing,
    walltime,
)
from hpc.controller import events as ev
from hpc.controller.admission import Admission
from hpc.controller.bundles import Client
from hpc.controller.deaths import Deaths
from hpc.controller.engines import Engine, Registry
from hpc.controller.invariants import check
from hpc.controller.looks import Looks
from hpc.controller.membership import Membership
from hpc.controller.orders import Orders
from hpc.controller.parking import Parking
from hpc.controller.queues import Queues
from hpc.controller.restarts import Restarts
from hpc.controller.stalls import Stalls
from hpc.controller.timers import Alarm, Timers
from hpc.errors import ProtocolError
from hpc.wire import messages as m

GRACE_S: Final = 30.0


class Brain:
    """Who is there, what is to be done, and who does it.

    Parameters
    ----------
    grace_s
        How long an engine may be unreachable before it counts as lost.
    facts
        What answers to ``status`` say of the controller itself.
    """

    def __init__(self, *, grace_s: float = GRACE_S, facts: dict[str, Any] | None = None) -> None:
        self.facts = facts or {}
        self.out: list[ev.Action] = []
        self.timers = Timers()
        self.registry = Registry()
        self.queues = Queues(self.registry, self.timers, self.out)
        self.membership = Membership(self.registry, self.queues, self.timers, self.out, grace_s)
        self.clients: dict[int, Client] = {}
        self.orders = Orders()
        self.restarts = Restarts(self.registry, self.membership, self.orders, self.out)
        self.membership.crashed = self.restarts.crashed
        self.deaths = Deaths(self.registry, self.membership, self.orders, self.timers, self.out)
        self.looks = Looks(self.registry, self.timers, self.out)
        self.stalls = Stalls(self.registry, self.looks, self.timers, self.out)
        self.parking = Parking(self.queues)
        self.admission = Admission(self.registry, self.queues, self.stalls)
        self._on_event: dict[type, Callable[[Any, float], None]] = {
            ev.ClientCame: self._client_came,
            ev.ClientGone: self._client_gone,
            ev.ClientSaid: self._client_said,
            ev.ClientSlow: self._client_slow,
            ev.EngineCame: self._engine_came,
            ev.EngineCut: self._engine_cut,
            ev.EngineSaid: self._engine_said,
            ev.EngineDied: self._engine_died,
            ev.ProcessEnded: self._process_ended,
            ev.LaunchEnded: self._launch_ended,
            ev.Closing: self._closing,
            ev.Tick: self._tick,
        }
        self._from_client: dict[type, Callable[[Client, Any, ev.Frames, float], None]] = {
            m.Submit: self.admission.submit,
            m.Define: self._define,
            m.Abort: self._abort,
            m.Interrupt: self._interrupt,
            m.Query: self._query,
            m.Shutdown: self._shutdown,
            m.Order: self._order,
            m.Answer: self._answered,
        }
        self._from_engine: dict[type, Callable[[Engine, Any, ev.Frames, float], None]] = {
            m.Results: self.queues.results,
            m.Output: self._output,
            m.Revoked: self._revoked,
            m.Need: self._need,
            m.Notice: self._notice,
            m.Sight: self.looks.seen,
            m.Declined: self._declined,
            m.Goodbye: self._goodbye,
        }

    def __repr__(self) -> str:
        return f"<Brain {self.registry!r}, {self.queues!r}>"

    def handle(self, event: ev.Event, now: float) -> list[ev.Action]:
        """Take in what happened, at a time on any clock that only goes forward; return what is to be done, in order.

        Raises
        ------
        ProtocolError
            A message makes no sense; nothing has changed.
        """
        try:
            self._on_event[type(event)](event, now)
            queues = self.queues
            while queues.settled or queues.freed or queues.fed or queues.teams.restless:
                for held in dependencies.settle(queues):
                    held.submit.eligible = dependencies.eligible(held)
                    self.admission.begin(held.submit, held.bundle, held.awaits, now)
                feeding.refill(queues, now)
                if queues.teams.restless:
                    queues.teams.pump(now)
            return self.out.copy()
        finally:
            self.out.clear()

    def next_timeout(self, now: float) -> float | None:
        """Return in how many seconds a `Tick` is due, None if time alone will change nothing."""
        when = self.timers.next()
        return None if when is None else max(0.0, when - now)

    def snapshot(self) -> m.Engines:
        """Return all engines that clients may know of."""
        return m.Engines([engine.row() for engine in self.registry.visible()], [], True)

    def check_invariants(self) -> None:
        """Derive all indices again; raise AssertionError where one is wrong."""
        check(self)

    # ------------------------------------------------------------ clients

    def _client_came(self, event: ev.ClientCame, now: float) -> None:
        self.clients[event.client] = Client(event.client)
        self.out.append(ev.Tell(event.client, self.snapshot()))
        self.parking.grant(self.clients, event.client)

    def _client_gone(self, event: ev.ClientGone, now: float) -> None:
        client = self.clients.pop(event.client, None)
        if client is not None:
            # Its bundles keep it alive until the last of their tasks has ended.
            client.gone = True
            self.parking.fast(client, now)
            self.parking.grant(self.clients)

    def _client_slow(self, event: ev.ClientSlow, now: float) -> None:
        client = self.clients.get(event.client)
        if client is not None and event.is_slow:
            self.parking.slow(client)
        elif client is not None:
            self.parking.fast(client, now)

    def _client_said(self, event: ev.ClientSaid, now: float) -> None:
        client = self.clients.get(event.client)
        if client is None:
            client = self.clients[event.client] = Client(event.client)
        said = self._from_client.get(type(event.message))
        if said is not None:
            if not self.parking.lots:  # as nearly always
                said(client, event.message, event.frames, now)
                return
            with self.parking.out(client):
                said(client, event.message, event.frames, now)

    def _define(self, client: Client, define: m.Define, frames: ev.Frames, now: float) -> None:
        self.queues.functions.setdefault(define.digest, (define, frames))

    def _abort(self, client: Client, abort: m.Abort, frames: ev.Frames, now: float) -> None:
        bundle = client.bundles.get(abort.first)
        # An engine that has begun something together with others waits for all of them.
        if bundle is not None and bundle.functions[0] not in m.TOGETHER:
            self.queues.abort(bundle, max(0, abort.start), min(abort.stop, bundle.count), now)

    def _interrupt(self, client: Client, interrupt: m.Interrupt, frames: ev.Frames, now: float) -> None:
        if interrupt.first:
            self._interrupt_tasks(client, interrupt)
        for number in interrupt.targets:
            engine = self.registry.engines.get(number)
            if engine is not None and engine.visible and engine.control_up:
                self.out.append(ev.Command(number, m.Interrupt([])))

    def _interrupt_tasks(self, client: Client, interrupt: m.Interrupt) -> None:
        first, start, stop = interrupt.first, interrupt.start, interrupt.stop
        order = m.Interrupt([], client.number, first, start, stop)
        for number in requests.holders(client, first, start, stop):
            self.out.append(ev.Command(number, order))

    def _query(self, client: Client, query: m.Query, frames: ev.Frames, now: float) -> None:
        if query.what == "stacks":
            self.looks.query(client.number, query, now)
        elif query.what == "holders":
            self.out.append(ev.Tell(client.number, requests.who_holds(client, query)))
        else:
            self.out.append(ev.Tell(client.number, requests.answer(self, query, now)))

    def _shutdown(self, client: Client, shutdown: m.Shutdown, frames: ev.Frames, now: float) -> None:
        engines = requests.whom_to_stop(self.registry, shutdown.targets)
        if isinstance(engines, str):
            self.out.append(ev.Tell(client.number, m.Answer(shutdown.request, None, engines)))
            return
        self.out.append(ev.Tell(client.number, m.Answer(shutdown.request, [engine.id for engine in engines])))
        for engine in engines:
            self.membership.stop(engine, "a client asked for it")
        if shutdown.controller:
            self.out.append(ev.Quit("a client asked for it"))

    def _order(self, client: Client, order: m.Order, frames: ev.Frames, now: float) -> None:
        if order.what in ("restart", "policy"):
            self.restarts.order(client.number, order)
        else:
            self.out.append(self.orders.pass_on(client.number, order))

    def _answered(self, client: Client, answer: m.Answer, frames: ev.Frames, now: float) -> None:
        self.out.extend(self.orders.answered(answer, now))

    # ------------------------------------------------------------ engines

    def _engine_came(self, event: ev.EngineCame, now: float) -> None:
        self.membership.came(event.info, event.channel, event.left_s, now)

    def _engine_cut(self, event: ev.EngineCut, now: float) -> None:
        engine = self.registry.engines.get(event.engine)
        if engine is not None:
            self.membership.cut(engine, event.channel, now)

    def _engine_died(self, event: ev.EngineDied, now: float) -> None:
        engine = self.registry.engines.get(event.engine)
        if engine is not None:
            self.deaths.died(engine, event.signal, event.exit_code, now, oom=event.oom)

    def _process_ended(self, event: ev.ProcessEnded, now: float) -> None:
        engine = self.registry.by_process.get((event.host, event.pid))
        if engine is not None:
            how = event.signal, event.exit_code, now, event.detail
            self.deaths.died(engine, *how, oom=event.oom, reported=True)

    def _launch_ended(self, event: ev.LaunchEnded, now: float) -> None:
        self.deaths.launch_ended(event.label, event.stderr, now)

    def _engine_said(self, event: ev.EngineSaid, now: float) -> None:
        engine = self.registry.engines.get(event.engine)
        if engine is None:
            return
        said = self._from_engine.get(type(event.message))
        if said is not None:
            said(engine, event.message, event.frames, now)

    def _output(self, engine: Engine, output: m.Output, frames: ev.Frames, now: float) -> None:
        client = self.clients.get(output.client)
        if client is not None and (told := hearing.passed_on(self.registry, client, engine, output)) is not None:
            self.out.append(told)

    def _revoked(self, engine: Engine, revoked: m.Revoked, frames: ev.Frames, now: float) -> None:
        self.queues.revoked(engine, revoked, now)
        if engine.farewell:
            walltime.settle(self.queues, engine)

    def _declined(self, engine: Engine, declined: m.Declined, frames: ev.Frames, now: float) -> None:
        conditions.declined(self.queues, engine, declined, now)
        if engine.farewell:
            walltime.settle(self.queues, engine)

    def _need(self, engine: Engine, need: m.Need, frames: ev.Frames, now: float) -> None:
        sending.resend(self.queues, engine, need)

    def _notice(self, engine: Engine, notice: m.Notice, frames: ev.Frames, now: float) -> None:
        if notice.why is m.EndReason.MPI_ABORT:
            engine.fate.aborts = True
            return
        if notice.why not in walltime.REASONS:
            raise ProtocolError(f"{notice.why.name} is nothing that an engine can know of beforehand")
        self.membership.notice(engine, notice.why)
        walltime.settle(self.queues, engine)

    def _goodbye(self, engine: Engine, goodbye: m.Goodbye, frames: ev.Frames, now: float) -> None:
        if goodbye.why in walltime.REASONS:
            self.membership.lose(engine, goodbye.why, goodbye.reason, now)
            return
        detail = f"said goodbye: {goodbye.reason}" if goodbye.reason else "said goodbye"
        if not (goodbye.reason == "SIGTERM" and self.deaths.said_goodbye(engine, detail, now)):
            self.membership.lose(engine, m.EndReason.GOODBYE, detail, now)

    def _closing(self, event: ev.Closing, now: float) -> None:
        for engine in self.registry.engines.values():
            self.membership.stop(engine, event.reason)

    # ------------------------------------------------------------ time

    def _tick(self, event: ev.Tick, now: float) -> None:
        for alarm, subject in self.timers.due(now):
            if alarm is Alarm.STUCK:
                stealing.stuck(self.queues, subject, now)
            elif alarm is Alarm.STATUS:
                self.deaths.alarm(subject, now)
            elif alarm is Alarm.LOOK:
                self.looks.alarm(subject, now)
            elif alarm is Alarm.STALL:
                self.stalls.alarm(subject, now)
            elif alarm is Alarm.TEAM:
                self.queues.teams.restless = True
            elif alarm is Alarm.TIME:
                walltime.run_short(self.queues, subject, now)
            elif alarm is Alarm.PATIENCE:
                with self.parking.out(subject.client):
                    patience.over(self.queues, subject, now)
            elif alarm is Alarm.ROOM:
                fairness.look(self.queues, subject, now)
            elif alarm is Alarm.ASK:
                conditions.ask_again(self.queues, subject, now)
            else:
                self.membership.alarm(alarm, subject, now)
