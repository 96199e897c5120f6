"""What the brain decides in particular situations; `test_brain_model` tries all the others."""

import pytest
from brain_harness import Bench, F

from hpc.controller import balance
from hpc.controller import events as ev
from hpc.controller.engines import WINDOW
from hpc.errors import ProtocolError
from hpc.wire import messages as m

# ---------------------------------------------------------------- direct work


def test_work_for_all_is_queued_in_one_event_and_sent_ahead_within_a_window():
    bench = Bench(2)
    firsts = [bench.submit(2, m.Kind.EACH, [0, 1]) for _ in range(WINDOW)]
    extra = bench.submit(2, m.Kind.EACH, [1, 0])
    assert bench.runs() == []
    bench.finish(1, firsts[0], 1, 2)
    assert bench.runs() == [(1, extra, 0, 1)]


def test_targets_that_are_not_there_cost_only_their_own_task():
    bench = Bench(2)
    bench.do(ev.EngineDied(1, 9, -1))
    first = bench.submit(3, m.Kind.EACH, [0, 1, 7])
    assert bench.runs() == [(0, first, 0, 1)]
    lost, unknown = bench.messages(m.Ended)
    assert (lost.start, lost.stop, lost.reason, lost.end.id) == (1, 2, m.EndReason.SIGNAL, 1)
    assert (unknown.start, unknown.reason, unknown.detail) == (
        2,
        m.EndReason.REFUSED,
        "there is no engine 7; there are 0",
    )


def test_a_function_is_sent_once_to_each_engine_and_again_when_needed():
    bench = Bench(1)
    first = bench.submit(1, m.Kind.CALLS, [0])
    assert [type(a.message).__name__ for a in bench.actions] == ["Define", "Run"]
    assert bench.actions[0].frames == (b"", b"f")
    bench.submit(1, m.Kind.CALLS, [0])
    assert not bench.of(m.Define)
    bench.do(ev.EngineSaid(0, m.Need([F], 1, first, 0, 1)))
    assert [type(a.message).__name__ for a in bench.actions] == ["Define", "Run"]
    assert bench.runs() == [(0, first, 0, 1)]


def test_built_in_functions_need_no_definition_and_unknown_ones_are_refused():
    bench = Bench(1)
    bench.submit(1, m.Kind.EACH, [0], function=b"!execute")
    assert len(bench.runs()) == 1
    bench.submit(1, m.Kind.EACH, [0], function=b"?" * 16)
    (ended,) = bench.messages(m.Ended)
    assert ended.reason is m.EndReason.REFUSED
    assert "not defined" in ended.detail


# ---------------------------------------------------------------- load balancing


def test_work_without_engines_waits_for_the_first():
    bench = Bench()
    first = bench.submit(1)
    assert bench.actions == []
    bench.engine("late")
    assert bench.runs() == [(0, first, 0, 1)]


def test_unknown_work_is_dealt_out_in_halves_of_fair_shares():
    bench = Bench(2)
    bench.submit(100)
    assert [stop - start for _, _, start, stop in bench.runs()] == [25, 18]


def test_known_work_goes_in_pieces_of_a_few_milliseconds_and_one_ahead():
    bench = Bench(2)
    bench.teach(0.001)
    bench.submit(1000)
    sizes = {}
    for engine, _, start, stop in bench.runs():
        sizes.setdefault(engine, []).append(stop - start)
    assert sizes == {0: [3, 3], 1: [3, 3]}


def test_tiny_tasks_are_not_cut_finer_than_it_is_worth():
    bench = Bench(4)
    bench.teach(1e-6)
    bench.submit(200)
    assert len(bench.runs()) == 1


def test_nothing_is_queued_behind_work_of_unknown_or_great_length():
    bench = Bench(1)
    bench.submit(1)
    bench.submit(1)
    assert bench.runs() == []
    bench = Bench(1)
    bench.teach(10.0)
    bench.submit(1)
    bench.submit(1)
    assert bench.runs() == []


def test_a_lone_task_goes_out_at_once_even_behind_a_short_one():
    bench = Bench(1)
    bench.teach(0.01)
    bench.submit(1)
    second = bench.submit(1)
    assert bench.runs() == [(0, second, 0, 1)]


def test_an_idle_engine_gets_half_of_what_another_has_not_begun():
    bench = Bench(1)
    first = bench.submit(40)
    ((_, _, start, stop),) = bench.runs()
    assert (start, stop) == (0, 20)
    bench.engine("thief")
    # First what waits; when that is over, from the other.
    while runs := [run for run in bench.runs() if run[0] == 1]:
        bench.finish(1, first, *runs[0][2:], each_s=0.0)
    (revoke,) = bench.of(m.Revoke)
    assert revoke.engine == 0
    low, high = revoke.message.start, revoke.message.stop
    assert (low, high) == (10, 20)
    bench.do(ev.EngineSaid(0, m.Revoked(1, first, 12, 20)))
    assert {run[0] for run in bench.runs()} == {1}
    assert bench.runs()[0][2] == 12


