"""New processes under the same ids, when somebody asks for them and when the policy says so; how ends are called."""

import pytest
from brain_harness import Bench

from hpc.controller import events as ev
from hpc.controller.deaths import LAUNCH_END_S, LINGER_S, REPORT_WAIT_S, STATUS_WAIT_S
from hpc.controller.fates import Fate
from hpc.wire import messages as m


def bench_with_launcher(size=2, policy="report"):
    bench = Bench()
    bench.brain.orders.launcher = True
    bench.brain.restarts.policy = policy
    for rank in range(size):
        bench.engine(f"e{rank}", "mpirun-0-abc", rank, size, pid=500 + rank)
    return bench


def order(bench, what, **arguments):
    bench.do(ev.ClientSaid(1, m.Order(9, what, arguments)))
    answers = bench.messages(m.Answer)
    return answers[0] if answers else None


def come_again(bench, size=2, name="mpirun-0-def", **more):
    for rank in range(size):
        bench.engine(f"n{rank}", name, rank, size, pid=600 + rank, replaces="mpirun-0-abc", **more)


def test_the_launcher_is_asked_for_whole_groups_also_of_engines_that_have_ended():
    bench = bench_with_launcher()
    bench.engine("single", "engine-2-xyz")
    order(bench, "restart", targets=[1])
    (action,) = bench.of(m.Order)
    assert (action.client, action.message.arguments) == (0, {"groups": [("mpirun-0-abc", 0, 2)]})
    bench.do(ev.EngineDied(2, 0, 1))
    bench.tick(1.0)
    order(bench, "restart", targets=[2])
    assert bench.messages(m.Order)[0].arguments == {"groups": [("engine-2-xyz", 2, 1)]}
    assert "there is no engine 8" in order(bench, "restart", targets=[8]).error


def test_the_new_ones_have_the_old_ids_and_get_work():
    bench = bench_with_launcher()
    bench.do(ev.LaunchEnded("mpirun-0", "last words"))
    bench.tick(1.0)
    left = [end for message in bench.messages(m.Engines) for end in message.left]
    assert [end.id for end in left] == [0, 1]
    assert left[0].stderr == "last words"
    come_again(bench)
    assert [row.id for row in bench.messages(m.Engines)[0].joined] == [0, 1]
    assert bench.brain.registry.next_id == 2
    bench.submit(1, m.Kind.CALLS, [1])
    assert [engine for engine, *_ in bench.runs()] == [1]


def test_nobody_takes_the_ids_of_a_group_that_lives():
    bench = bench_with_launcher()
    bench.engine("n0", "mpirun-0-def", 0, 2, replaces="mpirun-0-abc", channels=("work",))
    assert "have not ended" in bench.actions[0].reason
    bench.engine("n0", "mpirun-0-def", 0, 2, replaces="unknown", channels=("work",))
    assert "there was no such group" in bench.actions[0].reason


def test_an_old_engine_that_comes_back_too_late_is_refused():
    bench = bench_with_launcher(1)
    bench.do(ev.EngineCut(0, "work"))
    bench.do(ev.EngineCut(0, "control"))
    bench.tick(1.0)
    bench.tick(60.0)
    come_again(bench, 1)
    bench.engine("e0", "mpirun-0-abc", 0, 1, pid=500, channels=("work",))
    assert "was started anew meanwhile" in bench.actions[0].reason


def test_a_crash_brings_a_new_group_but_not_for_ever():
    bench = bench_with_launcher(policy="restart")
    for again in range(4):
        bench.do(ev.ProcessEnded("h", bench.brain.registry.engines[1].info.pid, 11, 0))
        starts = bench.messages(m.Start)
        assert [(s.n, s.replaces) for s in starts] == ([(2, bench.brain.registry.launches[0][0])] if again < 3 else [])
        if again == 3:
            break
        assert [action.engine for action in bench.of(m.Stop)] == [0]
        bench.do(ev.ProcessEnded("h", bench.brain.registry.engines[0].info.pid, 0, 0))
        assert not bench.of(m.Start)
        for rank in range(2):
            before = bench.brain.registry.launches[0][0]
            name = before if rank else f"mpirun-0-{again}"
            old = "mpirun-0-abc" if not again else f"mpirun-0-{again - 1}"
            bench.engine(f"r{again}{rank}", name, rank, 2, pid=700 + 10 * again + rank, replaces=old)


def test_an_end_in_order_is_no_crash():
    bench = bench_with_launcher(1, policy="restart")
    bench.do(ev.ClientSaid(1, m.Shutdown(1, [0], False)))
    bench.do(ev.ProcessEnded("h", 500, 0, 0))
    assert not bench.of(m.Start)


def test_policies_are_for_groups():
    bench = bench_with_launcher()
    assert order(bench, "policy", policy="restart", targets=[0]).value == [0]
    assert "there are report" in order(bench, "policy", policy="pray").error
    bench.do(ev.ProcessEnded("h", 500, 9, 0))
    assert bench.messages(m.Start)[0].replaces == "mpirun-0-abc"


