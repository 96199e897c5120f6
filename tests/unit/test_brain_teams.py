"""Tasks of several ranks in the brain: who serves, who waits for whom, and what becomes of the others' work."""

import pytest
from brain_harness import Bench, F
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from test_brain_model import BrainModel

from hpc.controller import events as ev
from hpc.errors import ProtocolError
from hpc.wire import messages as m


def bench_of(*hosts, group="g"):
    """Return a bench with a group of which each rank is on the host that is named."""
    bench = Bench()
    for rank, host in enumerate(hosts):
        bench.engine(f"{group}{rank}", group, rank, len(hosts), host=host)
    return bench


def submit(bench, count=1, ranks=2, **more):
    return bench.submit(count, options=m.Options(ranks=ranks), **more)


def teams(bench):
    """Return who was told to run what together by the last event: root -> ranks."""
    return {run.engine: run.message.team for run in bench.of(m.Run) if run.message.team[0] == run.engine}


def test_all_members_are_told_and_the_first_answers():
    bench = bench_of(*"aaaa")
    first = submit(bench, ranks=3)
    assert [(run.engine, run.message.team) for run in bench.of(m.Run)] == [(n, [0, 1, 2]) for n in range(3)]
    assert [define.engine for define in bench.of(m.Define)] == [0, 1, 2]
    states = {engine.id: engine.state for engine in bench.brain.registry.visible()}
    assert states == {0: "busy", 1: "busy", 2: "busy", 3: "idle"}
    bench.finish(0, first, 0, 1)
    assert all(engine.state == "idle" for engine in bench.brain.registry.visible())
    assert not bench.brain.clients[1].bundles


def test_the_same_ranks_serve_again_as_they_have_a_communicator():
    bench = bench_of(*"aaaa")
    first = submit(bench)
    submit(bench)
    bench.finish(2, bench.first - 1, 0, 1)
    bench.finish(0, first, 0, 1)
    submit(bench)
    assert teams(bench) == {0: [0, 1]}  # the last that ended
    submit(bench)
    assert teams(bench) == {2: [2, 3]}


def test_it_takes_whoever_is_free():
    bench = bench_of(*"aaaa")
    bench.submit(1, m.Kind.CALLS, [1])
    bench.submit(1, m.Kind.CALLS, [2])
    submit(bench)
    assert teams(bench) == {0: [0, 3]}


def test_one_host_is_better_than_two():
    bench = bench_of(*"abcab")
    submit(bench)
    assert list(teams(bench).values()) in ([[0, 3]], [[1, 4]])
    bench = bench_of(*"aab")
    submit(bench, ranks=3)
    assert teams(bench) == {0: [0, 1, 2]}


def test_after_a_while_two_hosts_are_better_than_none():
    bench = bench_of(*"aabb")
    bench.submit(1, m.Kind.CALLS, [0])
    bench.submit(1, m.Kind.CALLS, [2])
    submit(bench)
    assert teams(bench) == {}
    timeout_s = bench.brain.next_timeout(bench.now)
    assert timeout_s == 1.0
    bench.tick(timeout_s)
    assert teams(bench) == {1: [1, 3]}


def test_groups_do_not_mix():
    bench = Bench()
    for group in "gh":
        for rank in range(2):
            bench.engine(f"{group}{rank}", group, rank, 2)
    bench.submit(1, m.Kind.CALLS, [0])
    bench.submit(1, m.Kind.CALLS, [2])
    first = submit(bench)
    assert teams(bench) == {}
    bench.finish(2, first - 1, 0, 1)
    assert [run.message.team for run in bench.of(m.Run)] == [[0, 1], [0, 1]]
    assert [run.engine for run in bench.of(m.Run)] == [2, 3]


def test_more_ranks_than_any_group_has_are_an_error_that_says_so():
    bench = bench_of(*"aaa")
    submit(bench, ranks=4)
    (ended,) = bench.messages(m.Ended)
    assert ended.reason is m.EndReason.NO_ENGINES
    assert "the largest has 3: start one with" in ended.detail
    assert "mpirun -n 4 ipengine" in ended.detail
    submit(bench, ranks=2, eligible=[1, 7])
    (ended,) = bench.messages(m.Ended)
    assert "one MPI group that may run it, and the largest has 1" in ended.detail


def test_without_engines_it_waits_for_some():
    bench = Bench()
    submit(bench)
    assert not bench.messages(m.Ended)
    for rank in range(2):
        bench.engine(f"g{rank}", "g", rank, 2)
    assert teams(bench) == {0: [0, 1]}


