"""The work itself: from a bundle to parts, from parts to engines, and results back.

Direct work waits for its engine, load-balanced work in a pool; both end in the engine's list of sent parts. The order
of direct work is the order of submission on every engine, because one event queues a bundle for all of its targets.
"""

from operator import attrgetter
from typing import Final

from hpc.controller import conditions, dependencies, fairness, feeding, retries, stealing
from hpc.controller.balance import UNKNOWN_S, Pool, Seat, latest
from hpc.controller.bundles import Bundle, Part
from hpc.controller.demands import demand_of
from hpc.controller.engines import WINDOW, Engine, Recall, Registry, Shelf
from hpc.controller.events import Action, Command, Deliver, Frames, Tell
from hpc.controller.pools import Pools
from hpc.controller.sending import order
from hpc.controller.teams import Teams
from hpc.controller.timers import Timers
from hpc.wire import messages as m

START: Final = attrgetter("start")


class Queues:
    """Parts and where they are. Appends what is to be done to ``out``."""

    def __init__(self, registry: Registry, timers: Timers, out: list[Action]) -> None:
        self.registry = registry
        self.timers = timers
        self.out = out
        self.functions: dict[bytes, tuple[m.Define, Frames]] = {}
        self.pools = Pools(registry, timers)
        self.teams = Teams(self)
        self.freed: list[Engine] = []  # may have direct work that waited behind what has ended now
        self.fed: list[tuple[Bundle, list[int] | None]] = []  # load-balanced, has its arguments now
        self.settled: list[dependencies.Hold] = []  # need not wait for other tasks any more, or would for ever

    def __repr__(self) -> str:
        return f"<Queues {self.pools!r}, {len(self.functions)} functions>"

    # ------------------------------------------------------------ to the engines

    def place(self, bundle: Bundle, targets: list[int]) -> None:
        """Queue new direct work; those of its targets that are not there have been refused."""
        engines = self.registry.engines
        if bundle.kind is not m.Kind.EACH:
            self._queue(Part(bundle, 0, bundle.count), engines[targets[0]])
            return
        there = [(offset, engines[number]) for offset, number in enumerate(targets) if number in engines]
        # All parts before the first is sent: the last one that is sent takes the body along.
        parts = [(Part(bundle, offset, offset + 1), engine) for offset, engine in there if engine.visible]
        for part, engine in parts:
            self._queue(part, engine)

    def balance(self, bundle: Bundle, eligible: list[int] | None, now: float) -> None:
        """Queue new load-balanced work, in the pool of the engines that may run it."""
        if bundle.ranks:
            self.teams.add(bundle, eligible)
            return
        demand = demand_of(bundle.options) if bundle.options is not None else None
        pool = self.pools.find(eligible, bundle.declared_s, now, demand)
        bundle.pool = pool
        pool.n_bundles += 1
        bundle.nbytes = sum(map(len, bundle.body))
        if bundle.parts:  # it was held
            for part in sorted(bundle.parts, key=START):
                pool.push(part)
        else:
            pool.push(Part(bundle, 0, bundle.count))
        if pool is not self.pools.common:
            conditions.forsake(self, pool, now)
        self.pump(pool, now)
        if pool.waiting and pool.mask:
            fairness.make_room(self, pool, bundle, now)

    def _queue(self, part: Part, engine: Engine) -> None:
        part.engine = engine
        if engine.direct or len(engine.sent) >= WINDOW or not engine.open or part.awaits:
            engine.direct.append(part)
        else:
            self.send(engine, part)
        engine.refile()

    def send(self, engine: Engine, part: Part) -> None:
        """Send a part to an engine, and count it there."""
        bundle = part.bundle
        each_s = bundle.expected_s if bundle.expected_s >= 0 else UNKNOWN_S
        n = part.stop - part.start
        part.engine = engine
        part.sent = True
        part.each_s = each_s
        engine.sent.append(part)
        engine.n_tasks += n
        engine.backlog_s += each_s * n
        order(self, engine, part)
        bundle.forget_body()

    def _serve(self, seat: Seat) -> None:
        """Send the next piece of a pool that has work to an engine that can take it."""
        part = seat.pool.take()
        part.seat = seat
        seat.n += part.stop - part.start
        engine = seat.engine
        self.send(engine, part)
        seat.refile()
        engine.refile()

    def pump(self, pool: Pool, now: float) -> None:
        """Hand out what waits in a pool while there are engines that can take it, idle ones first."""
        while pool.waiting:
            # The engine that became idle last: its caches are warm.
            shelf = pool.idle or pool.lean
            if not shelf:
                return
            self._serve(latest(shelf))
        if pool.idle and pool.mask:
            stealing.steal(self, pool, now)

    def refill(self, engine: Engine, now: float) -> None:
        """Give an engine that has made progress more to do, if there is any."""
        if engine.team is not None:
            self.teams.progress(engine, now)
        direct = engine.direct
        while direct and len(engine.sent) < WINDOW and engine.open and not direct[0].awaits:
            part = direct.popleft()
            if part.start < part.stop:
                self.send(engine, part)
        engine.refile()
        seats = engine.seats
        if len(seats) == 1:
            seat = seats[0]
            while engine.shelf and seat.pool.waiting:
                self._serve(seat)
        else:
            self._serve_in_turn(engine)
        if engine.shelf is Shelf.IDLE:
            self.teams.restless |= bool(self.teams.pools)
            for seat in seats:
                if seat.pool.mask:
                    stealing.steal(self, seat.pool, now)

    def _serve_in_turn(self, engine: Engine) -> None:
        seats = engine.seats
        served = True
        while served:
            served = False
            for _ in range(len(seats)):
                if not engine.shelf:
                    return
                seat = seats.pop(0)
                seats.append(seat)
                if seat.pool.waiting:
                    self._serve(seat)
                    served = True

    # ------------------------------------------------------------ asking work back

    def recall(self, engine: Engine, bundle: Bundle, start: int, stop: int, seat: Seat | None) -> None:
        """Ask an engine to give back what it has not begun of a range."""
        engine.recalls.append(Recall(bundle.client.number, bundle.first, seat))
        if seat is not None:
            seat.recalls += 1
            seat.refile()
        self.out.append(Command(engine.id, m.Revoke(bundle.client.number, bundle.first, start, stop)))

    def revoked(self, engine: Engine, message: m.Revoked, now: float) -> None:
        """Take note of what an engine gives back."""
        recalls = (r for r in engine.recalls if r.client == message.client and r.first == message.first)
        recall = next(recalls, None)
        if recall is None:
            return
        engine.recalls.remove(recall)
        seat = recall.seat
        if seat is not None:
            seat.recalls -= 1
        if message.start < message.stop:
            self.give_back(engine, message)
        if seat is not None:
            seat.refile()
            # First to those for whom it was taken back, or its old holder would have it again.
            self.pump(seat.pool, now)
            conditions.forsake(self, seat.pool, now)
        self.refill(engine, now)

    def give_back(self, engine: Engine, message: m.Revoked) -> None:
        """Queue what an engine will not run, which may be the middle of a part."""
        start, stop = message.start, message.stop
        part = engine.holding(message.client, message.first, start, stop)
        if part is None:
            return
        bundle, seat, n = part.bundle, part.seat, stop - start
        engine.n_tasks -= n
        engine.backlog_s -= part.each_s * n
        if seat is not None:
            seat.n -= n
        if stop < part.stop:
            rest = Part(bundle, stop, part.stop)
            rest.engine, rest.seat, rest.sent, rest.each_s = engine, seat, True, part.each_s
            engine.sent.insert(engine.sent.index(part) + 1, rest)
        part.stop = start
        if part.start == start:
            engine.sent.remove(part)
            bundle.parts.remove(part)
            self._head_changed(engine)
        self.back_to_queue(bundle, start, stop, engine if seat is None else None)

    def back_to_queue(self, bundle: Bundle, start: int, stop: int, engine: Engine | None) -> None:
        """Queue a range that came back before everything else, except for what was to be aborted."""
        kept = [(start, stop)]
        if bundle.aborts:
            aborted, kept = bundle.split_aborted(start, stop)
            for low, high in aborted:
                self.end(bundle, low, high, m.EndReason.ABORTED, "aborted before it began")
        for low, high in reversed(kept):
            part = Part(bundle, low, high)
            if bundle.pool is not None:
                bundle.pool.push_front(part)
            else:
                part.engine = engine
                assert engine is not None  # noqa: S101 - for the type checker: direct work has its engine
                engine.direct.appendleft(part)

    def _head_changed(self, engine: Engine) -> None:
        if not engine.sent:
            # What rounding has left over must not pile up.
            engine.backlog_s = 0.0
            return
        seat = engine.sent[0].seat
        if seat is not None:
            seat.refile()

    # ------------------------------------------------------------ back from the engines

    def results(self, engine: Engine, message: m.Results, frames: Frames, now: float) -> None:
        """Account for tasks that have ended on an engine, and pass what came of them on."""
        sent = engine.sent
        start, stop, first = message.start, message.stop, message.first
        part = sent[0] if sent else None
        if (
            part is None
            or part.bundle.first != first
            or part.bundle.client.number != message.client
            or part.start != start
            or not start < stop <= part.stop
        ):
            parts = self._covering(engine, message)
            if not parts:
                # Of a task that has ended already (it was taken for lost): nobody waits for it.
                return
            part = parts[0]
        else:
            parts = None
        n = stop - start
        bundle = part.bundle
        again = retries.sift(bundle, message, frames) if message.failed and bundle.retries else None
        if parts is None:
            self._finish(engine, part, stop)
        else:
            for each in parts:
                self._finish(engine, each, min(stop, each.stop))
        engine.completed += n
        if message.failed:
            engine.failed += len(message.failed)
        client = bundle.client
        each_s = message.seconds / n
        if bundle.pace is not None:
            bundle.pace.observe(each_s)
            client.pace.observe(each_s)
        if again is not None:
            retries.try_again(self, bundle, engine, again, now)
        elif bundle.feeds is not None:
            bundle.ended(n)
            feeding.feed(self, bundle, engine, message, frames)
        else:
            self.deliver(engine, bundle, message, frames)
        self.refill(engine, now)

    def deliver(self, engine: Engine, bundle: Bundle, message: m.Results, frames: Frames) -> None:
        """Pass results on to the client, and to those that wait for them."""
        client, start, stop, first = bundle.client, message.start, message.stop, message.first
        past = client.past
        past.places.append((first + start, first + stop, engine.id))
        if message.failed:
            for offset in message.failed:
                past.fail(first + offset, first + offset + 1)
        bundle.ended(stop - start)
        if bundle.watches is not None:
            dependencies.ended(self, bundle, range(start, stop), message.failed, engine.id)
        if not client.gone:
            item = m.Delivered(first, start, stop, engine.id, message.packed, len(frames))
            self.out.append(Deliver(client.number, item, frames))

    def _finish(self, engine: Engine, part: Part, stop: int) -> None:
        n = stop - part.start
        part.start = stop
        engine.n_tasks -= n
        engine.backlog_s -= part.each_s * n
        seat = part.seat
        if seat is not None:
            seat.n -= n
        if stop == part.stop:
            sent = engine.sent
            if sent[0] is part:
                sent.popleft()
            else:
                sent.remove(part)
            part.bundle.parts.remove(part)
            self._head_changed(engine)
        if seat is not None:
            seat.refile()

    def _covering(self, engine: Engine, message: m.Results) -> list[Part]:
        """Return the parts that hold exactly the tasks of some results, the first of them perhaps made for that."""
        at, parts = message.start, list[Part]()
        for part in tuple(engine.sent):
            if at >= message.stop or not part.bundle.is_named(message.client, message.first):
                continue
            if part.start < at < part.stop and not parts:  # they have overtaken earlier ones
                rest = part.split(at)
                engine.sent.insert(engine.sent.index(part) + 1, rest)
                part = rest  # noqa: PLW2901
            if part.start == at:
                parts.append(part)
                at = part.stop
        return parts if at >= message.stop and parts else []

    # ------------------------------------------------------------ ends without a result

    def end(
        self, bundle: Bundle, start: int, stop: int, reason: m.EndReason, detail: str, *, end: m.End | None = None
    ) -> None:
        """Tell the client that tasks ended without a result of their own."""
        bundle.ended(stop - start)
        bundle.client.past.fail(bundle.first + start, bundle.first + stop)
        if bundle.watches is not None:
            dependencies.ended(self, bundle, range(start, stop), range(start, stop), -1)
        if bundle.feeds is not None:
            feeding.fail(self, bundle, reason, detail, end)
        elif not bundle.client.gone:
            message = m.Ended(bundle.first, start, stop, reason, detail, end)
            self.out.append(Tell(bundle.client.number, message))

    def abort(self, bundle: Bundle, start: int, stop: int, now: float) -> None:
        """End tasks that wait, and ask for those back that were sent but have perhaps not begun."""
        bundle.aborts.append((start, stop))
        touched = set()
        for part in sorted(bundle.parts, key=lambda part: part.start):
            low, high = max(start, part.start), min(stop, part.stop)
            if low >= high:
                continue
            if not part.sent:
                self._abort_waiting(part, low, high)
            elif part.engine is not None and part.engine.control_up:
                self.recall(part.engine, bundle, low, high, part.seat)
            if part.engine is not None:
                touched.add(part.engine)
        for engine in touched:
            self.refill(engine, now)

    def _abort_waiting(self, part: Part, low: int, high: int) -> None:
        bundle, pool, engine = part.bundle, part.bundle.pool, part.engine
        if high < part.stop:
            rest = Part(bundle, high, part.stop)
            if pool is not None:
                # Which part of a client's load-balanced work comes next does not matter.
                pool.push_front(rest)
                pool.withdraw(part.stop - high)
            elif engine is not None:
                rest.engine = engine
                engine.direct.insert(engine.direct.index(part) + 1, rest)
        part.stop = low
        if part.start == low:
            bundle.parts.remove(part)
        if pool is not None:
            pool.withdraw(high - low)
        self.end(bundle, low, high, m.EndReason.ABORTED, "aborted before it began")