def test_the_rank_that_did_it_is_named_first():
    bench = bench_with_launcher(3)
    bench.do(ev.EngineDied(0, 9))
    (asked,) = bench.messages(m.Order)
    assert (asked.what, asked.arguments) == ("log", {"label": "mpirun-0"})
    bench.do(ev.EngineDied(2, 9))
    bench.do(ev.EngineDied(1, 11))
    assert not bench.of(m.Engines)
    bench.do(ev.ClientSaid(0, m.Answer(asked.request, ["segfault in libfoo"])))
    first, second = (message.left[0] for message in bench.messages(m.Engines))
    assert (first.id, first.reason, first.stderr) == (1, m.EndReason.SIGNAL, "segfault in libfoo")
    assert (second.id, second.reason, second.stderr) == (0, m.EndReason.GROUP, "")


def test_the_words_of_a_rank_that_aborts_may_come_after_the_others_are_dead():
    bench = bench_with_launcher(3)
    bench.do(ev.EngineDied(2, 9))
    (asked,) = bench.messages(m.Order)
    bench.do(ev.ClientSaid(0, m.Answer(asked.request, ["an old line"])))
    bench.do(ev.EngineDied(1, 9))
    assert not bench.of(m.Engines)
    words = "Abort(5) on node 1 (rank 1 in comm 0): application called MPI_Abort(MPI_COMM_WORLD, 5) - process 1"
    bench.do(ev.LaunchEnded("mpirun-0", words))
    bench.now += STATUS_WAIT_S
    bench.do(ev.Tick())
    first, second, *_ = (message.left[0] for message in bench.messages(m.Engines))
    assert (first.id, first.reason) == (1, m.EndReason.MPI_ABORT)
    assert (second.id, second.reason) == (2, m.EndReason.GROUP)


def test_a_rank_that_outlives_its_mpirun_for_a_moment_is_not_given_up_meanwhile():
    bench = bench_with_launcher(1)
    bench.do(ev.LaunchEnded("mpirun-0"))
    bench.tick(LAUNCH_END_S)
    assert not bench.of(m.Engines)
    bench.do(ev.EngineDied(0, -1, 195))
    bench.tick(REPORT_WAIT_S)
    (left,) = bench.messages(m.Engines)[0].left
    assert (left.reason, left.exit_code) == (m.EndReason.EXIT, 195)


def test_a_rank_that_outlives_its_mpirun_is_given_up_in_the_end():
    bench = bench_with_launcher(1)
    bench.do(ev.LaunchEnded("mpirun-0"))
    for _ in range(20):
        bench.tick(LAUNCH_END_S)
        if left := [one for message in bench.messages(m.Engines) for one in message.left]:
            break
    assert left[0].id == 0
    assert LINGER_S <= bench.now < LINGER_S + 2 * LAUNCH_END_S


def test_a_rank_that_says_that_it_aborts_is_named_though_others_die_first():
    bench = bench_with_launcher(3)
    bench.do(ev.EngineSaid(1, m.Notice(m.EndReason.MPI_ABORT)))
    assert not bench.actions
    bench.do(ev.EngineDied(2, 9))
    (asked,) = bench.messages(m.Order)
    bench.do(ev.ClientSaid(0, m.Answer(asked.request, ["an old line"])))
    first, second, *_ = (message.left[0] for message in bench.messages(m.Engines))
    assert (first.id, first.reason, first.stderr) == (1, m.EndReason.MPI_ABORT, "an old line")
    assert (second.id, second.reason) == (2, m.EndReason.GROUP)


def test_a_rank_whose_launcher_says_nothing_is_told_after_a_while():
    bench = bench_with_launcher(3)
    bench.do(ev.EngineDied(2, 9))
    (asked,) = bench.messages(m.Order)
    bench.do(ev.ClientSaid(0, m.Answer(asked.request, [])))
    assert not bench.of(m.Engines)
    bench.now += REPORT_WAIT_S
    bench.do(ev.Tick())
    (left,) = bench.messages(m.Engines)[0].left
    assert (left.id, left.reason, left.signal) == (2, m.EndReason.SIGNAL, 9)


@pytest.mark.parametrize(
    ("fate", "reason", "text"),
    [
        (Fate(9, oom=True), m.EndReason.OUT_OF_MEMORY, "was killed by SIGKILL because memory ran out"),
        (Fate(9, lines=["slurmstepd: error: Detected 1 oom_kill event"]), m.EndReason.OUT_OF_MEMORY, None),
        (Fate(9), m.EndReason.SIGNAL, "was killed by SIGKILL"),
        (Fate(0, 3), m.EndReason.EXIT, "exited with status 3"),
        (Fate(), m.EndReason.EXIT, "ended, its exit status is not known"),
        (Fate(0, 5, lines=["Abort(5) on node 1 (rank 1 in comm 0): application called MPI_Abort"]), 21, None),
        (Fate(0, 5, lines=["MPI_ABORT was invoked on rank 1 in communicator MPI_COMM_WORLD"]), 21, None),
    ],
)
def test_what_an_end_is_called(fate, reason, text):
    found, words = fate.verdict()
    assert found == reason
    assert text in (None, words)
    if reason == m.EndReason.MPI_ABORT:
        assert (fate.is_cause(1), fate.is_cause(0)) == (True, False)


def test_banners_of_launchers_are_not_stderr():
    lines = ["it was here", "=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES", "=" * 40]
    assert Fate(11, lines=lines).stderr == "it was here"
