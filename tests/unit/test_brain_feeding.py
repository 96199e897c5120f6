"""Data from engine to engine: what is fed waits for its source, in order, and ends with it."""

import random

import pytest
from brain_harness import Bench

from hpc.controller import events as ev
from hpc.errors import ProtocolError
from hpc.wire import codec
from hpc.wire import messages as m

PUSH = b"!push"


CALL = codec.encode_calls([(0, 1, b"call")])


def feed(bench, sources, targets):
    sources = [m.Source(engine, b"wanted") for engine in ([sources] if isinstance(sources, int) else sources)]
    count = len(targets) if targets else 1
    kind = m.Kind.EACH if targets else m.Kind.CALLS
    first = bench.submit(count, kind, targets, PUSH, body=(CALL, b"own"), sources=sources)
    bench.first += len(sources)  # the numbers of the sources' own tasks
    return first


def answer(bench, engine, first, payload=b"pickle", *, failed=False):
    entry = m.Entry(m.Status.FAILED if failed else m.Status.DONE, 1.0, 2.0, payload, 1)
    results = m.Results(1, first, 0, 1, False, [0] if failed else [], 0.0)
    return bench.do(ev.EngineSaid(engine, results, (codec.encode_entries([entry]), b"buffer")))


def test_the_value_of_the_source_is_the_body_of_what_it_feeds():
    bench = Bench(3)
    first = feed(bench, 0, [1, 2])
    (run,) = bench.of(m.Run)
    assert (run.engine, run.message.first, run.message.functions) == (0, first + 2, [b"!export"])
    answer(bench, 0, first + 2)
    assert sorted(bench.runs()) == [(1, first, 0, 1), (2, first, 1, 2)]
    for send in bench.of(m.Run):
        assert codec.decode_calls(send.frames[0]) == [(0, 1, b"call"), (-1, 1, b"pickle")]
        assert send.frames[1:] == (b"own", b"buffer")
    assert not any(isinstance(action, ev.Deliver) for action in bench.actions), "it passed through the client"
    bench.finish(1, first, 0, 1)
    bench.finish(2, first, 1, 2)
    assert not bench.brain.clients[1].bundles


def test_several_sources_are_waited_for_and_stand_in_the_order_of_the_submission():
    bench = Bench(3)
    first = feed(bench, [0, 1], [2])
    assert [run[:2] for run in bench.runs()] == [(0, first + 1), (1, first + 2)]
    answer(bench, 1, first + 2, b"one")
    assert bench.runs() == []
    answer(bench, 0, first + 1, b"zero")
    (send,) = bench.of(m.Run)
    assert codec.decode_calls(send.frames[0]) == [(0, 1, b"call"), (-1, 1, b"zero"), (-1, 1, b"one")]
    bench.finish(2, first, 0, 1)
    first = feed(bench, [0, 1], [2])
    answer(bench, 0, first + 1, failed=True)
    assert [a.item.first for a in bench.actions if isinstance(a, ev.Deliver)] == [first]
    answer(bench, 1, first + 2)
    assert bench.runs() == []
    assert not bench.brain.clients[1].bundles


def test_load_balanced_work_is_placed_once_it_is_fed():
    bench = Bench(2)
    first = feed(bench, 0, None)
    assert bench.runs() == [(0, first + 1, 0, 1)]
    answer(bench, 0, first + 1)
    ((engine, *run),) = bench.runs()
    assert run == [first, 0, 1]
    bench.finish(engine, first, 0, 1)
    for end in ("failed", "aborted", "lost"):
        first = feed(bench, 1, None)
        if end == "aborted":
            bench.do(ev.ClientSaid(1, m.Abort(first, 0, 1), ()))
        if end == "lost":
            bench.do(ev.EngineDied(1, 9, -1))
        else:
            answer(bench, 1, first + 1, failed=end == "failed")
        assert bench.runs() == []
        assert len(bench.messages(m.Ended)) == (end != "failed")
        assert not bench.brain.clients[1].bundles


@pytest.mark.parametrize(
    ("kind", "count", "body"), [(m.Kind.SPAN, 1, CALL), (m.Kind.CALLS, 2, CALL), (m.Kind.CALLS, 1, b"garbage")]
)
def test_sources_that_make_no_sense_are_a_violation(kind, count, body):
    bench = Bench(2)
    submit = m.Submit(1, count, kind, [PUSH], [0], 0.0, sources=[m.Source(1, b"wanted")])
    with pytest.raises(ProtocolError):
        bench.do(ev.ClientSaid(1, submit, (body,)))


