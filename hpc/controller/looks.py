"""Looking at what engines do: the question to each, the answers, and who looks at an engine that does not answer."""

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

import msgspec

from hpc.controller.engines import Engine, Registry
from hpc.controller.events import Action, Command, Frames, Tell
from hpc.controller.timers import Alarm, Timers
from hpc.wire import messages as m
from hpc.wire.stacks import SILENT

# An engine whose interpreter is free answers within a millisecond or, where many share a core, within some dozens.
ANSWER_S: Final = 1.0

Then: TypeAlias = Callable[[dict[int, m.Sight], float], None]


class Look:
    """A question that is under way. ``asked`` are the engines, ``sights`` what is known of them so far."""

    def __init__(self, number: int, asked: list[Engine], then: Then) -> None:
        self.number, self.asked, self.then = number, asked, then
        self.sights: dict[int, m.Sight] = {}
        self.by_others = False

    def __repr__(self) -> str:
        return f"<Look {self.number}, {len(self.sights)} of {len(self.asked)} seen>"

    def missing(self) -> list[Engine]:
        """Return the engines of which nothing is known, and that are still there."""
        return [engine for engine in self.asked if engine.id not in self.sights and not engine.lost]


class Looks:
    """All questions that are under way. Appends what is to be done to ``out``."""

    def __init__(self, registry: Registry, timers: Timers, out: list[Action]) -> None:
        self._registry = registry
        self._timers = timers
        self._out = out
        self._open: dict[int, Look] = {}
        self._number = 0
        self.answer_s = ANSWER_S

    def __repr__(self) -> str:
        return f"<Looks {list(self._open.values())}>"

    def query(self, client: int, query: m.Query, now: float) -> None:
        """Answer a client, or a monitor, that asks for ``stacks`` of the engines ``targets``, by default of all."""
        targets = query.arguments.get("targets")
        engines = list(self._registry.visible())
        if targets is not None:
            known = {engine.id: engine for engine in engines}
            if not isinstance(targets, list) or not all(isinstance(n, int) and n in known for n in targets):
                error = f"there are not all of the engines {targets!r}; {self._registry.describe_ids()}"
                self._out.append(Tell(client, m.Answer(query.request, None, error)))
                return
            engines = [known[number] for number in dict.fromkeys(targets)]

        def tell(sights: dict[int, m.Sight], _now: float) -> None:
            self._out.append(Tell(client, m.Answer(query.request, rows(engines, sights))))

        self.ask(engines, tell, now)

    def ask(self, engines: Iterable[Engine], then: Then, now: float) -> None:
        """Ask engines where they are; call ``then`` with what is known when all have answered, or after a time."""
        self._number += 1
        look = Look(self._number, list(engines), then)
        if not look.asked:
            then({}, now)
            return
        self._open[look.number] = look
        for engine in look.asked:
            if engine.control_up:
                self._out.append(Command(engine.id, m.Look(look.number)))
        self._timers.set(now + self.answer_s, Alarm.LOOK, look)

    def seen(self, engine: Engine, sight: m.Sight, _frames: Frames, now: float) -> None:
        """Take an answer: of an engine on itself, or on another one of its host."""
        look = self._open.get(sight.number)
        if look is None:
            return
        about = self._registry.engines.get(sight.engine)
        if about is None or about.info.host != engine.info.host:
            return
        if about is engine or about.id not in look.sights:
            look.sights[about.id] = sight
        if not look.missing():
            self._end(look, now)

    def alarm(self, look: Look, now: float) -> None:
        """Have others look at engines that have not answered; if that was done, go on without them."""
        if look.by_others:
            self._end(look, now)
            return
        look.by_others = True
        missing = look.missing()
        # Any engine of the host that answers for itself will do.
        able = {e.info.host: e for e in self._registry.engines.values() if e.control_up and e not in missing}
        by_host: dict[str, list[tuple[int, int]]] = {}
        for engine in missing:
            by_host.setdefault(engine.info.host, []).append((engine.id, engine.info.pid))
        asked = False
        for host, others in by_host.items():
            if host in able:
                asked = True
                self._out.append(Command(able[host].id, m.Look(look.number, others)))
        if asked:
            self._timers.set(now + self.answer_s, Alarm.LOOK, look)
        else:
            self._end(look, now)

    def _end(self, look: Look, now: float) -> None:
        self._timers.cancel(Alarm.LOOK, look)
        del self._open[look.number]
        look.then(look.sights, now)


def rows(engines: Iterable[Engine], sights: dict[int, m.Sight]) -> list[dict[str, Any]]:
    """Return what is known of engines as clients get it; of one that has not answered, that."""
    found = []
    for engine in engines:
        info = engine.info
        who = {"id": engine.id, "rank": info.rank, "size": info.size, "group": info.group}
        where = {"host": info.host, "pid": info.pid}
        sight = sights.get(engine.id)
        seen = {"state": SILENT} if sight is None else msgspec.structs.asdict(sight)
        found.append({**seen, **who, **where})
    return found