def test_an_engine_that_has_nothing_to_give_back_is_asked_again_later():
    bench = Bench(1)
    bench.teach(1e-6)
    first = bench.submit(100)
    bench.engine("idle")
    assert not bench.of(m.Revoke)
    # By now the hundred should be over; something holds them up.
    bench.tick(balance.STUCK_S)
    (revoke,) = bench.messages(m.Revoke)
    assert (revoke.start, revoke.stop) == (50, 100)
    bench.do(ev.EngineSaid(0, m.Revoked(1, first, 50, 50)))
    assert bench.brain.next_timeout(bench.now) == pytest.approx(balance.STUCK_S)
    bench.finish(0, first, 0, 100, 1e-6)
    bench.tick(1)
    assert bench.brain.next_timeout(bench.now) is None


def test_restricted_work_runs_where_it_may_and_ends_when_nobody_is_left():
    bench = Bench(3)
    first = bench.submit(9, eligible=[1])
    assert {run[0] for run in bench.runs()} == {1}
    bench.do(ev.EngineDied(1, 9, -1))
    ended = bench.messages(m.Ended)
    assert sum(e.stop - e.start for e in ended) == 9
    assert {e.reason for e in ended} == {m.EndReason.SIGNAL, m.EndReason.NO_ENGINES}
    assert {e.first for e in ended} == {first}
    bench.submit(1, eligible=[1])
    assert bench.messages(m.Ended)[0].reason is m.EndReason.NO_ENGINES


def test_clients_take_turns():
    bench = Bench(1)
    bench.do(ev.ClientCame(2))
    for client in (1, 2):
        for first in range(1, 4):
            submit = m.Submit(first, 1, m.Kind.CALLS, [F], None, 0.0)
            bench.do(ev.ClientSaid(client, submit, (b"body",)))
    order = [1]
    for _ in range(5):
        part = bench.brain.registry.engines[0].sent[0]
        results = m.Results(part.bundle.client.number, part.bundle.first, 0, 1, False, [], 10.0)
        bench.do(ev.EngineSaid(0, results, (b"",)))
        order += [a.message.client for a in bench.of(m.Run)]
    assert order == [1, 2, 1, 2, 1, 2] or order == [1, 1, 2, 1, 2, 2]