def test_what_waits_ends_when_its_group_does():
    bench = bench_of(*"aa")
    bench.engine("other")
    bench.submit(1, m.Kind.CALLS, [0])
    submit(bench)
    bench.do(ev.EngineDied(0, 9, -1))
    assert m.EndReason.NO_ENGINES in [ended.reason for ended in bench.messages(m.Ended)]


@pytest.mark.parametrize("more", [{"targets": [0]}, {"targets": [0, 1], "count": 2, "kind": m.Kind.EACH}])
def test_it_is_load_balanced_work(more):
    bench = bench_of(*"aa")
    with pytest.raises(ProtocolError, match="load-balanced"):
        submit(bench, **more)


# ---------------------------------------------------------------- next to other work


def test_small_tasks_and_teams_take_turns():
    """Neither an endless stream of small tasks nor one of teams keeps the other from its engines."""
    bench = bench_of(*"aaaa")
    bench.teach(0.001)
    small = bench.submit(100_000)
    large = submit(bench, 50, ranks=4)
    held = {number: [] for number in range(4)}
    order = []

    def take():
        for run in bench.of(m.Run):
            message = run.message
            if not message.team or message.team[0] == run.engine:
                held[run.engine].append(message)

    engines = bench.brain.registry.engines
    for number, engine in engines.items():
        held[number] = [m.Run(1, p.bundle.first, p.start, p.stop, m.Kind.SPAN, [F]) for p in engine.sent]
    for _ in range(400):
        for number in range(4):
            if held[number]:
                message = held[number].pop(0)
                bench.finish(number, message.first, message.start, message.stop, 0.001)
                order.append("large" if message.first == large else "small")
                take()
    assert large not in bench.brain.clients[1].bundles, "all have ended"
    n_between = [len(gap) for gap in "".join(word[0] for word in order).split("l")]
    assert max(n_between[1:-1]) <= 64, "teams wait for long"
    assert min(n_between[1:-1]) >= 4, "each engine has a turn of small tasks between two teams"
    assert small < large


def test_the_first_to_be_free_are_taken_and_the_others_go_on():
    bench = bench_of(*"aaaa")
    busy = [bench.submit() for _ in range(4)]
    where = {first: engine.id for engine in bench.brain.registry.visible() for first in [engine.sent[0].bundle.first]}
    large = submit(bench)
    waiting = [bench.submit() for _ in range(4)]
    assert bench.runs() == []
    bench.finish(where[busy[3]], busy[3], 0, 1)
    assert bench.runs() == [], "it is kept for the team"
    bench.finish(where[busy[1]], busy[1], 0, 1)
    assert list(teams(bench).values()) == [sorted((where[busy[1]], where[busy[3]]))]
    root = next(iter(teams(bench)))
    bench.finish(where[busy[0]], busy[0], 0, 1)
    assert {engine for engine, *_ in bench.runs()} == {where[busy[0]]}
    assert bench.runs()[0][1] == waiting[0]
    bench.finish(root, large, 0, 1)


def test_direct_work_goes_to_engines_that_are_kept():
    bench = bench_of(*"aa")
    busy = bench.submit(1, m.Kind.CALLS, [0])
    large = submit(bench)
    direct = bench.submit(1, m.Kind.CALLS, [1])
    assert bench.runs() == [(1, direct, 0, 1)]
    bench.finish(0, busy, 0, 1)
    assert bench.runs() == []
    bench.finish(1, direct, 0, 1)
    assert [first for _, first, _, _ in bench.runs()] == [large, large]


def test_direct_work_follows_what_the_team_does():
    bench = bench_of(*"aa")
    submit(bench)
    direct = bench.submit(2, m.Kind.EACH, [0, 1])
    assert bench.runs() == [(0, direct, 0, 1), (1, direct, 1, 2)]


def test_teams_of_different_sizes_overlap():
    bench = bench_of(*"aaaa")
    first = submit(bench, ranks=2)
    submit(bench, 2, ranks=3)
    submit(bench, 2, ranks=4)
    seen = []
    for _ in range(20):
        for engine in list(bench.brain.registry.visible()):
            for part in list(engine.sent):
                seen.append(part.bundle.first)
                bench.finish(engine.id, part.bundle.first, part.start, part.start + 1)
    assert sorted(seen) == [first, first + 1, first + 1, first + 3, first + 3]
    assert not bench.brain.clients[1].bundles


