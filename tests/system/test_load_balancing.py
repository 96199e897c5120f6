"""Load-balanced work with live engines: tried again, after other work, where it may run, in time, in turn."""

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import hpc
from hpc.errors import DependencyError, NoEngines, TaskTimeout

from .conftest import wait_until


@pytest.fixture
def rc(monkeypatch: pytest.MonkeyPatch) -> "Iterator[hpc.RemoteController]":
    monkeypatch.setenv("HPC_RESOURCES", "license=2")
    monkeypatch.setenv("HPC_LABELS", "here,fast")
    with hpc.Cluster(n=3) as rc:
        yield rc


def fail_first(directory: str, name: object, times: int) -> int:
    """Fail as often as asked, each try leaving a file; return which try this is."""
    for n in itertools.count():
        path = os.path.join(directory, f"{name}.{n}")
        if not os.path.exists(path):
            open(path, "x").close()
            print("try", n)
            if n < times:
                raise ValueError(n)
            return n
    raise AssertionError


def test_what_fails_is_tried_again(rc: "hpc.RemoteController", tmp_path: Path) -> None:
    lv = rc.load_balanced_view(retries=2)
    assert lv.apply(fail_first, str(tmp_path), "a", 2) == 2
    failed = lv.apply_async(fail_first, str(tmp_path), "b", 9)
    with pytest.raises(ValueError, match="2"):
        failed.get(10)
    assert len(list(tmp_path.glob("b.*"))) == 3
    names = list(range(50))
    tries = lv.map(fail_first, [str(tmp_path)] * 50, names, [i % 3 for i in names])
    assert tries == [i % 3 for i in names]


def test_what_tries_print_while_they_run_stands_in_order(rc: "hpc.RemoteController", tmp_path: Path) -> None:
    def talk(path: str) -> None:
        import time

        first = not os.path.exists(path)
        for i in range(3):
            print("first" if first else "second", i, flush=True)
            time.sleep(0.1)
        if first:
            open(path, "x").close()
            raise ValueError

    ar = rc.load_balanced_view(retries=1).apply_async(talk, str(tmp_path / "mark"))
    ar.get(10)
    said = ar.stdout.split()
    assert said[-6:] == ["second", "0", "second", "1", "second", "2"]
    assert said[:2] in (["first", "0"], ["second", "0"])


def test_tasks_that_wait_for_others(rc: "hpc.RemoteController") -> None:
    lv = rc.load_balanced_view()
    first = [lv.apply_async(time.sleep, 0.2), lv.map_async(time.sleep, [0.1] * 4)]
    with lv.temp_flags(after=first):
        then = lv.apply_async(os.getpid)
        maps = lv.map_async(abs, range(-3, 0))
    assert then.get(10) > 0
    ended = [first[0].metadata["completed"], *(row["completed"] for row in first[1].metadata)]
    assert then.metadata["started"] >= max(ended)
    assert maps.get(10) == [3, 2, 1]
    with lv.temp_flags(follow=then):
        assert {ar.get(10) for ar in [lv.apply_async(os.getpid) for _ in range(6)]} == {then.get()}
    quick = lv.apply_async(os.getpid)  # its result may be on its way while the next one is submitted
    with lv.temp_flags(follow=quick.task_ids):
        assert lv.apply(os.getpid) == quick.get()


def test_what_depends_on_failures(rc: "hpc.RemoteController") -> None:
    lv = rc.load_balanced_view()
    bad = lv.apply_async(lambda: 1 / 0)
    with lv.temp_flags(after=bad):
        never = lv.apply_async(abs, 1)
    with lv.temp_flags(after=never):
        nor = lv.apply_async(abs, 1)
    for ar in (never, nor):
        with pytest.raises(DependencyError, match="failed"):
            ar.get(10)
        assert ar.metadata["status"] == "failed"
    with lv.temp_flags(after=hpc.Dependency(bad, success=False, failure=True)):
        assert lv.apply(abs, -1) == 1
    good = lv.apply_async(abs, 1)
    with lv.temp_flags(after=hpc.Dependency([bad, good], all=False)):
        assert lv.apply(abs, -2) == 2
    slow = lv.apply_async(time.sleep, 2)
    with lv.temp_flags(after=slow, timeout=0.1), pytest.raises(TaskTimeout, match="timeout"):
        lv.apply(abs, 1)
    with lv.temp_flags(after="nothing"), pytest.raises(DependencyError, match="no task 'nothing'"):
        lv.apply(abs, 1)
    with lv.temp_flags(after=slow):
        waits = lv.apply_async(abs, 1)
    assert rc.queue_status()["dependent"] == 1
    assert waits.cancel()


