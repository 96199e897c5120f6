"""What clients ask of the launcher goes through the controller, and back to who has asked."""

import pytest

from hpc.controller import events as ev
from hpc.controller.brain import Brain
from hpc.errors import ProtocolError
from hpc.wire import codec
from hpc.wire import messages as m


def tells(actions):
    return [(action.client, action.message) for action in actions if isinstance(action, ev.Tell)]


def brain_with(*clients, launcher=True):
    brain = Brain()
    brain.orders.launcher = launcher
    for client in clients:
        brain.handle(ev.ClientCame(client), 0.0)
    return brain


def test_an_order_reaches_the_launcher_and_its_answer_the_client():
    brain = brain_with(1, 2)
    (((to_first, first)),) = tells(brain.handle(ev.ClientSaid(1, m.Order(7, "scale", {"n": 4})), 1.0))
    (((to_second, second)),) = tells(brain.handle(ev.ClientSaid(2, m.Order(7, "groups")), 1.0))
    assert (to_first, to_second) == (0, 0), "number 0 is the launcher"
    assert (first.what, first.arguments, second.what) == ("scale", {"n": 4}, "groups")
    assert first.request != second.request
    answers = tells(brain.handle(ev.ClientSaid(0, m.Answer(second.request, ["row"])), 2.0))
    answers += tells(brain.handle(ev.ClientSaid(0, m.Answer(first.request, None, "no")), 2.0))
    assert answers == [(2, m.Answer(7, ["row"])), (1, m.Answer(7, None, "no"))]
    assert tells(brain.handle(ev.ClientSaid(0, m.Answer(first.request, None)), 3.0)) == [], "answered once"


def test_without_a_launcher_it_is_refused():
    brain = brain_with(1, launcher=False)
    (((client, answer)),) = tells(brain.handle(ev.ClientSaid(1, m.Order(3, "scale", {"n": 1})), 1.0))
    assert (client, answer.request) == (1, 3)
    assert "no supervisor" in answer.error


@pytest.mark.parametrize("role", ["monitor", "engine"])
def test_who_may_not_order_is_not_even_read(role):
    with pytest.raises(ProtocolError):
        codec.from_peer(codec.encode(m.Order(1, "scale", {"n": 0}), 1), role)
