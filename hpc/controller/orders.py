"""What clients ask of the launcher: passed on to it, and its answers back."""

from collections.abc import Callable
from typing import Any

from hpc.controller import events as ev
from hpc.wire import messages as m


class Orders:
    """Orders that the launcher has not answered yet. ``launcher`` says whether there is one."""

    def __init__(self) -> None:
        self.launcher = False
        self._asked: dict[int, tuple[int, int]] = {}
        self._own: dict[int, Callable[[m.Answer, float], None]] = {}
        self._number = 0

    def __repr__(self) -> str:
        return f"<Orders {len(self._asked)} not answered, {'a' if self.launcher else 'no'} launcher>"

    def pass_on(self, client: int, order: m.Order) -> ev.Tell:
        """Return what is to be done with an order: it goes on under a number of our own, or is refused."""
        if not self.launcher:
            error = "this controller has no supervisor, it was started by ipcontroller: start and end engines by hand"
            return ev.Tell(client, m.Answer(order.request, None, error))
        self._number += 1
        self._asked[self._number] = client, order.request
        return ev.Tell(0, m.Order(self._number, order.what, order.arguments))

    def ask(self, what: str, arguments: dict[str, Any], then: Callable[[m.Answer, float], None]) -> ev.Tell:
        """Return what asks the launcher, which there must be, something for the controller itself."""
        self._number += 1
        self._own[self._number] = then
        return ev.Tell(0, m.Order(self._number, what, arguments))

    def answered(self, answer: m.Answer, now: float) -> list[ev.Action]:
        """Return what tells the client that has asked."""
        own = self._own.pop(answer.request, None)
        if own is not None:
            own(answer, now)
            return []
        client, request = self._asked.pop(answer.request, (0, 0))
        return [ev.Tell(client, m.Answer(request, answer.value, answer.error))] if client else []