def test_conditions(rc: "hpc.RemoteController") -> None:
    lv = rc.load_balanced_view()
    rc[1]["ready"] = True

    def has(name: str) -> bool:
        import __main__

        return hasattr(__main__, name)

    @hpc.depend(has, "ready")
    @hpc.require("json", twice=lambda x: 2 * x)
    def where(x: int) -> object:
        import __main__

        return __main__.json.loads(str(__main__.twice(x))), __main__.id

    assert lv.map(where, range(5)) == [(2 * i, 1) for i in range(5)]
    assert {lv.apply(where, 0) for _ in range(5)} == {(0, 1)}
    missing = hpc.require("no_such_module")(abs)
    with pytest.raises(DependencyError, match="no_such_module"):
        lv.apply(missing, 1)
    with pytest.raises(DependencyError, match=r"has\('absent'\) is False"):
        lv.apply(hpc.depend(has, "absent")(abs), 1)
    later = rc.load_balanced_view(timeout=20).apply_async(hpc.depend(has, "absent")(abs), -7)
    wait_until(lambda: rc.queue_status()["stranded"], "all engines to say no")
    rc[2]["absent"] = False
    assert later.get(10) == 7
    assert later.engine_id == 2

    def broken() -> bool:
        return 1 / 0  # type: ignore[return-value]

    with pytest.raises(ZeroDivisionError):
        lv.apply(hpc.depend(broken)(abs), 1)
    with pytest.raises(DependencyError):
        rc[0].apply(hpc.depend(has, "ready")(abs), 1)


def test_only_where_there_is_what_it_needs(rc: "hpc.RemoteController") -> None:
    (row, *_) = rc.status()["engines"]
    assert row["labels"] == ["fast", "here"]
    assert row["resources"]["license"] == 2
    assert row["resources"]["memory_gb"] > 0
    lv = rc.load_balanced_view(labels="fast", resources={"license": 2, "memory_gb": 0.01})
    assert lv.map(abs, [-1, -2]) == [1, 2]
    with lv.temp_flags(labels=["fast", "far"], timeout=0.1), pytest.raises(TaskTimeout, match="labels far, fast"):
        lv.apply(abs, 1)
    with lv.temp_flags(resources={"license": 3}, timeout=0.1), pytest.raises(TaskTimeout, match="license: 3"):
        lv.apply(abs, 1)
    with pytest.raises(NoEngines, match="no engine of those"):
        rc.load_balanced_view(0, labels="far", timeout=None).apply_async(abs, 1).get(15)


def test_tasks_that_run_too_long(rc: "hpc.RemoteController") -> None:
    lv = rc.load_balanced_view(run_timeout=0.2)
    began = time.monotonic()
    for function in (time.sleep, hpc.require("json")(time.sleep)):
        with pytest.raises(TaskTimeout, match=r"longer than 0\.2 s"):
            lv.apply(function, 20)
    values = lv.map_async(time.sleep, [0, 20, 0.01, 20, 0]).get(return_exceptions=True)
    assert [isinstance(value, TaskTimeout) for value in values] == [False, True, False, True, False]
    assert time.monotonic() - began < 10
    assert lv.map(time.sleep, [0.12] * 9) == [None] * 9
    assert lv.apply(abs, -1) == 1


def test_urgent_tasks_first(rc: "hpc.RemoteController") -> None:
    lv = rc.load_balanced_view(0)
    lv.apply_async(time.sleep, 0.2)
    low = [lv.apply_async(time.monotonic) for _ in range(3)]
    with lv.temp_flags(priority=10):
        high = [lv.apply_async(time.sleep, 0.06) for _ in range(3)]
    ends = [ar.metadata["completed"] for ar in high if ar.get(10) is None]
    starts = [ar.metadata["started"] for ar in low if ar.get(10)]
    # One may have been sent ahead.
    assert sum(start >= max(ends) for start in starts) >= 2


def test_a_flood_of_one_client_does_not_delay_another(rc: "hpc.RemoteController") -> None:
    with hpc.RemoteController(name=rc.status()["controller"]["name"]) as other:
        flood = other.load_balanced_view().map_async(time.sleep, [0.01] * 20_000)
        began = time.monotonic()
        assert rc.load_balanced_view().map(abs, range(10)) == list(range(10))
        assert time.monotonic() - began < 2, "the flood takes more than a minute"
        flood.abort()


def test_flags_are_checked(rc: "hpc.RemoteController") -> None:
    lv = rc.load_balanced_view()
    for flags in ({"retries": -1}, {"timeout": -3}, {"priority": float("inf")}, {"resources": {"gpu": -1}}):
        with pytest.raises(ValueError, match=next(iter(flags))):
            lv.set_flags(**flags)
    with pytest.raises(TypeError, match="no flag 'urgency'"):
        lv.set_flags(urgency=3)
    assert lv.set_flags(retries=2, labels="fast") is lv
    assert repr(lv) == "<LoadBalancedView of all engines, retries 2, labels ('fast',)>"
