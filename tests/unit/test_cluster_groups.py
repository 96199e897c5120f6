"""How many engines there shall be, and which groups leave: pure decisions."""

import pytest

from hpc.cluster.adaptive import Adaptation
from hpc.cluster.groups import EngineGroup, choose_leaving, total


def groups(*sizes, states=()):
    made = [EngineGroup(f"g-{number}", n, "running") for number, n in enumerate(sizes)]
    for group, state in zip(made, states, strict=False):
        group.state = state
    return made


def labels(chosen):
    return [group.label for group in chosen]


def test_the_newest_idle_groups_leave_first():
    assert labels(choose_leaving(groups(1, 1, 1, 1), 2, busy=())) == ["g-3", "g-2"]
    assert labels(choose_leaving(groups(1, 1, 1, 1), 2, busy=("g-3", "g-1"))) == ["g-2", "g-0"]
    assert labels(choose_leaving(groups(1, 1, 1), 3, busy=("g-0",))) == ["g-2", "g-1", "g-0"]


def test_jobs_that_wait_are_given_up_before_engines_that_are_there():
    waiting = groups(2, 2, 2, states=("pending", "running", "running"))
    assert labels(choose_leaving(waiting, 2, busy=())) == ["g-0"]


def test_groups_end_as_a_whole():
    assert labels(choose_leaving(groups(4, 2, 3), 4, busy=())) == ["g-0"]
    assert labels(choose_leaving(groups(4, 2, 3), 5, busy=())) == ["g-2", "g-1"]
    assert labels(choose_leaving(groups(3, 3, 4), 6, busy=())) == ["g-1", "g-0"]
    with pytest.raises(ValueError, match="of 6 engines now, the totals to be had are 0, 2, 4, 6, not 5"):
        choose_leaving(groups(4, 2), 1, busy=())


def test_those_that_leave_count_no_more():
    some = groups(2, 2, states=("leaving",))
    assert total(some) == 2
    assert labels(choose_leaving(some, 2, busy=())) == ["g-1"]
    with pytest.raises(ValueError, match="0, 2"):
        choose_leaving(some, 4, busy=())


def test_a_thousand_engines_are_no_trouble():
    assert len(choose_leaving(groups(*[1] * 10_000), 5000, busy={f"g-{n}" for n in range(0, 10_000, 2)})) == 5000


def test_an_engine_is_known_by_the_label_or_by_its_process():
    group = EngineGroup("mpirun-1", 2, pid=7)
    engine = {"group": "mpirun-1-abc", "pid": 9, "host": "there"}
    assert group.holds(engine, "here")
    assert not group.holds(engine | {"group": "mpirun-10-abc"}, "here")
    assert group.holds({"group": "x", "pid": 7, "host": "here"}, "here")
    assert not group.holds({"group": "x", "pid": 7, "host": "there"}, "here")


def load(*tasks, unassigned=0, queue=0):
    return {
        "engines": {str(n): {"queue": queue, "tasks": count} for n, count in enumerate(tasks)},
        "unassigned": unassigned,
    }


def test_work_brings_engines_up_to_the_maximum():
    adaptation = Adaptation(1, 8)
    assert adaptation.wanted(load(0), 1, 0.0) == 1
    assert adaptation.wanted(load(1, unassigned=3), 1, 1.0) == 4
    assert adaptation.wanted(load(1, unassigned=300), 4, 2.0) == 8
    assert adaptation.wanted(load(3, 3, queue=1), 2, 3.0) == 8


def test_engines_are_released_when_fewer_were_enough_for_a_while():
    adaptation = Adaptation(0, 8, idle_s=10.0)
    assert adaptation.wanted(load(0, 0, 0, 0), 4, 100.0) == 4
    assert adaptation.wanted(load(1, 1, 0, 0), 4, 105.0) == 4, "it has not been long"
    assert adaptation.wanted(load(0, 0, 0, 0), 4, 109.9) == 4
    assert adaptation.wanted(load(0, 0, 0, 0), 4, 110.0) == 2, "two were needed meanwhile"
    assert adaptation.wanted(load(0, 0), 2, 111.0) == 2
    assert adaptation.wanted(load(1, 1, unassigned=1), 2, 115.0) == 3
    assert adaptation.wanted(load(0, 0, 0), 3, 122.0) == 3, "the load in between starts the wait anew"
    assert adaptation.wanted(load(0, 0, 0), 3, 132.0) == 0


def test_groups_come_and_go_as_a_whole():
    adaptation = Adaptation(2, 10, group=4, idle_s=0.0)
    assert adaptation.wanted(load(unassigned=1), 0, 0.0) == 4
    assert adaptation.wanted(load(1, unassigned=4), 4, 0.0) == 8
    assert adaptation.wanted(load(unassigned=100), 8, 0.0) == 8, "twelve would be more than the maximum"
    assert adaptation.wanted(load(0, 0), 8, 1.0) == 4, "the minimum, in whole groups"


@pytest.mark.parametrize("bounds", [(-1, 2), (3, 2), (0, 0)])
def test_bounds_that_cannot_be_meant(bounds):
    with pytest.raises(ValueError, match="minimum"):
        Adaptation(*bounds)
