"""What clients ask of the launcher: passed on to it, and its answers back."""

from hpc.controller import events as ev
from hpc.wire import messages as m


class Orders:
    """Orders that the launcher has not answered yet. ``launcher`` says whether there is one."""

    def __init__(self) -> None:
        self.launcher = False
        self._asked: dict[int, tuple[int, int]] = {}
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

    def answered(self, answer: m.Answer) -> list[ev.Action]:
        """Return what tells the client that has asked."""
        client, request = self._asked.pop(answer.request, (0, 0))
        return [ev.Tell(client, m.Answer(request, answer.value, answer.error))] if client else []
