"""What clients ask of a supervisor, by way of the controller: another number of engines, or what there is."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hpc.cluster.adaptive import Adaptation
from hpc.cluster.link import Questions
from hpc.cluster.workforce import Workforce
from hpc.wire import messages as m

if TYPE_CHECKING:
    from hpc.cluster.workforce import Supervising

# What ranks write last comes through their launcher, and takes a moment.
LOG_S = 0.08


class Orders:
    """Carries out orders, and asks the controller what must be known for that."""

    def __init__(self, supervisor: "Supervising", questions: Questions, workforce: Workforce) -> None:
        self._supervisor = supervisor
        self._questions = questions
        self._workforce = workforce
        self._adaptation: Adaptation | None = None
        self._logs_due: list[tuple[float, str, Callable[..., None]]] = []

    def __repr__(self) -> str:
        return f"<Orders of {self._workforce!r}, {self._adaptation or 'nothing to adapt to'}>"

    def take(self, message: m.Message) -> None:
        """Act on what the controller has said."""
        if isinstance(message, m.Start):
            if not message.replaces:
                self._workforce.start(message.n)
            elif not self._workforce.replacements.refusal(message.replaces):
                self._workforce.replacements.begin(message.replaces)
        elif isinstance(message, m.Order):
            self._carry_out(message)
        elif isinstance(message, m.Answer):
            self._questions.answered(message)

    def _carry_out(self, order: m.Order) -> None:
        def answer(value: Any, error: str = "") -> None:
            self._supervisor.send(m.Answer(order.request, value, error))

        arguments = order.arguments
        try:
            if order.what == "scale":
                self._adaptation = None  # a person's word holds until they ask for adapting again
                self._workforce.scale(int(arguments["n"]), answer)
            elif order.what == "adapt":
                self._adapt(arguments, answer)
            elif order.what == "restart":
                self._restart(arguments["groups"], answer)
            elif order.what == "log":
                self._logs_due.append((time.monotonic() + LOG_S, str(arguments["label"]), answer))
            elif order.what == "groups":
                answer([row._asdict() for row in self._workforce.rows()])
            else:
                answer(None, f"no such order: {order.what!r}; there are scale, adapt, restart and groups")
        except (KeyError, TypeError, ValueError) as error:
            answer(None, f"{order.what} cannot be done with {arguments}: {error}")

    def _restart(self, groups: list[tuple[str, int, int]], answer: Callable[..., None]) -> None:
        """Give groups, each (name, first id, size), new processes."""
        replacements = self._workforce.replacements
        refusals = [text for name, _, _ in groups if (text := replacements.refusal(name))]
        if refusals:
            answer(None, refusals[0])
            return
        for name, base, size in groups:
            self._questions.shut_down(list(range(base, base + size)))
            replacements.begin(name)
        answer([name for name, _, _ in groups])

    # ------------------------------------------------------------ by load

    def _adapt(self, arguments: dict[str, Any], answer: Callable[..., None]) -> None:
        self._adaptation = Adaptation(
            int(arguments["minimum"]),
            int(arguments["maximum"]),
            group=self._workforce.group_size,
            interval_s=float(arguments.get("interval_s", 5.0)),
            idle_s=float(arguments.get("idle_s", 60.0)),
        )
        answer(None)

    @property
    def look_at(self) -> float:
        """When `look` is due, on the monotonic clock: at the load, or at groups that get new processes."""
        adapting = self._adaptation.look_at if self._adaptation is not None else float("inf")
        logs = min((when for when, _, _ in self._logs_due), default=float("inf"))
        return min(adapting, logs, self._workforce.replacements.look_at)

    def look(self, now: float) -> None:
        """Ask how much there is to do, and bring the number of engines to what that needs."""
        self._workforce.replacements.look(now)
        while self._logs_due and self._logs_due[0][0] <= now:
            _, label, answer = self._logs_due.pop(0)
            answer(self._workforce.log_of(label))
        adaptation = self._adaptation
        if adaptation is None or now < adaptation.look_at:
            return
        adaptation.looked(now)

        def decide(status: dict[str, Any]) -> None:
            if self._adaptation is adaptation:
                n = adaptation.wanted(status, self._workforce.wanted, now)
                if n != self._workforce.wanted:
                    self._workforce.scale(n, self._adapted)

        self._questions.query("queue_status", decide)

    def _adapted(self, done: Any, error: str) -> None:
        self._supervisor.log(f"adapting to the load: {error or done}")
