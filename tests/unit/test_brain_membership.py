"""Who is a member, what groups are, and how engines are lost."""

import pytest
from brain_harness import Bench

from hpc.controller import events as ev
from hpc.wire import messages as m


def test_ids_are_contiguous_and_never_used_again():
    bench = Bench()
    bench.engine("r1", "g", 1, 2)
    bench.engine("single")
    bench.engine("r0", "g", 0, 2)
    assert [engine.id for engine in bench.brain.registry.visible()] == [0, 1, 2]
    assert bench.brain.registry.by_uuid["r1"].id == 1
    bench.do(ev.EngineDied(2, 9, -1))
    bench.engine("another")
    assert bench.brain.registry.by_uuid["another"].id == 3


def test_a_group_becomes_visible_when_its_last_work_channel_comes():
    bench = Bench()
    bench.engine("r0", "g", 0, 2)
    assert not bench.of(m.Engines)
    bench.engine("r1", "g", 1, 2, channels=("control",))
    assert not bench.of(m.Engines)
    bench.engine("r1", "g", 1, 2, channels=("work",))
    (engines,) = bench.messages(m.Engines)
    assert [row.id for row in engines.joined] == [0, 1]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"rank": 2, "size": 2}, "rank 2 of 2"),
        ({"rank": -1, "size": 2}, "rank -1 of 2"),
        ({"rank": 1, "size": 3}, "has 2 ranks"),
        ({"rank": 0, "size": 2}, "is engine 0 already"),
        ({"rank": 0, "size": 1 << 40}, "cannot be"),
    ],
)
def test_what_cannot_be_a_member_is_rejected(fields, reason):
    bench = Bench()
    bench.engine("r0", "g", 0, 2)
    bench.engine("other", "g", **fields, channels=("work",))
    (rejected,) = bench.actions
    assert reason in rejected.reason


def test_a_group_that_cannot_be_complete_is_sent_home():
    bench = Bench()
    bench.engine("r0", "g", 0, 3)
    bench.engine("r1", "g", 1, 3)
    bench.do(ev.EngineDied(1, 11, -1))
    assert [(a.engine, "SIGSEGV" in a.message.reason) for a in bench.of(m.Stop)] == [(0, True)]
    bench.engine("r2", "g", 2, 3, channels=("work",))
    assert "cannot be complete" in bench.actions[0].reason
    assert not bench.of(m.Engines)


def test_the_ranks_that_follow_the_first_into_death_name_it():
    bench = Bench()
    for rank in range(3):
        bench.engine(f"r{rank}", "g", rank, 3)
    bench.do(ev.EngineDied(1, 11, -1))
    assert bench.messages(m.Engines)[0].left[0].reason is m.EndReason.SIGNAL
    for rank in (0, 2):
        bench.now += 1
        bench.do(ev.EngineDied(rank, 15, -1))
        (end,) = bench.messages(m.Engines)[0].left
        assert end.reason is m.EndReason.GROUP
        assert "engine 1 (rank 1, pid" in end.detail
        assert "SIGSEGV" in end.detail
        assert end.signal == 15


def test_an_unreachable_engine_keeps_its_work_and_is_lost_after_the_grace():
    bench = Bench(1, grace_s=30)
    first = bench.submit(1, m.Kind.EACH, [0])
    for channel in ("work", "control"):
        bench.do(ev.EngineCut(0, channel))
    assert bench.actions == []
    bench.tick(0.3)
    assert bench.messages(m.Engines)[0].joined[0].state == "unreachable"
    second = bench.submit(1, m.Kind.EACH, [0])
    assert bench.actions == []
    bench.engine("e0", channels=("work",))
    assert bench.messages(m.Engines)[0].joined[0].state == "busy"
    assert bench.runs() == [(0, second, 0, 1)]
    for channel in ("work",):
        bench.do(ev.EngineCut(0, channel))
    bench.tick(0.3)
    bench.tick(31)
    ended = bench.messages(m.Ended)
    assert {(e.first, e.reason) for e in ended} == {(first, m.EndReason.VANISHED), (second, m.EndReason.VANISHED)}
    assert bench.brain.next_timeout(bench.now) is None


def test_an_engine_whose_process_lives_while_one_channel_does_is_not_given_up():
    bench = Bench(1)
    bench.do(ev.EngineCut(0, "work"))
    assert bench.brain.next_timeout(bench.now) is None
    bench.submit(1)
    assert bench.runs() == []
    bench.engine("e0", channels=("work",))
    assert len(bench.runs()) == 1


def test_the_launcher_has_a_moment_to_name_the_signal():
    bench = Bench(2)
    for engine in (0, 1):
        bench.do(ev.EngineDied(engine))
        assert not bench.of(m.Engines)
    bench.do(ev.ProcessEnded("h", 100, 6, 0, "Aborted"))
    (end,) = bench.messages(m.Engines)[0].left
    assert (end.id, end.signal, end.detail, end.stderr) == (0, 6, "was killed by SIGABRT", "Aborted")
    assert bench.brain.next_timeout(bench.now) == pytest.approx(0.03)
    bench.tick(0.03)
    (end,) = bench.messages(m.Engines)[0].left
    assert (end.id, end.signal, end.exit_code) == (1, -1, -1)