def test_teams_of_different_sizes_do_not_wait_for_each_other():
    """The draft that came first has all that is free; if each had some of it, both would wait for ever."""
    bench = bench_of(*"aaa")
    bench.finish(0, submit(bench, ranks=3), 0, 1)
    first = submit(bench, ranks=2)
    pair = submit(bench, ranks=2)
    triple = submit(bench, ranks=3)
    assert bench.runs() == []
    bench.finish(0, first, 0, 1)
    assert {run.message.first for run in bench.of(m.Run)} == {pair}
    bench.finish(next(iter(teams(bench))), pair, 0, 1)
    assert teams(bench) == {0: [0, 1, 2]}
    bench.finish(0, triple, 0, 1)
    assert not bench.brain.clients[1].bundles


# ---------------------------------------------------------------- ends


def test_abort_ends_what_waits_and_asks_the_root():
    bench = bench_of(*"aa")
    bench.teach(0.0005)
    first = submit(bench, 5)
    waiting = submit(bench, 3)
    bench.do(ev.ClientSaid(1, m.Abort(waiting, 0, 3)))
    assert [ended.reason for ended in bench.messages(m.Ended)] == [m.EndReason.ABORTED]
    bench.do(ev.ClientSaid(1, m.Abort(first, 0, 5)))
    (revoke,) = bench.of(m.Revoke)
    assert revoke.engine == 0
    stop = revoke.message.stop
    bench.do(ev.EngineSaid(0, m.Revoked(1, first, 1, stop)))
    bench.finish(0, first, 0, 1)
    assert not bench.brain.clients[1].bundles


@pytest.mark.parametrize("victim", [0, 1])
def test_when_a_rank_dies_the_running_task_is_lost_and_the_rest_goes_elsewhere(victim):
    bench = bench_of(*"aa")
    bench.teach(0.0005)
    first = submit(bench, 4)
    ((root, _),) = teams(bench).items()
    assert root == 0
    (run,) = [run.message for run in bench.of(m.Run) if run.engine == 0]
    assert run.stop > 1
    for rank in range(2):
        bench.engine(f"h{rank}", "h", rank, 2)
    bench.do(ev.EngineDied(victim, 9, -1))
    other = 1 - victim
    assert [stop.engine for stop in bench.of(m.Stop)] == [other], "in MPI it would wait for ever"
    ended = bench.messages(m.Ended)
    bench.do(ev.EngineSaid(other, m.Goodbye("told to")))
    (ended,) = ended + bench.messages(m.Ended)
    assert (ended.start, ended.stop) == (0, 1)
    assert ended.reason is (m.EndReason.SIGNAL if victim == 0 else m.EndReason.GROUP)
    part = bench.brain.registry.engines[2].sent[0]
    assert (part.bundle.first, part.start) == (first, 1)


def test_functions_are_sent_again_to_a_rank_that_lacks_them():
    bench = bench_of(*"aa")
    first = submit(bench)
    bench.do(ev.EngineSaid(1, m.Need([F], 1, first, 0, 1)))
    assert [type(action.message) for action in bench.actions] == [m.Define, m.Run]
    assert {action.engine for action in bench.actions} == {1}
    assert bench.messages(m.Run)[0].team == [0, 1]


# ---------------------------------------------------------------- the model


class TeamModel(BrainModel):
    """All that can happen to a brain, with tasks of several ranks among the others."""

    def apply(self, action: ev.Action) -> None:
        if isinstance(action, ev.Send) and isinstance(action.message, m.Run) and action.message.team:
            engine = self.brain.registry.engines[action.engine]
            members = [engine.group.members[rank] for rank in action.message.team]
            assert engine in members
            assert engine.team is members[0].team
            runs = [run for member in members for run in self.engines[member.id].runs]
            message = action.message
            own = [[message.client, message.first, message.start, message.stop]]
            assert runs in ([], own), "a rank that has other work"
        super().apply(action)

    @rule(data=st.data(), count=st.sampled_from([1, 2, 30]), ranks=st.integers(1, 3), retries=st.integers(0, 1))
    @precondition(lambda self: self.clients)
    def submit_team(self, data: st.DataObject, count: int, ranks: int, retries: int) -> None:
        self.submit(data, count, m.Kind.SPAN, None, options=m.Options(ranks=ranks, retries=retries))


def test_an_example_that_ends_while_it_draws_leaves_no_task_open():
    class Exhausted:
        def draw(self, strategy):
            if next(draws):
                raise EOFError
            return 1

    draws, model = iter([False, True]), BrainModel()
    model.first_client()
    model.clients[1] = 2
    with pytest.raises(EOFError):
        model.submit(Exhausted(), 1, m.Kind.SPAN, None, m.Options(after=m.After([])))
    assert not model.open_tasks
    model.teardown()


TestTeamModel = TeamModel.TestCase
TestTeamModel.settings = settings(
    max_examples=150,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
