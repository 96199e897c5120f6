"""What cannot go on is reported, and what can is not; an engine that does not answer is looked at by another one."""

import pytest
from brain_harness import Bench

from hpc.controller import events as ev
from hpc.wire import messages as m

FRAME = [("solver.py", 112, "step", "comm.Allreduce(a, b)")]


def group(size=3):
    bench = Bench()
    for rank in range(size):
        bench.engine(f"e{rank}", "g", rank, size)
    return bench


def answer(bench, **sights):
    """Answer the Looks of the last event, as ``e0={...}``; engines that are not named are idle."""
    looks = {action.engine: action.message for action in bench.of(m.Look)}
    for engine, look in looks.items():
        fields = {"state": "idle"} | sights.get(f"e{engine}", {})
        bench.do(ev.EngineSaid(engine, m.Sight(look.number, engine, **fields)))
    return sorted(looks)


def inside(first, call="Allreduce", world=True, **more):
    state = {"state": "running", "frames": FRAME, "call": call, "mpi": True, "world": world, "since": 10.0}
    return state | {"client": 1, "first": first, "offset": 0} | more


def watch(bench, seconds, **sights):
    """Let time pass, a look at a time; return the reports."""
    found, until = [], bench.now + seconds
    while bench.now < until:
        bench.tick(bench.brain.next_timeout(bench.now) or 0.0)
        answer(bench, **sights)
        found += bench.messages(m.Stalled)
        if bench.brain.next_timeout(bench.now) is None:
            break
    return found


def submit_to_all(bench, failed=None):
    first = bench.submit(3, m.Kind.EACH, [0, 1, 2])
    if failed is not None:
        bench.finish(failed, first, failed, failed + 1, failed=[failed])
    return first


def test_ranks_that_wait_for_one_that_failed():
    bench = group()
    first = submit_to_all(bench, failed=1)
    gone = {"client": 1, "first": first, "failure": "ValueError at solver.py:108", "failed_at": 11.0}
    (stalled,) = watch(bench, 5.0, e0=inside(first), e1=gone, e2=inside(first))
    assert stalled.first == first
    assert [row["state"] for row in stalled.rows] == ["running", "idle", "running"]
    assert stalled.rows[1]["failure"] == "ValueError at solver.py:108"
    # When they go on after all the client hears of it, once.
    (cleared,) = watch(bench, 3.0, e0=inside(first, "Bcast"), e1=gone, e2=inside(first, "Bcast", world=False))[:1]
    assert (cleared.first, cleared.rows) == (first, [])


@pytest.mark.parametrize(
    ("idle", "world"),
    [
        ({"client": 1, "first": 1}, False),  # returned, and the others may be among themselves
        ({"client": 1, "first": 77, "failure": "E", "failed_at": 11.0}, False),  # failed in something else
    ],
)
def test_ranks_that_may_do_without_the_idle_one(idle, world):
    bench = group()
    first = submit_to_all(bench, failed=1)
    assert watch(bench, 60.0, e0=inside(first, world=world), e1=idle, e2=inside(first, world=world)) == []


def test_a_rank_that_computes_may_yet_come():
    bench = group()
    first = submit_to_all(bench, failed=1)
    busy = {"state": "running", "frames": FRAME, "client": 1, "first": first}
    assert watch(bench, 60.0, e0=inside(first), e1={}, e2=busy) == []


def test_work_that_waits_for_an_idle_rank_may_bring_it_along():
    bench = group()
    bench.submit(2, m.Kind.EACH, [0, 2])
    assert watch(bench, 4.0, e0=inside(1), e2=inside(1)) == []
    bench.submit(1, m.Kind.CALLS, [1])
    assert watch(bench, 60.0, e0=inside(1), e1={"state": "running"}, e2=inside(1)) == []


def test_a_rank_that_was_not_asked():
    bench = group()
    first = bench.submit(2, m.Kind.EACH, [0, 2])
    (stalled,) = watch(bench, 8.0, e0=inside(first), e2=inside(first))
    assert stalled.first == first


def test_new_work_for_a_stalled_group_lets_its_clients_wait_again():
    bench = group()
    first = bench.submit(2, m.Kind.EACH, [0, 2])
    assert watch(bench, 8.0, e0=inside(first), e2=inside(first))
    bench.submit(1, m.Kind.CALLS, [1])
    assert [(stalled.first, stalled.rows) for stalled in bench.messages(m.Stalled)] == [(first, [])]


def test_different_operations():
    bench = group(2)
    first = bench.submit(2, m.Kind.EACH, [0, 1])
    assert watch(bench, 30.0, e0=inside(first), e1=inside(first)) == []
    (stalled,) = watch(bench, 30.0, e0=inside(first), e1=inside(first, "bcast"))
    assert stalled.first == first


def test_nobody_is_looked_at_when_nothing_runs():
    bench = group()
    first = bench.submit(3, m.Kind.EACH, [0, 1, 2])
    for rank in range(3):
        bench.finish(rank, first, rank, rank + 1)
    bench.tick(1.0)
    assert not bench.of(m.Look)
    assert bench.brain.next_timeout(bench.now) is None


def test_the_stacks_that_a_client_asks_for():
    bench = Bench(3)
    bench.do(ev.ClientSaid(1, m.Query(5, "stacks", {"targets": [2, 0]})))
    assert answer(bench, e0={"state": "running", "frames": FRAME}) == [0, 2]
    (told,) = bench.messages(m.Answer)
    assert [(row["id"], row["state"], row["host"]) for row in told.value] == [(2, "idle", "h"), (0, "running", "h")]
    bench.do(ev.ClientSaid(1, m.Query(6, "stacks", {"targets": [2, 7]})))
    assert "there are 0-2" in bench.messages(m.Answer)[0].error


def test_another_engine_of_the_host_looks_at_one_that_does_not_answer():
    bench = Bench(2)
    bench.engine("far", host="elsewhere")
    bench.do(ev.ClientSaid(1, m.Query(5, "stacks")))
    number = bench.messages(m.Look)[0].number
    bench.do(ev.EngineSaid(1, m.Sight(number, 1, "idle")))
    bench.tick(1.0)
    assert [(a.engine, a.message.others) for a in bench.of(m.Look)] == [(1, [(0, 100)])]
    bench.do(ev.EngineSaid(2, m.Sight(number, 0, "stopped")))  # which is of another host, and cannot know
    bench.do(ev.EngineSaid(1, m.Sight(number, 0, "held", FRAME)))
    bench.tick(1.0)
    assert [row["state"] for row in bench.messages(m.Answer)[0].value] == ["held", "idle", "silent"]
