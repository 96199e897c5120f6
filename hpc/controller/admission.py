"""What a Submit comes to: work that is queued, work that waits for other tasks, or an end at once."""

import math
from typing import Final

from hpc.controller import dependencies, feeding, patience, teams
from hpc.controller import events as ev
from hpc.controller.bundles import BUILT_IN, Bundle, Client, Pace
from hpc.controller.engines import Registry
from hpc.controller.membership import describe_end
from hpc.controller.queues import Queues
from hpc.controller.stalls import Stalls
from hpc.errors import ProtocolError, ranges
from hpc.wire import messages as m

# How many functions' paces are remembered: who makes a new function for each task must not fill the memory.
MAX_PACES: Final = 10_000


class Admission:
    """Where bundles come in. It knows how quick the tasks of each function were."""

    def __init__(self, registry: Registry, queues: Queues, stalls: Stalls) -> None:
        self._registry, self._queues, self._stalls = registry, queues, stalls
        self._paces: dict[bytes, Pace] = {}

    def __repr__(self) -> str:
        return f"<Admission, {len(self._paces)} functions known>"

    def submit(self, client: Client, submit: m.Submit, frames: ev.Frames, now: float) -> None:
        """Take a bundle in: queue it, hold it until others have ended, or end what can go nowhere.

        Raises
        ------
        ProtocolError
            It makes no sense.
        """
        first, count, targets, functions = submit.first, submit.count, submit.targets, submit.functions
        if first in client.bundles:
            return
        if first < 1 or count < 1 or not functions:
            raise ProtocolError(
                f"{count} tasks from number {first} with {len(functions)} functions cannot be submitted"
            )
        if targets is None:
            if submit.kind is m.Kind.EACH:
                raise ProtocolError("work for each of its targets needs targets")
        elif len(targets) != (count if submit.kind is m.Kind.EACH else 1):
            raise ProtocolError(f"{count} tasks of kind {submit.kind.name} were submitted for {len(targets)} targets")
        options = submit.options
        if options is not None and not 0 <= options.expected_s < math.inf:
            raise ProtocolError(f"a task cannot take {options.expected_s} s")
        if options is not None and options.ranks:
            teams.check(submit)
        awaits = feeding.awaited(client, submit, frames)
        known = self._queues.functions
        needs = tuple([digest for digest in functions if not digest.startswith(BUILT_IN)])
        if options is not None:
            dependencies.check(submit)
            needs += (options.condition,) if options.condition else ()
        bundle = client.bundles[first] = Bundle(client, submit, frames, needs, self._pace(needs))
        for digest in needs:
            if digest not in known:
                detail = f"function {digest.hex()} is not defined"
                self._queues.end(bundle, 0, count, m.EndReason.REFUSED, detail)
                return
        if options is not None:
            patience.begin(self._queues, bundle, now)
            if options.after is not None or options.follow is not None:
                dependencies.hold(self._queues, bundle, submit, awaits)
                return
        self.begin(submit, bundle, awaits, now)

    def begin(self, submit: m.Submit, bundle: Bundle, awaits: feeding.Awaited | None, now: float) -> None:
        """Queue a bundle that waits for no other tasks, or for their values only."""
        targets = submit.targets
        if awaits is not None:
            bundle.awaits, awaits.eligible = awaits, submit.eligible
            bundle.parts.clear()  # it was held
        if targets is not None and not self._refuse_missing(bundle, targets):
            return
        if awaits is not None and not self._add_sources(submit, bundle):
            return
        if targets is not None:
            self._queues.place(bundle, targets)
            self._stalls.watch(targets, now)
        elif awaits is None:
            self._queues.balance(bundle, submit.eligible, now)

    def _add_sources(self, submit: m.Submit, bundle: Bundle) -> bool:
        """Queue the tasks that make arguments of a bundle; say whether it can be run."""
        for source in submit.sources:
            engine, end = self._registry.engines.get(source.engine), self._registry.ends.get(source.engine)
            if engine is not None and engine.visible:
                continue
            reason, detail = m.EndReason.REFUSED, f"there is no engine {source.engine}; {self._registry.describe_ids()}"
            if end is not None:
                reason, detail = end.reason, describe_end(end)
            for offset in range(bundle.count):
                if self._is_there(bundle, submit.targets, offset):
                    self._queues.end(bundle, offset, offset + 1, reason, detail, end=end)
            return False
        feeding.add_sources(self._queues, submit, bundle)
        return True

    def _is_there(self, bundle: Bundle, targets: list[int] | None, offset: int) -> bool:
        if targets is None:
            return True
        engine = self._registry.engines.get(targets[offset if bundle.kind is m.Kind.EACH else 0])
        return engine is not None and engine.visible

    def _refuse_missing(self, bundle: Bundle, targets: list[int]) -> bool:
        """End the tasks whose targets are not there; say whether any is left."""
        engines, each = self._registry.engines, bundle.kind is m.Kind.EACH
        missing = [number for number in targets if number not in engines or not engines[number].visible]
        if missing and bundle.functions[0] in m.TOGETHER:
            detail = f"engines {ranges(sorted(missing))} are not there, and the others would wait for them"
            self._queues.end(bundle, 0, bundle.count, m.EndReason.REFUSED, detail)
            return False
        left, there = False, ""
        for offset, number in enumerate(targets):
            engine = engines.get(number)
            if engine is not None and engine.visible:
                left = True
                continue
            start, stop = (offset, offset + 1) if each else (0, bundle.count)
            end = self._registry.ends.get(number)
            if end is not None:
                self._queues.end(bundle, start, stop, end.reason, describe_end(end), end=end)
            else:
                there = there or self._registry.describe_ids()
                self._queues.end(bundle, start, stop, m.EndReason.REFUSED, f"there is no engine {number}; {there}")
        return left

    def _pace(self, needs: tuple[bytes, ...]) -> Pace | None:
        if not needs:
            return None
        # Bundles of several functions go by the first: their mixture tends to stay the same.
        pace = self._paces.get(needs[0])
        if pace is None:
            if len(self._paces) >= MAX_PACES:
                del self._paces[next(iter(self._paces))]
            pace = self._paces[needs[0]] = Pace()
        return pace