def test_later_work_does_not_overtake():
    bench = Bench(2)
    first = feed(bench, 0, [0, 1])
    later = bench.submit(1, m.Kind.CALLS, [1])
    assert bench.runs() == []
    answer(bench, 0, first + 2)
    assert [run for run in bench.runs() if run[0] == 1] == [(1, first, 1, 2), (1, later, 0, 1)]


def test_two_that_feed_each_other_do_not_wait_for_ever():
    bench = Bench(2)
    one, two = feed(bench, 0, [1]), feed(bench, 1, [0])
    assert bench.runs() == [], "behind what it waits for"
    answer(bench, 0, one + 1)
    assert (1, one, 0, 1) in bench.runs()
    assert (1, two + 1, 0, 1) in bench.runs()
    bench.finish(1, one, 0, 1)
    answer(bench, 1, two + 1)
    assert bench.runs() == [(0, two, 0, 1)]


def test_an_error_of_the_source_is_the_answer_of_all():
    bench = Bench(3)
    first = feed(bench, 0, [1, 2])
    later = bench.submit(1, m.Kind.CALLS, [1])
    answer(bench, 0, first + 2, failed=True)
    delivered = [action.item for action in bench.actions if isinstance(action, ev.Deliver)]
    assert [(d.first, d.start, d.stop, d.engine) for d in delivered] == [(first, 0, 1, 0), (first, 1, 2, 0)]
    assert bench.runs() == [(1, later, 0, 1)]


def test_a_source_that_is_lost_or_unreadable_ends_what_it_feeds():
    bench = Bench(3)
    first = feed(bench, 0, [1, 2])
    bench.do(ev.EngineDied(0, 9, -1))
    assert [(e.first, e.start, e.stop) for e in bench.messages(m.Ended)] == [(first, 0, 1), (first, 1, 2)]
    feed(bench, 0, [1])
    assert bench.messages(m.Ended)[0].end.id == 0
    feed(bench, 7, [1])
    assert "no engine 7" in bench.messages(m.Ended)[0].detail
    first = feed(bench, 1, [2])
    bench.finish(1, first + 1, 0, 1)  # whose frames are garbage
    assert "cannot be read" in bench.messages(m.Ended)[0].detail
    assert not bench.brain.clients[1].bundles


def test_targets_that_go_or_are_aborted_do_not_hold_up_the_rest():
    bench = Bench(4)
    first = feed(bench, 0, [1, 2, 3, 9])
    bench.do(ev.EngineDied(2, 9, -1))
    later = bench.submit(1, m.Kind.CALLS, [1])
    bench.do(ev.ClientSaid(1, m.Abort(first, 0, 1), ()))
    assert bench.runs() == [(1, later, 0, 1)]
    answer(bench, 0, first + 4)
    assert bench.runs() == [(3, first, 2, 3)]


def test_any_order_of_events_keeps_the_brain_right():
    for seed in range(30):
        rng = random.Random(seed)
        bench, open_runs = Bench(3), []
        for _ in range(60):
            choice = rng.random()
            if choice < 0.4:
                sources = rng.sample(range(4), rng.randint(1, 2))
                feed(bench, sources, rng.sample(range(3), rng.randint(1, 3)) if rng.random() < 0.7 else None)
            elif choice < 0.5:
                bench.submit(1, m.Kind.CALLS, [rng.randrange(3)])
            elif choice < 0.6:
                bench.do(ev.ClientSaid(1, m.Abort(rng.randrange(1, bench.first + 1), 0, 9), ()))
            elif open_runs:
                engine, first, _ = open_runs.pop(0)
                answer(bench, engine, first, failed=rng.random() < 0.2) if _ == (0, 1) else bench.finish(
                    engine, first, *_
                )
            open_runs += [(run[0], run[1], run[2:]) for run in bench.runs()]
        while open_runs:
            engine, first, part = open_runs.pop(0)
            answer(bench, engine, first) if part == (0, 1) else bench.finish(engine, first, *part)
            open_runs += [(run[0], run[1], run[2:]) for run in bench.runs()]
        assert not bench.brain.clients[1].bundles
