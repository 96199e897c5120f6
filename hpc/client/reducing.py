"""Combining what a name means on several engines into one value (rules: `hpc.reduction`).

Large values are combined by the engines: each takes in its right neighbour's, half of them remain, and so on, until the
first has the result, which alone comes here. Small values come at once, and are combined here.
"""

import os
from typing import TYPE_CHECKING, Any, Final

from hpc import reduction
from hpc.client.bundle import Part, Placement
from hpc.client.calls import PULL, dump_call
from hpc.client.groupresult import GroupResult
from hpc.client.outcome import Loss, Outcome
from hpc.client.referring import sources
from hpc.client.roster import log
from hpc.dataplane import chooser
from hpc.wire.objects import Reference

if TYPE_CHECKING:
    from hpc.client.link import Link

# With less in all, one round of messages and a thread here are quicker than a tree.
TREE_NBYTES: Final = 16 << 20

OFFER, COMBINE, DROP = b"!offer", b"!combine", b"!drop"


class ReduceResult(GroupResult):
    """The values of a name, combined."""

    def __init__(
        self,
        link: "Link",
        targets: list[int],
        single: bool,
        *,
        name: str,
        op: reduction.Operation,
        route: str | None = None,
    ) -> None:
        super().__init__(link, f"reduce {name}", targets, self._value, single)
        self._op = op
        self._asked_for = route
        self._token = f"!reduce-{os.urandom(8).hex()}"
        # Whose values came in a second message, by task.
        self._fetched: dict[int, tuple[Outcome, int]] = {}
        self._tree: list[tuple[int, int]] | None = None
        self._offers = GroupResult(link, f"offer {name}", targets)
        self._offers._hooks = [self._next]
        self._steps = self._offers
        body = dump_call((self._token, name, max(chooser.SHARED_NBYTES, TREE_NBYTES // max(1, len(targets)))), {})
        link.outbox.submit_each(Placement(targets, route=route), OFFER, body, Part(self._offers, len(targets)))
        self._firsts, self._submitted = self._offers._firsts, self._offers._submitted

    def _next(self, steps: GroupResult) -> None:
        """Go on when the engines have ended a step."""
        try:
            if steps is self._offers:
                self._offered(list(filter(None, steps._outcomes)))
            else:
                self._end_tree(steps)
        except Exception as error:  # somebody waits for this result: it must end
            log.debug("reducing failed", exc_info=True)
            failure, loss = error, Loss(lambda: failure, -1, "failed", 0.0)
            self._end(dict.fromkeys(range(len(self.targets)), (loss, 0)))

    def _offered(self, outcomes: list[tuple[Outcome, int]]) -> None:
        failed = any(outcome.failed(index) for outcome, index in outcomes)
        kept = [] if failed else [task for task, (o, index) in enumerate(outcomes) if o.value(index)[0]]
        if not kept:  # errors, or the values themselves
            self._end({}, drop=failed)
        elif len(kept) == len(outcomes):
            self._plant_tree()
        else:
            fetched = GroupResult(self._link, self._name, [self.targets[task] for task in kept])
            fetched._hooks = [lambda _: self._end(dict(zip(kept, filter(None, fetched._outcomes), strict=True)))]
            body = dump_call(([self._token],), {})
            place = Placement(fetched.targets, route=self._asked_for)
            self._link.outbox.submit_each(place, PULL, body, Part(fetched, len(kept)))

    def _route(self, outcome: Outcome | None) -> str:
        """Return how the values went between engines; else how the one of a task came here."""
        if self._tree:
            entries = [outcome.entry(index) for outcome, index in filter(None, self._steps._outcomes)]
            return next((entry.route for entry in entries if entry is not None and entry.route), "inline")
        return super()._route(outcome)

    # ------------------------------------------------------------ the tree

    def _plant_tree(self) -> None:
        """Submit all steps: direct work is done in order, so each finds what those before it have left."""
        self._tree = tree = reduction.pairs(len(self.targets))
        self._steps = steps = GroupResult(self._link, self._name, [self.targets[left] for left, _ in (*tree, (0, 0))])
        steps._hooks = [self._next]
        submit = self._link.outbox.submit_each
        for number, (left, right) in enumerate(tree):
            place = Placement([self.targets[left]], route=self._asked_for)
            theirs = Reference(self._token, self.targets[right])
            body = dump_call((self._token, self._op, theirs), {})
            submit(place, COMBINE, body, Part(steps, 1, number), sources((theirs,), {}))
        place = Placement([self.targets[0]], route=self._asked_for)
        submit(place, PULL, dump_call(([self._token],), {}), Part(steps, 1, len(tree)))
        self._firsts = steps._firsts

    def _end_tree(self, steps: GroupResult) -> None:
        outcomes = list(filter(None, steps._outcomes))
        failed = [number for number, (outcome, index) in enumerate(outcomes) if outcome.failed(index)]
        if not failed:
            self._end({0: outcomes[-1]})
            return
        ended = {}
        for number in causes([*(self._tree or ()), (0, 0)], failed):
            outcome, index = outcomes[number]
            engine = outcome.engine if outcome.engine in self.targets else steps.targets[number]
            ended[self.targets.index(engine)] = outcome, index
        self._end(ended, drop=True)

    def _end(self, ended: dict[int, tuple[Outcome, int]], *, drop: bool = False) -> None:
        """Settle this result: each target's answer to the offer, except for what ended otherwise."""
        self._fetched = ended
        if drop and self._link.fault is None:
            forgotten = GroupResult(self._link, "drop", self.targets)
            body, part = dump_call((self._token,), {}), Part(forgotten, len(self.targets))
            self._link.outbox.submit_each(Placement(self.targets), DROP, body, part)
        with self._link.lock:
            for task, slot in enumerate(self._offers._outcomes):
                outcome, index = ended.get(task) or slot or (None, 0)
                if outcome is not None:
                    self.take(task, task + 1, outcome, index)

    def _value(self, values: list[Any]) -> Any:
        self._combine = None  # a cycle would keep the values until the collector comes by
        parts = [value[0] if task in self._fetched else value[1] for task, value in enumerate(values)]
        if self._tree is not None:
            parts = parts[:1]
        whole = parts[0]
        for part in parts[1:]:
            # What was received is ours: no third array.
            whole = reduction.combine(whole, part, self._op, spare=whole)
        # Truth values also if there is only one engine.
        alone = len(values) == 1 and self._op in reduction.LOGICAL
        return reduction.combine(whole, whole, self._op) if alone else whole


def causes(steps: list[tuple[int, int]], failed: list[int]) -> list[int]:
    """Return which of the steps that failed did not just miss what an earlier one should have left.

    >>> causes([(0, 1), (2, 3), (0, 2), (0, 0)], [1, 2, 3])
    [1]
    """
    ruined: set[int] = set()
    found = []
    for number in failed:
        if ruined.isdisjoint(steps[number]):
            found.append(number)
        ruined.add(steps[number][0])
    return found
