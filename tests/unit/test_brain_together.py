"""What all ranks of a group do together is done by all or by none: whoever begins waits for the others."""

from brain_harness import Bench

from hpc.controller import events as ev
from hpc.wire import messages as m


def test_it_is_refused_as_a_whole_if_a_target_is_not_there():
    bench = Bench(2)
    for function in sorted(m.TOGETHER):
        bench.submit(3, m.Kind.EACH, [0, 1, 7], function)
        assert bench.runs() == []
        (ended,) = bench.messages(m.Ended)
        assert (ended.start, ended.stop, ended.reason) == (0, 3, m.EndReason.REFUSED)
        assert ended.detail == "engines 7 are not there, and the others would wait for them"


def test_it_cannot_be_aborted_in_parts():
    bench = Bench(2)
    first = bench.submit(2, m.Kind.EACH, [0, 1], b"!gatherv")
    assert bench.runs() == [(0, first, 0, 1), (1, first, 1, 2)]
    bench.do(ev.ClientSaid(1, m.Abort(first, 0, 2)))
    assert bench.actions == []
    bench.finish(0, first, 0, 1)
    bench.finish(1, first, 1, 2)
    assert not bench.brain.clients[1].bundles


def test_operations_of_two_clients_have_one_order_on_all_engines():
    bench = Bench(3)
    bench.do(ev.ClientCame(2))
    order = {number: [] for number in range(3)}
    for i, targets in enumerate(([0, 1, 2], [2, 0], [1, 2], [2, 1, 0]) * 3):
        client, first = 1 + i % 2, 1 + 10 * i
        submit = m.Submit(first, len(targets), m.Kind.EACH, [b"!scatterv"], targets, 0.0)
        bench.do(ev.ClientSaid(client, submit, (b"body",)))
        for action in bench.of(m.Run):
            order[action.engine].append((action.message.client, action.message.first))
    for one in order.values():
        for other in order.values():
            common = set(one) & set(other)
            assert [op for op in one if op in common] == [op for op in other if op in common]


def group_of_three():
    bench = Bench()
    for rank in range(3):
        bench.engine(f"e{rank}", "g", rank, 3)
    return bench


def test_ranks_that_wait_for_one_that_died_leave():
    bench = group_of_three()
    first = bench.submit(2, m.Kind.EACH, [1, 2], b"!bcast")
    bench.do(ev.EngineDied(1, 9, -1))
    (ended,) = bench.messages(m.Ended)
    assert (ended.start, ended.stop, ended.reason) == (0, 1, m.EndReason.SIGNAL)
    stops = bench.of(m.Stop)
    assert [action.engine for action in stops] == [0, 2]
    assert "wait in MPI for one that is gone: engine 1 (rank 1" in stops[0].message.reason
    bench.do(ev.EngineSaid(2, m.Goodbye("told to")))
    (ended,) = bench.messages(m.Ended)
    assert (ended.first, ended.start, ended.stop, ended.reason) == (first, 1, 2, m.EndReason.GROUP)
    assert "ended with its group: engine 1 (rank 1" in ended.detail


def test_ranks_that_wait_for_nobody_stay():
    bench = group_of_three()
    first = bench.submit(2, m.Kind.EACH, [1, 2], b"!bcast")
    for engine in (1, 2):
        bench.finish(engine, first, engine - 1, engine)
    bench.submit(1, m.Kind.EACH, [1])
    bench.do(ev.EngineDied(1, 9, -1))
    assert bench.of(m.Stop) == []
