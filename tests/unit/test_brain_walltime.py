"""The brain and allocations that end: tasks that would take too long, engines that give notice."""

import math

import pytest
from brain_harness import Bench

from hpc.controller import events as ev
from hpc.controller import retries
from hpc.controller.walltime import time_left_s
from hpc.errors import ProtocolError
from hpc.wire import messages as m


def expecting(seconds, retries=0):
    return {"options": m.Options(retries=retries, expected_s=seconds)}


def notice(bench, engine, why=m.EndReason.WALLTIME):
    return bench.do(ev.EngineSaid(engine, m.Notice(why)))


def goodbye(bench, engine, why=m.EndReason.WALLTIME):
    return bench.do(ev.EngineSaid(engine, m.Goodbye("left at the end of its allocation", why)))


def give_back(bench, revoke, engine, start):
    return bench.do(ev.EngineSaid(engine, m.Revoked(revoke.client, revoke.first, start, revoke.stop)))


def queue_status(bench):
    bench.do(ev.ClientSaid(1, m.Query(1, "queue_status")))
    return bench.messages(m.Answer)[0].value


# ---------------------------------------------------------------- tasks that say how long they take


def test_the_time_that_tasks_have_is_without_half_of_the_notice():
    info = m.EngineInfo("u", "g", 0, 1, "h", 1, 1, "b", deadline=1000.0, notice_s=60.0)
    assert time_left_s(info, 900.0) == 70
    assert time_left_s(m.EngineInfo("u", "g", 0, 1, "h", 1, 1, "b"), 900.0) == math.inf


def test_a_task_goes_to_an_engine_that_has_the_time():
    bench = Bench()
    bench.engine("short", left_s=50)
    bench.engine("long", left_s=500)
    first = bench.submit(**expecting(100))
    assert bench.runs() == [(1, first, 0, 1)]


def test_what_says_nothing_goes_to_any():
    bench = Bench()
    bench.engine("short", left_s=1)
    first = bench.submit()
    assert bench.runs() == [(0, first, 0, 1)]


def test_a_task_that_no_engine_has_time_for_waits_and_says_so():
    bench = Bench()
    bench.engine("short", left_s=50)
    first = bench.submit(3, **expecting(100))
    assert not bench.runs()
    status = queue_status(bench)
    assert status["unassigned"] == 3
    ((short),) = status["short_of_time"]
    assert short["tasks"] == 3
    assert short["expected_s"] == 100
    assert short["longest_s"] == 50
    bench.engine("new", left_s=500)
    assert bench.runs() == [(1, first, 0, 1)]
    assert queue_status(bench)["short_of_time"] == []


def test_engines_drop_out_as_time_goes_by():
    bench = Bench()
    bench.engine("e", left_s=110)
    bench.tick(20)
    bench.submit(**expecting(100))
    assert not bench.runs()
    assert queue_status(bench)["unassigned"] == 1


def test_what_has_not_begun_when_time_is_short_is_asked_for():
    bench = Bench()
    bench.engine("a", left_s=300)
    bench.teach(1e-4)
    # Known as quick, so several are sent at once; then the first of them turns out to take its time.
    first = bench.submit(10, **expecting(100))
    ((_, _, start, stop),) = bench.runs()
    assert stop - start > 1
    bench.tick(201)
    (revoke,) = bench.messages(m.Revoke)
    assert (revoke.start, revoke.stop) == (start, stop)
    give_back(bench, revoke, 0, start + 1)
    assert not bench.runs()
    bench.engine("b", left_s=1000)
    assert {run[0] for run in bench.runs()} == {1}
    bench.finish(0, first, 0, 1)
    assert any(isinstance(action, ev.Deliver) for action in bench.actions), "what has begun still counts"
    assert not bench.runs()


def test_a_recall_under_way_is_waited_for():
    bench = Bench()
    bench.engine("a", left_s=300)
    bench.teach(1e-4)
    first = bench.submit(30, **expecting(100))
    bench.engine("b", left_s=1000, channels=["control"])
    bench.do(ev.EngineCame(bench.brain.registry.engines[1].info, "work", 1000))
    (revoke,) = bench.messages(m.Revoke)  # stolen for the new one
    bench.tick(201)
    assert not bench.messages(m.Revoke), "an overlapping one would be answered with nothing"
    give_back(bench, revoke, 0, revoke.start)
    bench.tick(0.01)
    (second,) = bench.messages(m.Revoke)
    assert (second.first, second.start, second.stop) == (first, 0, revoke.start)


