"""Engines coming and going: admission, cut connections, deaths, and what a loss means for the work."""

from collections.abc import Callable
from typing import Final

from hpc.controller import conditions, retries
from hpc.controller.bundles import Part
from hpc.controller.engines import Engine, Farewell, Group, Registry
from hpc.controller.events import Action, Admit, Announce, Command, Dropped, Reject, Send
from hpc.controller.queues import Queues
from hpc.controller.timers import Alarm, Timers
from hpc.wire import messages as m

# An engine whose connections closed is called unreachable after this; most often the news of its death comes first.
CUT_WAIT_S: Final = 0.2
# A rank that dies takes the others of its launch along: ends that follow each other this closely belong together.
GROUP_END_S: Final = 60.0


_CRASHES: Final = (
    m.EndReason.SIGNAL,
    m.EndReason.EXIT,
    m.EndReason.VANISHED,
    m.EndReason.OUT_OF_MEMORY,
    m.EndReason.MPI_ABORT,
)


class Membership:
    """Decides who is a member. Appends what is to be done to ``out``."""

    def __init__(self, registry: Registry, queues: Queues, timers: Timers, out: list[Action], grace_s: float) -> None:
        self.registry = registry
        self.queues = queues
        self.timers = timers
        self.out = out
        self.grace_s = grace_s
        # What is to be done when an engine has ended: `Restarts.crashed`.
        self.crashed: Callable[[Group, m.End, float], None] = lambda group, end, now: None

    def __repr__(self) -> str:
        return f"<Membership of {self.registry!r}, grace {self.grace_s:g} s>"

    # ------------------------------------------------------------ coming

    def came(self, info: m.EngineInfo, channel: str, left_s: float, now: float) -> None:
        """Admit a channel of an engine; a group is shown to clients when the last work channel of it has come."""
        engine = self.registry.admit(info)
        if isinstance(engine, str):
            self.out.append(Reject(engine))
            return
        self.out.append(Admit(engine.id))
        was_open, group = engine.open, engine.group
        self.timers.cancel(Alarm.CUT, engine)
        self.timers.cancel(Alarm.GRACE, engine)
        if channel == "control":
            engine.control_up = True
        else:
            engine.work_up = True
            if not engine.ready:
                engine.ready = True
                engine.ends_at = now + left_s
                group.n_ready += 1
                if group.visible:
                    self._show([engine], now)
                    return
                if group.n_ready == group.size:
                    group.visible = True
                    self._show([engine for _, engine in sorted(group.members.items())], now)
                    return
        self.queues.pools.reopen(engine, was_open)
        if engine.unreachable:
            engine.unreachable = False
            self._announce_row(engine)
        self.queues.refill(engine, now)
        for seat in engine.seats:
            self.queues.pump(seat.pool, now)

    def _show(self, engines: list[Engine], now: float) -> None:
        # Clients hear of the engines before anything that these do.
        self.out.append(Announce(m.Engines([engine.row() for engine in engines], [])))
        for engine in engines:
            self.queues.pools.enlist(engine, now)
            engine.refile()
        self.queues.teams.changed()
        for engine in engines:
            self.queues.refill(engine, now)

    def _announce_row(self, engine: Engine) -> None:
        if engine.visible:
            self.out.append(Announce(m.Engines([engine.row()], [])))

    # ------------------------------------------------------------ going

    def cut(self, engine: Engine, channel: str, now: float) -> None:
        """Take note that a channel has lost its connection. The engine may well be alive."""
        was_open = engine.open
        if channel == "control":
            engine.control_up = False
        else:
            engine.work_up = False
        self.queues.pools.reopen(engine, was_open)
        if not (engine.work_up or engine.control_up or engine.dying):
            if engine.stopping:
                self.lose(engine, m.EndReason.SHUTDOWN, "left when it was told to", now)
            elif not engine.unreachable:
                self.timers.set(now + CUT_WAIT_S, Alarm.CUT, engine)

    def dying(self, engine: Engine) -> None:
        """Take note that the process of an engine is gone, before it is known how."""
        was_open = engine.open
        engine.dying = True
        self.queues.pools.reopen(engine, was_open)

    def alarm(self, alarm: Alarm, engine: Engine, now: float) -> None:
        """Act on a deadline of an engine."""
        if engine.lost:
            return
        if alarm is Alarm.CUT:
            engine.unreachable = True
            self._announce_row(engine)
            self.timers.set(now + self.grace_s, Alarm.GRACE, engine)
        else:
            self.lose(engine, m.EndReason.VANISHED, f"was unreachable for {self.grace_s:g} s", now)

    def notice(self, engine: Engine, why: m.EndReason) -> None:
        """Take note that the allocation of an engine is about to end: it gets nothing more to do."""
        if not engine.stopping:
            self._close(engine, why)
            engine.farewell = Farewell.NOTICED
            self._announce_row(engine)

    def _close(self, engine: Engine, leaves_as: m.EndReason) -> None:
        was_open = engine.open
        engine.stopping, engine.leaves_as = True, leaves_as
        self.queues.teams.changed()
        self.queues.pools.reopen(engine, was_open)

    def stop(self, engine: Engine, reason: str) -> None:
        """Tell an engine to leave, unless it was told so before."""
        if engine.stopping and engine.leaves_as is m.EndReason.SHUTDOWN:
            return
        self._close(engine, m.EndReason.SHUTDOWN)
        if engine.control_up:
            self.out.append(Command(engine.id, m.Stop(reason)))
        else:
            self.out.append(Send(engine.id, m.Stop(reason)))

    def lose(
        self,
        engine: Engine,
        reason: m.EndReason,
        detail: str,
        now: float,
        *,
        signal: int = -1,
        exit_code: int = -1,
        stderr: str = "",
    ) -> None:
        """Take an engine out: what it had begun is lost, load-balanced work that it had not begun goes elsewhere."""
        group = engine.group
        is_over = group.visible and bool(group.doomed)
        if reason in _CRASHES and (engine.farewell or now >= engine.ends_at):
            detail = f"{detail} when its allocation ended"
            reason = engine.leaves_as if engine.stopping else m.EndReason.WALLTIME
        elif engine.stopping and not is_over:
            reason = engine.leaves_as
        elif group.size > 1 and (is_over or reason in _CRASHES):
            first = group.first_end
            if first is not None and now < group.last_end_at + GROUP_END_S:
                reason, detail = m.EndReason.GROUP, f"ended with its group: {describe_end(first)}"
                stderr = ""  # which is that of the first
        end = engine.end(reason, signal, exit_code, detail, stderr)
        if group.first_end is None or reason is not m.EndReason.GROUP:
            group.first_end = end
        group.last_end_at = now

        was_open, was_visible = engine.open, engine.visible
        for alarm in (Alarm.CUT, Alarm.GRACE, Alarm.STATUS):
            self.timers.cancel(alarm, engine)
        self.registry.remove(engine, end)
        engine.work_up = engine.control_up = engine.unreachable = False
        self.queues.pools.reopen(engine, was_open)
        # Clients hear of the loss before they hear of the tasks that it cost, so that they can say more than "lost".
        if was_visible:
            self.out.append(Announce(m.Engines([], [end])))
        self.out.append(Dropped(engine.id, end))
        is_missed = _is_waited_for(engine) or self.queues.teams.misses(engine)
        self._strand(engine, end, now)
        self.crashed(group, end, now)
        self.queues.teams.lost(engine, now)
        if not group.visible:
            self._doom(group, f"group {group.name} cannot be complete: {describe_end(end)}")
        elif is_missed:
            # Not every launcher ends the others, and in MPI they would wait for ever.
            self._doom(group, f"the ranks of group {group.name} wait in MPI for one that is gone: {describe_end(end)}")

    def _strand(self, engine: Engine, end: m.End, now: float) -> None:
        """Find a place for all that an engine held, and for what waited for it alone."""
        queues, text = self.queues, describe_end(end)
        parts = list(engine.sent)
        seats = {seat: None for seat in (*engine.seats, *(part.seat for part in parts)) if seat is not None}
        engine.sent.clear()
        engine.recalls.clear()
        engine.n_tasks, engine.backlog_s = 0, 0.0
        # From the last to the first, since each goes before what waits: so they end up in order.
        for index in range(len(parts) - 1, -1, -1):
            part = parts[index]
            bundle = part.bundle
            bundle.parts.remove(part)
            if part.seat is None:
                queues.end(bundle, part.start, part.stop, end.reason, text, end=end)
                continue
            part.seat.n -= part.stop - part.start
            # Ranges run in order, so only the first unfinished task of the oldest part can have begun.
            begun = index == 0
            if part.start + begun < part.stop:
                queues.back_to_queue(bundle, part.start + begun, part.stop, None)
            if begun:
                self._lost_task(part, end, text)
        for part in engine.direct:
            if part.start < part.stop:
                part.bundle.parts.remove(part)
                queues.end(part.bundle, part.start, part.stop, end.reason, text, end=end)
        engine.direct.clear()
        for seat in seats:
            seat.refile()
        queues.pools.discharge(engine)
        for seat in seats:
            conditions.forsake(queues, seat.pool, now)
            queues.pump(seat.pool, now)

    def _lost_task(self, part: Part, end: m.End, text: str) -> None:
        bundle, offset = part.bundle, part.start
        if retries.permit(bundle, offset, end.reason):
            self.queues.back_to_queue(bundle, offset, offset + 1, None)
        else:
            self.queues.end(bundle, offset, offset + 1, end.reason, text, end=end)

    def _doom(self, group: Group, reason: str) -> None:
        """Send the others home when a group can do nothing together, now or ever."""
        if not group.doomed:
            group.doomed = reason
            for engine in group.living():
                self.stop(engine, group.doomed)


def _is_waited_for(engine: Engine) -> bool:
    """Say whether others do something together with it that it has not ended."""
    unfinished = (part.bundle for part in (*engine.sent, *engine.direct) if part.start < part.stop)
    return any(len(bundle.parts) > 1 and not m.TOGETHER.isdisjoint(bundle.functions) for bundle in unfinished)


def describe_end(end: m.End) -> str:
    """Say which engine ended, and how."""
    return f"engine {end.id} (rank {end.rank}, pid {end.pid} on {end.host}) {end.detail}"
