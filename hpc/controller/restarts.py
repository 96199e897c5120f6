"""New processes for engines that shall go, or that have gone: whole launches, under the same ids.

The launcher does it. What comes of a crash is the policy of each launch: ``report`` (nothing more), ``restart``,
or ``survivors`` (the other ranks go on, if their MPI lets them).
"""

from collections import deque
from typing import Any, Final

from hpc.controller.engines import Group, Registry
from hpc.controller.events import Action, Tell
from hpc.controller.membership import Membership, describe_end
from hpc.controller.orders import Orders
from hpc.errors import ProtocolError
from hpc.wire import messages as m

POLICIES: Final = ("report", "restart", "survivors")
# What crashes again and again is not started again and again.
MAX_RESTARTS: Final = 3
WITHIN_S: Final = 60.0

_CRASHES: Final = (
    m.EndReason.SIGNAL,
    m.EndReason.EXIT,
    m.EndReason.VANISHED,
    m.EndReason.OUT_OF_MEMORY,
    m.EndReason.MPI_ABORT,
)


class Restarts:
    """Decides what is started anew. Appends what is to be done to ``out``."""

    def __init__(self, registry: Registry, membership: Membership, orders: Orders, out: list[Action]) -> None:
        self._registry = registry
        self._membership = membership
        self._orders = orders
        self._out = out
        self.policy = POLICIES[0]
        self._policies: dict[int, str] = {}
        self._times: dict[int, deque[float]] = {}

    def __repr__(self) -> str:
        return f"<Restarts, {self.policy} unless {self._policies}>"

    def order(self, client: int, order: m.Order) -> None:
        """Carry out ``restart`` (of the launches of the engines ``targets``) or ``policy`` (for these launches)."""
        arguments: dict[str, Any] = order.arguments
        targets = arguments.get("targets")
        if targets is not None and not (isinstance(targets, list) and all(isinstance(n, int) for n in targets)):
            raise ProtocolError(f"{targets!r} are no engines")
        launches = self._registry.launched(targets)
        policy = arguments.get("policy", self.policy)
        if isinstance(launches, str):
            self._out.append(Tell(client, m.Answer(order.request, None, launches)))
        elif order.what == "restart":
            groups = [(name, base, size) for base, (name, size) in launches.items()]
            self._out.append(self._orders.pass_on(client, m.Order(order.request, "restart", {"groups": groups})))
        elif policy not in POLICIES:
            error = f"there is no policy {policy!r}; there are {', '.join(POLICIES)}"
            self._out.append(Tell(client, m.Answer(order.request, None, error)))
        elif not self._orders.launcher:
            self._out.append(self._orders.pass_on(client, order))  # which says why not
        else:
            self._policies.update(dict.fromkeys(launches, policy))
            self._out.append(Tell(client, m.Answer(order.request, sorted(launches))))

    def crashed(self, group: Group, end: m.End, now: float) -> None:
        """Act on the end of an engine: if it is a crash, start its launch anew where that is the policy."""
        base = group.base
        is_over = self._registry.launches.get(base) != (group.name, group.size)
        if self._policies.get(base, self.policy) != "restart" or end.reason not in _CRASHES or is_over:
            return
        if not self._orders.launcher or group.doomed or not group.visible:
            return
        times = self._times.setdefault(base, deque())
        while times and times[0] < now - WITHIN_S:
            times.popleft()
        if len(times) < MAX_RESTARTS:
            times.append(now)
            group.doomed = f"its group is started anew, because {describe_end(end)}"
            for engine in group.living():
                self._membership.stop(engine, group.doomed)
            self._out.append(Tell(0, m.Start(group.size, group.name)))