@pytest.mark.parametrize(
    ("shares", "n", "expected"), [((3.0, 1.0), 40, 30), ((1.0, 0.25), 40, 32), ((2.5, 2.5), 40, 20)]
)
def test_clients_with_other_shares_get_so_many_turns_of_the_engines(shares, n, expected):
    bench = Bench(1)
    bench.do(ev.ClientCame(2))
    for first in range(1, n + 1):
        for client, share in enumerate(shares, 1):
            submit = m.Submit(first, 1, m.Kind.CALLS, [F], None, 0.0, m.Options(share=share))
            bench.do(ev.ClientSaid(client, submit, (b"body",)))
    served = []
    while len(served) < n:
        part = bench.brain.registry.engines[0].sent[0]
        served.append(part.bundle.client.number)
        results = m.Results(part.bundle.client.number, part.bundle.first, 0, 1, False, [], 10.0)
        bench.do(ev.EngineSaid(0, results, (b"",)))
    assert abs(served.count(1) - expected) <= 2
    # Nobody is served in one long run at the end: also a share below 1 gets its turns all the time.
    assert set(served[: n // 2]) == {1, 2}


@pytest.mark.parametrize("share", [0.0, -1.0, 101.0, float("nan")])
def test_shares_that_would_keep_others_waiting_for_ever_are_refused(share):
    bench = Bench(1)
    with pytest.raises(ProtocolError, match="share"):
        bench.submit(1, options=m.Options(share=share))


# ---------------------------------------------------------------- losses and ends


@pytest.mark.parametrize("retries", [0, 1])
def test_a_loss_costs_the_task_that_had_begun_and_requeues_the_rest(retries):
    bench = Bench(1)
    first = bench.submit(20, options=m.Options(retries=retries))
    assert bench.runs() == [(0, first, 0, 10)]
    bench.finish(0, first, 0, 3, 1.0)
    bench.do(ev.EngineDied(0, 9, -1))
    assert isinstance(bench.actions[0], ev.Announce)
    ended = [(e.start, e.stop) for e in bench.messages(m.Ended)]
    assert ended == ([] if retries else [(3, 4)])
    bench.engine("new")
    begun = 3 if retries else 4
    assert bench.runs()[0][2] == begun
    if retries:
        bench.do(ev.EngineDied(1, 9, -1))
        assert [(e.start, e.stop) for e in bench.messages(m.Ended)] == [(3, 4)]


def test_results_that_come_too_late_are_dropped():
    bench = Bench(2)
    first = bench.submit(1, m.Kind.EACH, [0])
    bench.do(ev.EngineDied(0, 9, -1))
    assert len(bench.messages(m.Ended)) == 1
    bench.finish(0, first, 0, 1)
    bench.finish(1, first, 0, 1)
    assert bench.actions == []


def test_results_may_span_the_parts_that_an_engine_was_sent():
    bench = Bench(1)
    bench.teach(0.001)
    first = bench.submit(100)
    assert bench.runs() == [(0, first, 0, 3), (0, first, 3, 6)]
    bench.finish(0, first, 0, 5, 0.001)
    (delivered,) = [a for a in bench.actions if isinstance(a, ev.Deliver)]
    assert (delivered.item.start, delivered.item.stop) == (0, 5)


def test_results_may_overtake_earlier_ones():
    bench = Bench(1)
    first = bench.submit(10, m.Kind.CALLS, [0])
    bench.finish(0, first, 6, 8)
    (item,) = [action.item for action in bench.actions if isinstance(action, ev.Deliver)]
    assert (item.start, item.stop) == (6, 8)
    for start, stop in ((8, 10), (0, 6)):
        bench.finish(0, first, start, stop)
        assert [action.item.start for action in bench.actions if isinstance(action, ev.Deliver)] == [start]
    bench.finish(0, first, 6, 8)
    assert not [action for action in bench.actions if isinstance(action, ev.Deliver)]
    assert not bench.brain.clients[1].bundles


def test_an_abort_ends_what_waits_now_and_what_was_sent_when_it_comes_back():
    bench = Bench(1)
    first = bench.submit(20)
    bench.do(ev.ClientSaid(1, m.Abort(first, 5, 18)))
    (revoke,) = bench.messages(m.Revoke)
    assert (revoke.start, revoke.stop) == (5, 10)
    assert [(e.start, e.stop, e.reason) for e in bench.messages(m.Ended)] == [(10, 18, m.EndReason.ABORTED)]
    bench.do(ev.EngineSaid(0, m.Revoked(1, first, 7, 10)))
    assert [(e.start, e.stop) for e in bench.messages(m.Ended)] == [(7, 10)]
    bench.finish(0, first, 0, 7, 1.0)
    left = [run[2:] for run in bench.runs()]
    while left:
        bench.finish(0, first, *left.pop(0), each_s=1.0)
        left += [run[2:] for run in bench.runs()]
    assert not bench.brain.clients[1].bundles


def test_a_client_that_has_gone_gets_nothing_but_its_work_is_done():
    bench = Bench(1)
    first = bench.submit(1, m.Kind.EACH, [0])
    second = bench.submit(1, m.Kind.EACH, [0])
    bench.do(ev.ClientGone(1))
    bench.finish(0, first, 0, 1)
    assert bench.actions == []
    bench.do(ev.EngineDied(0, 9, -1))
    assert not bench.of(m.Ended)
    assert second == 2


def test_nonsense_changes_nothing():
    bench = Bench(1)
    for submit in (
        m.Submit(0, 1, m.Kind.SPAN, [F], None, 0.0),
        m.Submit(1, 2, m.Kind.EACH, [F], [0], 0.0),
        m.Submit(1, 2, m.Kind.EACH, [F], None, 0.0),
        m.Submit(1, 2, m.Kind.CALLS, [F], [0, 0], 0.0),
    ):
        with pytest.raises(ProtocolError):
            bench.do(ev.ClientSaid(1, submit, (b"",)))
        bench.brain.check_invariants()
    assert not bench.brain.clients[1].bundles


def test_part_of_an_mpi_group_cannot_be_shut_down():
    bench = Bench()
    for rank in range(3):
        bench.engine(f"r{rank}", "g", rank, 3)
    bench.engine("alone")
    bench.do(ev.ClientSaid(1, m.Shutdown(1, [0, 3], False)))
    (answer,) = bench.messages(m.Answer)
    assert "0-2" in answer.error
    assert "1-2" in answer.error
    assert not bench.of(m.Stop)
    bench.do(ev.ClientSaid(1, m.Shutdown(2, [3], False)))
    assert [a.engine for a in bench.of(m.Stop)] == [3]
    bench.do(ev.EngineSaid(3, m.Goodbye("told to")))
    assert bench.messages(m.Engines)[0].left[0].reason is m.EndReason.SHUTDOWN
    bench.do(ev.ClientSaid(1, m.Shutdown(3, None, True)))
    assert [a.engine for a in bench.of(m.Stop)] == [0, 1, 2]
    assert isinstance(bench.actions[-1], ev.Quit)


def test_interrupts_go_by_the_control_channel():
    bench = Bench(1)
    bench.engine("deaf", channels=("work",))
    bench.do(ev.ClientSaid(1, m.Interrupt([0, 1, 9])))
    assert bench.actions == [ev.Command(0, m.Interrupt([]))]
