"""Processes that have ended: gathering what is known of it, which comes from several sides, before it is told.

The kernel tells of a death at once, and perhaps of the status. Whoever started the process tells more, a moment later:
what it has written last, and whether memory ran out. Of ranks, whose parent is their MPI's, the launcher has the log.
"""

from typing import Final

from hpc.controller.engines import Engine, Registry
from hpc.controller.events import Action
from hpc.controller.membership import Membership, describe_end
from hpc.controller.orders import Orders
from hpc.controller.timers import Alarm, Timers
from hpc.wire import messages as m

# How long after a process has died the launcher may take to tell what ended it, and what it has written.
STATUS_WAIT_S: Final = 0.03
REPORT_WAIT_S: Final = 0.4
# What had arrived before a launch was reported to have ended is read by then.
LAUNCH_END_S: Final = 0.3
# A rank whose mpirun was killed needs a moment to notice. Given up while it is connected, it would come as another one.
LINGER_S: Final = 1.0


class Deaths:
    """Decides when enough is known of a death. Appends what is to be done to ``out``."""

    def __init__(
        self, registry: Registry, membership: Membership, orders: Orders, timers: Timers, out: list[Action]
    ) -> None:
        self._registry = registry
        self._membership = membership
        self._orders = orders
        self._timers = timers
        self._out = out

    def __repr__(self) -> str:
        return f"<Deaths of {self._registry!r}>"

    def died(
        self,
        engine: Engine,
        signal: int,
        exit_code: int,
        now: float,
        lines: str = "",
        *,
        oom: bool = False,
        reported: bool = False,
    ) -> None:
        """Take in that the process of an engine is gone, or more about that.

        ``lines`` are the last of its stderr; ``reported`` says that whoever started the process has told all.
        """
        fate = engine.fate
        fate.add(signal, exit_code, lines, oom=oom, reported=reported)
        if not (fate.reported or engine.dying):
            self._membership.dying(engine)
            fate.died_at = now
            fate.awaits_report = self._will_be_reported(engine, now)
            if fate.awaits_report or not fate.known:
                self._timers.set(now + (REPORT_WAIT_S if fate.awaits_report else STATUS_WAIT_S), Alarm.STATUS, engine)
        self._weigh(engine, now)

    def _weigh(self, engine: Engine, now: float) -> None:
        """Conclude if enough is known: of the engine, or of another one of its group that has caused its end."""
        group = engine.group
        if engine.fate.is_enough or (
            engine.fate.heard
            and (group.first_end is not None or any(e.fate.is_cause(e.info.rank) for e in group.living()))
        ):
            self._conclude(engine, now)

    def _will_be_reported(self, engine: Engine, now: float) -> bool:
        """Say whether the launcher will tell more by itself, or ask it."""
        label = engine.info.group.rpartition("-")[0]
        if not (label and self._orders.launcher and engine.visible) or engine.stopping:
            return False
        if engine.group.size > 1:

            def told(answer: m.Answer, now: float) -> None:
                if not engine.lost and not answer.error:
                    engine.fate.add(-1, -1, "\n".join(answer.value), oom=False, reported=False)
                    engine.fate.heard = True
                    self._weigh(engine, now)

            self._out.append(self._orders.ask("log", {"label": label}, told))
        return True

    def said_goodbye(self, engine: Engine, detail: str, now: float) -> bool:
        """Take note that a rank ends because of a signal; say whether its launcher may tell more.

        Open MPI ends so the ranks that have not crashed.
        """
        if engine.dying or engine.group.size == 1 or not self._will_be_reported(engine, now):
            return False
        engine.fate.goodbye, engine.fate.awaits_report = detail, True
        self._membership.dying(engine)
        engine.fate.died_at = now
        self._timers.set(now + REPORT_WAIT_S, Alarm.STATUS, engine)
        return True

    def launch_ended(self, label: str, lines: str, now: float) -> None:
        """Take note that all that was launched under a label has ended: of its engines nothing more will come."""
        for engine in list(self._registry.engines.values()):
            if engine.lost or engine.info.group.rpartition("-")[0] != label:
                continue
            engine.fate.add(-1, -1, lines, oom=False, reported=False)
            engine.fate.launch_ended_at = now
            # A moment, for what the kernel tells of the others.
            self._timers.set(now + (STATUS_WAIT_S if engine.dying else LAUNCH_END_S), Alarm.STATUS, engine)

    def alarm(self, engine: Engine, now: float) -> None:
        """Go on with what is known."""
        if engine.lost:
            return
        if not engine.dying and engine.control_up and now < engine.fate.launch_ended_at + LINGER_S:
            self._timers.set(now + LAUNCH_END_S, Alarm.STATUS, engine)
        else:
            self._conclude(engine, now)

    def _conclude(self, engine: Engine, now: float) -> None:
        """Report an end; before it that of the rank that has caused it, if that is another one."""
        group, aborted = engine.group, engine.fate.aborted
        if group.size > 1 and group.first_end is None:
            gone = [e for e in group.living() if e.dying or e is engine or e.fate.aborts or e.info.rank == aborted]
            for other in gone:
                other.fate.lines = other.fate.lines or engine.fate.lines
            self._end(min(gone, key=lambda e: (not e.fate.is_cause(e.info.rank), e.fate.died_at)), now)
        if not engine.lost:
            self._end(engine, now)

    def _end(self, engine: Engine, now: float) -> None:
        fate = engine.fate
        first = engine.group.first_end
        if fate.goodbye and first is not None:
            self._membership.lose(engine, m.EndReason.GROUP, f"ended with its group: {describe_end(first)}", now)
            return
        reason, text = (m.EndReason.GOODBYE, fate.goodbye) if fate.goodbye else fate.verdict()
        self._membership.lose(
            engine, reason, text, now, signal=fate.signal, exit_code=fate.exit_code, stderr=fate.stderr
        )