def test_chosen_engines_without_the_time_are_an_error():
    bench = Bench()
    bench.engine("a", left_s=50)
    bench.engine("b")
    bench.submit(eligible=[0], **expecting(100))
    (ended,) = bench.messages(m.Ended)
    assert ended.reason == m.EndReason.NO_ENGINES
    assert "will be there for the" in ended.detail
    assert "there are 0-1" in ended.detail


def test_chosen_engines_that_run_short_of_time_are_an_error():
    bench = Bench()
    bench.engine("a", left_s=150)
    bench.submit()  # of unknown length: nothing is sent behind it
    bench.submit(eligible=[0], **expecting(100))
    assert not bench.runs()
    bench.tick(60)
    (ended,) = bench.messages(m.Ended)
    assert ended.reason == m.EndReason.NO_ENGINES


def test_what_comes_back_to_a_pool_without_engines_is_an_error():
    bench = Bench()
    bench.engine("a", left_s=300)
    bench.teach(1e-4)
    first = bench.submit(10, eligible=[0], **expecting(100))
    bench.tick(201)
    (revoke,) = bench.messages(m.Revoke)
    assert not bench.messages(m.Ended)
    give_back(bench, revoke, 0, 1)
    (ended,) = bench.messages(m.Ended)
    assert (ended.first, ended.start, ended.stop, ended.reason) == (first, 1, 10, m.EndReason.NO_ENGINES)


@pytest.mark.parametrize("seconds", [-1.0, math.inf, math.nan])
def test_nonsense_is_refused(seconds):
    bench = Bench(1)
    with pytest.raises(ProtocolError, match="cannot take"):
        bench.submit(**expecting(seconds))


def test_times_that_differ_little_share_a_pool():
    bench = Bench(1)
    for n in range(1, 100):
        bench.submit(**expecting(100 + n / 10))
    ((_, needs_s, _),) = bench.brain.queues.pools.restricted
    assert needs_s == 110


@pytest.mark.parametrize("seconds", [5e-324, 1e-9, 1e307])
def test_odd_times_are_no_trouble(seconds):
    bench = Bench(1)
    first = bench.submit(**expecting(seconds))
    assert bench.runs() == [(0, first, 0, 1)]


@pytest.mark.parametrize("seconds", [0.001, 0.07, 0.3, 1, 20, 90, 100, 1800, 3600, 86000])
def test_round_numbers_stay(seconds):
    bench = Bench(1)
    bench.submit(**expecting(seconds))
    ((_, needs_s, _),) = bench.brain.queues.pools.restricted
    assert math.isclose(needs_s, seconds)


# ---------------------------------------------------------------- engines that leave


def test_an_idle_engine_is_told_at_once_that_this_is_all():
    bench = Bench(2)
    notice(bench, 0)
    (stop,) = [a for a in bench.actions if isinstance(a, ev.Send)]
    assert stop.engine == 0
    assert isinstance(stop.message, m.Stop)
    (announced,) = bench.messages(m.Engines)
    assert announced.joined[0].state == "leaving"
    first = bench.submit()
    assert bench.runs() == [(1, first, 0, 1)]
    goodbye(bench, 0)
    (announced,) = bench.messages(m.Engines)
    assert announced.left[0].reason == m.EndReason.WALLTIME
    assert announced.left[0].detail == "left at the end of its allocation"


def test_load_balanced_work_that_has_not_begun_goes_elsewhere():
    bench = Bench(1)
    bench.teach(1e-4)
    first = bench.submit(20)
    sent = [(start, stop) for _, _, start, stop in bench.runs()]
    notice(bench, 0)
    revokes = bench.messages(m.Revoke)
    assert [(revoke.start, revoke.stop) for revoke in revokes] == sent
    bench.engine("b")
    for revoke in revokes:
        assert not bench.messages(m.Stop), "it may still have to answer"
        give_back(bench, revoke, 0, revoke.start + (revoke is revokes[0]))
    assert bench.messages(m.Stop)
    bench.finish(0, first, 0, 1)
    goodbye(bench, 0)
    assert not bench.messages(m.Ended), "nothing was lost"
    assert bench.brain.registry.engines[1].n_tasks + bench.brain.queues.pools.common.waiting == 19


