"""An engine does not say more than is taken: it waits before it begins the next task, and a task that prints waits."""

import pytest
from engine_harness import CLIENT, ScriptedController, calls_body, playing

from hpc.wire import messages as m

QUIET_S = 0.3


def make(n):
    return "x" * n


def talk(n):
    for _ in range(n):
        print("y" * 1000)
    return n


def hears_nothing(engine: ScriptedController, kind: type) -> bool:
    try:
        engine.expect(kind, QUIET_S)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("route", ["unix", "tcp"])
def test_the_next_task_waits_for_acknowledgement(tmp_path, monkeypatch, route):
    monkeypatch.setattr("hpc.engine.loop.RESULTS_NBYTES", 50_000)
    with playing(tmp_path, route) as engine:
        digest = engine.define(make)
        for first in (1, 2, 3):
            engine.run(calls_body([(30_000,)]), [digest], 1, first=first)
        assert [engine.expect(m.Results)[0].first for _ in range(2)] == [1, 2]
        assert hears_nothing(engine, m.Results), "more than that is not taken in yet"
        engine.run(calls_body([(10,)]), [digest], 1, first=4)  # acknowledges, like every message
        assert [engine.expect(m.Results)[0].first for _ in range(2)] == [3, 4]


def test_output_is_kept_back_for_a_client_on_hold(tmp_path):
    with playing(tmp_path) as engine:
        engine.tell("control", m.Hold(CLIENT, True))
        engine.tell("control", m.Revoke(CLIENT, 99, 0, 1))
        engine.expect(m.Revoked)
        engine.run_calls(talk, [(3000,)])
        assert hears_nothing(engine, m.Output)
        assert hears_nothing(engine, m.Results), "the task waits in print"
        engine.tell("control", m.Hold(CLIENT, False))
        entry = engine.outcomes(1)[0]
        text = "".join(engine.expect(m.Output)[0].text for _ in range(entry.n_outputs)) + entry.stdout
        assert text == ("y" * 1000 + "\n") * 3000


def test_output_waits_for_acknowledgement(tmp_path, monkeypatch):
    monkeypatch.setattr("hpc.engine.control.OUTPUT_NBYTES", 100_000)
    with playing(tmp_path) as engine:
        engine.run_calls(talk, [(5000,)])
        heard = 0
        while not hears_nothing(engine, m.Output):
            heard += 1
        assert 0 < heard < 40, "the task waits in print"
        peer = engine.channels["control"]
        while not any(isinstance(message, m.Results) for message, *_ in engine.inbox):
            engine.server.send(peer.link, peer.session.acknowledge())
            engine.turn(0.01)
        (entry,) = engine.outcomes(1).values()
        assert entry.n_outputs > heard
