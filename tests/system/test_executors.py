"""Executors of `concurrent.futures` over engines: our own cluster, or a view of one that is there."""

import math
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, BrokenExecutor, as_completed, wait
from types import ModuleType

import pytest

import hpc

from .conftest import Processes, wait_until


def double(x: int) -> int:
    """Return twice a number."""
    return 2 * x


def fail(x: int) -> int:
    """Raise for 3."""
    if x == 3:
        raise ValueError("three")
    return x


def test_submit_is_a_future_of_the_library(processes: Processes) -> None:
    with hpc.Executor(2) as pool:
        futures = [pool.submit(pow, 2, i) for i in range(20)]
        assert sorted(f.result() for f in as_completed(futures, timeout=20)) == [2**i for i in range(20)]
        done, left = wait([pool.submit(double, 4), pool.submit(time.sleep, 0.2)], return_when=FIRST_COMPLETED)
        assert done
        done, left = wait(done | left, return_when=ALL_COMPLETED)
        assert not left
        assert pool.submit(fail, 3).exception() is not None
    processes.assert_none_left()


def test_map_yields_in_order_and_raises_where_it_failed(processes: Processes) -> None:
    with hpc.Executor(2) as pool:
        assert list(pool.map(double, range(100))) == [2 * i for i in range(100)]
        assert list(pool.map(pow, range(5), range(5))) == [i**i for i in range(5)]
        assert sorted(pool.map(double, range(50), unordered=True)) == [2 * i for i in range(50)]
        assert list(pool.starmap(math.hypot, [(3, 4), (5, 12)])) == [5.0, 13.0]
        values, it = [], pool.map(fail, range(6), chunksize=1)
        with pytest.raises(ValueError, match="three"):
            values.extend(it)
        assert values == [0, 1, 2]
        came = []
        with pytest.raises(TimeoutError):
            came.extend(pool.map(time.sleep, [0, 0, 30], timeout=0.5, chunksize=1))
        assert came == [None, None]
        pool.shutdown(wait=False, cancel_futures=True)
        pool._cluster.stop()  # the one that still sleeps need not be waited for


def test_shutdown_waits_or_cancels(processes: Processes) -> None:
    pool = hpc.Executor(2)
    futures = [pool.submit(time.sleep, 0.05) for _ in range(40)]
    pool.shutdown(cancel_futures=True)
    cancelled = [f for f in futures if f.cancelled()]
    assert len(cancelled) > 20
    assert all(f.done() for f in futures)
    assert len(cancelled) < 40, "what runs is not cancelled"
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(double, 1)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.map(double, [1])


def test_shutdown_without_waiting_ends_the_engines_later(processes: Processes) -> None:
    pool = hpc.Executor(1)
    future = pool.submit(time.sleep, 0.3)
    pool.shutdown(wait=False)
    assert not future.done()
    assert future.result(20) is None
    wait_until(lambda: not processes.pids(), "the end of the engines")


def test_the_initializer_runs_once_on_each_engine(processes: Processes) -> None:
    def begin(value: int) -> None:
        import builtins

        builtins.hpc_test = [*getattr(builtins, "hpc_test", []), value]  # type: ignore[attr-defined]

    def look(_: int) -> tuple[int, list[int]]:
        import builtins
        import os

        return os.getpid(), builtins.hpc_test  # type: ignore[attr-defined]

    with hpc.Executor(2, initializer=begin, initargs=(7,)) as pool:
        pool.bootup()
        seen = dict(pool.map(look, range(40), chunksize=1))
    assert set(map(tuple, seen.values())) == {(7,)}


def test_a_failing_initializer_breaks_the_executor(processes: Processes) -> None:
    pool = hpc.Executor(2, initializer=fail, initargs=(3,))
    for _ in range(2):
        with pytest.raises(BrokenExecutor, match="engine 0: ValueError"):
            pool.submit(double, 1)
    pool.shutdown()


def test_executors_of_views() -> None:
    with hpc.Cluster(n=2) as rc:
        lv = rc.load_balanced_view()
        assert lv.executor.view is lv
        with lv.executor as pool:
            assert list(pool.map(double, range(5))) == [0, 2, 4, 6, 8]
        assert rc[:].apply_sync(os.getpid), "the engines stay"
        pid = rc[1].apply_sync(os.getpid)
        with rc[1].executor as one:
            assert {one.submit(os.getpid).result() for _ in range(5)} == {pid}
        with rc[:].executor as both:
            assert both.num_workers == 2


def test_threads_share_an_executor() -> None:
    with hpc.Executor(2) as pool:
        got: list[int] = []
        threads = [
            threading.Thread(target=lambda: got.extend(pool.submit(double, i).result() for i in range(50)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert sorted(got) == sorted(2 * i for i in range(50) for _ in range(4))


def test_what_was_submitted_is_done_before_the_interpreter_ends(tmp_path) -> None:
    path = tmp_path / "done"
    code = f"""
import atexit, hpc
@atexit.register
def late():
    try:
        pool.submit(abs, 1)
    except RuntimeError as error:
        print(error)
pool = hpc.Executor(1)
def work():
    import time
    time.sleep(0.3)
    open({str(path)!r}, "w").close()
pool.submit(work)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode == 0, run.stderr
    assert path.exists()
    assert "after interpreter shutdown" in run.stdout
    assert not run.stderr


def _nested(joblib: ModuleType, i: int) -> int:
    (value,) = joblib.Parallel(n_jobs=2, backend="hpc")([joblib.delayed(pow)(i, 2)])
    return int(value)


def test_joblib_knows_the_backend_once_there_is_a_connection() -> None:
    joblib = pytest.importorskip("joblib")
    joblib.parallel.BACKENDS.pop("hpc", None)
    with hpc.Cluster(n=1), joblib.parallel_config(backend="hpc"):
        assert joblib.Parallel()(joblib.delayed(double)(i) for i in range(3)) == [0, 2, 4]


def test_joblib() -> None:
    joblib = pytest.importorskip("joblib")
    with hpc.Cluster(n=2) as rc:
        hpc.register_joblib_backend()
        with joblib.parallel_config(backend="hpc"):
            assert joblib.effective_n_jobs() == 2
            assert joblib.Parallel()(joblib.delayed(double)(i) for i in range(200)) == [2 * i for i in range(200)]
            with pytest.raises(ValueError, match="three"):
                joblib.Parallel(pre_dispatch=1)(joblib.delayed(fail)(i) for i in (3,))
        pids = set(rc[:].apply_sync(os.getpid))
        values = joblib.Parallel(backend="hpc", return_as="generator_unordered")(
            joblib.delayed(_nested)(joblib, i) for i in range(4)
        )
        assert sorted(values) == [0, 1, 4, 9], "a call on an engine waits for no other engine"
        ready = joblib.Parallel(backend="hpc", initializer=sys.setrecursionlimit, initargs=(4321,))(
            joblib.delayed(sys.getrecursionlimit)() for _ in range(8)
        )
        assert ready == [4321] * 8
        rc.load_balanced_view().register_joblib_backend("engines")
        assert set(joblib.Parallel(n_jobs=-1, backend="engines")(joblib.delayed(os.getpid)() for _ in range(9))) <= pids