def test_a_recall_that_was_under_way_comes_first():
    bench = Bench(1)
    bench.teach(1e-4)
    bench.submit(40)
    bench.engine("b")
    bench.tick(0.01)
    recalls = bench.brain.registry.engines[0].recalls
    assert recalls, "the new engine is to have half"
    notice(bench, 0)
    assert not bench.messages(m.Revoke)
    assert not bench.messages(m.Stop)


def cut(bench, number, why):
    """Have the allocation of an engine end under its only task, and another engine come."""
    notice(bench, number, why)
    give_back(bench, bench.messages(m.Revoke)[0], number, 1)
    goodbye(bench, number, why)
    ended = bench.messages(m.Ended)
    bench.engine(f"next{number}")
    return ended


ENDS = [m.EndReason.WALLTIME, m.EndReason.PREEMPTED]


@pytest.mark.parametrize("why", ENDS)
def test_without_retries_a_task_that_was_cut_is_lost(why):
    bench = Bench(1)
    bench.submit(**expecting(0))
    (ended,) = cut(bench, 0, why)
    assert ended.end.reason == ended.reason == why


@pytest.mark.parametrize("why", ENDS)
def test_the_end_of_an_allocation_costs_no_try(why):
    bench = Bench(1)
    first = bench.submit(**expecting(0, retries=1))
    for number in range(4):
        assert not cut(bench, number, why)
        assert bench.runs() == [(number + 1, first, 0, 1)]
    bench.do(ev.EngineDied(4, 9))  # costs the try that it has
    assert not bench.messages(m.Ended)
    bench.engine("more")
    assert not cut(bench, 5, why)  # and this still costs none
    bench.do(ev.EngineDied(6, 9))
    assert bench.messages(m.Ended)


def test_a_task_for_which_no_allocation_is_long_enough_comes_to_an_end(monkeypatch):
    monkeypatch.setattr(retries, "MAX_ALLOCATIONS", 3)
    bench = Bench(1)
    bench.submit(**expecting(0, retries=1))
    assert not cut(bench, 0, m.EndReason.WALLTIME)
    assert not cut(bench, 1, m.EndReason.WALLTIME)
    (ended,) = cut(bench, 2, m.EndReason.WALLTIME)
    assert ended.reason == m.EndReason.WALLTIME


def test_direct_work_that_was_sent_is_finished_and_later_work_is_lost():
    bench = Bench(1)
    first = bench.submit(kind=m.Kind.CALLS, targets=[0])
    notice(bench, 0)
    assert not bench.messages(m.Revoke)
    assert bench.messages(m.Stop), "behind the work, in order"
    second = bench.submit(kind=m.Kind.CALLS, targets=[0])
    assert not bench.runs()
    bench.finish(0, first, 0, 1)
    goodbye(bench, 0)
    (ended,) = bench.messages(m.Ended)
    assert (ended.first, ended.end.reason) == (second, m.EndReason.WALLTIME)


def test_an_engine_that_is_killed_after_its_notice_has_not_crashed():
    bench = Bench(1)
    notice(bench, 0)
    bench.do(ev.EngineDied(0, signal=9))
    (announced,) = bench.messages(m.Engines)
    assert announced.left[0].reason == m.EndReason.WALLTIME
    assert announced.left[0].detail == "was killed by SIGKILL when its allocation ended"


def test_an_engine_that_dies_when_its_time_is_up_has_not_crashed():
    bench = Bench()
    bench.engine("a", left_s=10)
    bench.tick(11)
    bench.do(ev.EngineDied(0, signal=9))
    assert bench.messages(m.Engines)[0].left[0].reason == m.EndReason.WALLTIME


def test_an_engine_that_dies_before_has():
    bench = Bench()
    bench.engine("a", left_s=10)
    bench.tick(1)
    bench.do(ev.EngineDied(0, signal=9))
    assert bench.messages(m.Engines)[0].left[0].reason == m.EndReason.SIGNAL


def test_a_client_may_still_stop_an_engine_that_leaves():
    bench = Bench(1)
    notice(bench, 0)
    bench.do(ev.ClientSaid(1, m.Shutdown(1, [0], False)))
    (command,) = [a for a in bench.actions if isinstance(a, ev.Command)]
    assert isinstance(command.message, m.Stop)
    goodbye(bench, 0)
    assert bench.messages(m.Engines)[0].left[0].reason == m.EndReason.SHUTDOWN


def test_a_notice_names_a_reason_that_can_be_known():
    bench = Bench(1)
    with pytest.raises(ProtocolError, match="SIGNAL is nothing"):
        notice(bench, 0, m.EndReason.SIGNAL)
