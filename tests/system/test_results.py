"""Results: taken apart and put together, their output, what is known of them, and bars."""

import io
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, as_completed
from datetime import datetime

import pytest

import hpc
from hpc.errors import CompositeError, RemoteError

from .conftest import wait_until


@pytest.fixture
def rc() -> "Iterator[hpc.RemoteController]":
    with hpc.Cluster(n=3) as rc:
        rc[:].scatter("me", range(3), flatten=True)
        yield rc


def test_split_gives_a_future_for_each_task(rc: "hpc.RemoteController") -> None:
    whole = rc[:].apply_async(os.getpid)
    parts = whole.split()
    assert len(parts) == 3
    assert whole.split() is parts
    assert [part.get(10) for part in parts] == whole.get(10)
    assert [part.msg_ids for part in parts] == [[task_id] for task_id in whole.msg_ids]
    assert {part.result() for part in as_completed(parts, timeout=10)} == set(whole.get())
    assert parts[0].split() == (parts[0],)
    assert rc[:].apply_async(os.getpid).split()[1].engine_id == 1
    done = rc[:].apply_async(abs, -1)
    done.get()
    assert [part.get(0) for part in done.split()] == [1, 1, 1], "also of what has ended already"


def test_split_of_a_map(rc: "hpc.RemoteController") -> None:
    result = rc.load_balanced_view().map_async(lambda x: x + 1, range(50))
    assert [part.get(10) for part in result.split()] == list(range(1, 51))


def test_join(rc: "hpc.RemoteController") -> None:
    whole = rc[:].apply_async(os.getpid)
    joined = hpc.AsyncResult.join(*whole.split())
    assert joined.get(10) == whole.get(10)
    assert joined.msg_ids == whole.msg_ids
    mixed = hpc.AsyncResult.join(rc[0].apply_async(abs, -3), rc[:].apply_async(abs, -4))
    assert mixed.get(10) == [3, [4, 4, 4]]
    assert len(mixed) == 4
    slow, quick = rc[0].apply_async(time.sleep, 0.3), rc[1].apply_async(abs, -5)
    ended, left = hpc.AsyncResult.join(slow, quick).wait(10, "FIRST_COMPLETED")
    assert (len(ended), len(left)) == (1, 1)
    bad = hpc.AsyncResult.join(rc[0].apply_async(abs, -3), rc[1].apply_async(int, "x"))
    with pytest.raises(CompositeError) as caught:
        bad.get(10)
    assert list(caught.value.errors) == [1]
    assert bad.exception() is not None
    with pytest.raises(ValueError, match="at least one"):
        hpc.AsyncResult.join()


def test_wait_for_the_first(rc: "hpc.RemoteController") -> None:
    def work(mine: int) -> int:
        import time

        if mine == 0:
            return 1 // mine
        time.sleep(30)
        return mine

    result = rc[:].apply_async(work, hpc.Reference("me"))
    done, pending = result.wait(20, FIRST_EXCEPTION)
    assert len(done) == 1
    assert len(pending) == 2
    assert done.pop().engine_id == 0
    began = time.monotonic()
    result.wait_interactive(timeout=20, return_when=FIRST_EXCEPTION)
    assert time.monotonic() - began < 10
    done, pending = result.wait(20, FIRST_COMPLETED)
    assert len(done) == 1
    # An engine that has not come to its task yet has nothing to interrupt.
    wait_until(lambda: rc[:].interrupt() or result.wait(1), "the end of the others")


def test_exceptions_as_values(rc: "hpc.RemoteController") -> None:
    result = rc[:].apply_async(lambda mine: 1 // (mine - 1), hpc.Reference("me"))
    with pytest.raises(CompositeError):
        result.get()
    values = result.get(return_exceptions=True)
    assert values[0] == -1
    assert values[2] == 1
    assert isinstance(values[1], RemoteError)
    assert isinstance(values[1], ZeroDivisionError)
    assert isinstance(rc[0].apply_async(int, "x").get(return_exceptions=True), ValueError)
    none = rc[0].apply_async(print)
    assert none.get(return_exceptions=True) is None


def test_times_and_facts(rc: "hpc.RemoteController") -> None:
    result = rc[:].apply_async(time.sleep, 0.2)
    with pytest.raises(TimeoutError):
        _ = result.wall_time
    with pytest.raises(TimeoutError):
        _ = result.serial_time
    assert result.completed == [None] * 3
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = result.nothing_like_it
    with pytest.raises(KeyError):
        result["nothing_like_it"]
    result.get(10)
    assert all(isinstance(when, datetime) and when.tzinfo for when in result.completed)
    assert result.completed == result["completed"]
    assert 0.2 <= result.wall_time < result.serial_time
    assert result.speedup == pytest.approx(result.serial_time / result.wall_time)
    assert "completed" in dir(result)
    one = rc[0].apply_async(abs, -1)
    one.get()
    assert isinstance(one.started, datetime)
    assert one.status == "done"


def test_display_outputs(rc: "hpc.RemoteController", capsys: pytest.CaptureFixture[str]) -> None:
    rc[0].execute("print(5555)").display_outputs()
    assert capsys.readouterr().out == "5555\n"
    result = rc[:].execute("import sys; print('out', me); print('err', me, file=sys.stderr)")
    result.display_outputs()
    shown = capsys.readouterr()
    assert shown.out == "".join(f"[stdout:{i}] out {i}\n" for i in range(3))
    assert shown.err == "".join(f"[stderr:{i}] err {i}\n" for i in range(3))
    result.display_outputs("engine")
    assert capsys.readouterr().out == shown.out
    rc[:].execute("quiet = 1").display_outputs()
    assert capsys.readouterr() == ("", "")
    with pytest.raises(ValueError, match="order"):
        result.display_outputs("colour")
    failed = rc[0].execute("print('before'); 1/0", block=False)
    failed.display_outputs()
    assert capsys.readouterr().out == "before\n"


def test_output_is_streamed_while_the_tasks_run(rc: "hpc.RemoteController", monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr("sys.stdout", shown)
    path = f"{os.environ['HPC_DIR']}/go"
    rc[:]["go"] = path
    code = "import os, time\nprint('begun', me)\nwhile not os.path.exists(go): time.sleep(0.01)\nprint('over', me)"
    result = rc[:].execute(code, block=False)
    with result.stream_output():
        wait_until(lambda: shown.getvalue().count("begun") == 3, "the output of tasks that still run")
        assert not result.done()
        open(path, "w").close()
        result.get(10)
    lines = shown.getvalue().splitlines()
    assert sorted(lines) == sorted(f"[stdout:{i}] {word} {i}" for i in range(3) for word in ("begun", "over"))


def test_streaming_a_result_that_ended(rc: "hpc.RemoteController", capsys: pytest.CaptureFixture[str]) -> None:
    result = rc[0].execute("print('all of it', end='')")
    before = threading.active_count()
    with result.stream_output():
        pass
    assert capsys.readouterr().out == "all of it\n"
    assert threading.active_count() == before


def test_a_bar_of_tasks(rc: "hpc.RemoteController", capsys: pytest.CaptureFixture[str]) -> None:
    result = rc.load_balanced_view().map_async(time.sleep, [0.01] * 30)
    result.wait_interactive(interval=0.05)
    assert result.done()
    slow = rc[0].apply_async(time.sleep, 1)
    slow.wait_interactive(timeout=0.1)
    assert not slow.done()
