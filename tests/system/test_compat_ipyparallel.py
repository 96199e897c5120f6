"""Code that was written for ipyparallel."""

import asyncio
import concurrent.futures
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import hpc
import hpc.compat.ipyparallel as ipp
from hpc.compat.ipyparallel.error import AlreadyDisplayedError, TaskAborted

from .conftest import Processes, wait_until


@pytest.fixture(scope="module")
def connection_file() -> "Iterator[Path]":
    cluster = hpc.Cluster(n=3).start()
    yield cluster.logs.parent / "client.json"
    cluster.stop()


@pytest.fixture
def rc(connection_file: Path) -> "Iterator[ipp.Client]":
    with ipp.Client(connection_file) as rc:
        rc.clear(block=True)
        yield rc


def fail_at(x: int) -> int:
    """Raise for 2."""
    if x == 2:
        raise ValueError("two")
    return x


def wait_for(path: str) -> None:
    """Run until there is a file."""
    while not os.path.exists(path):
        time.sleep(0.01)


def sleep_after_saying_so(path: str) -> None:
    """Make a file, and sleep."""
    Path(f"{path}-{os.getpid()}").touch()
    time.sleep(30)


def test_nothing_waits_unless_it_is_told_to(rc: ipp.Client) -> None:
    view = rc[:]
    assert view.block is False
    assert rc.load_balanced_view().block is False
    for result in (view.push({"a": 1}), view.pull("a"), view.execute("b = 2"), view.scatter("c", range(3))):
        assert isinstance(result, ipp.AsyncResult)
        assert isinstance(result, concurrent.futures.Future)
        result.get(timeout=10)
    assert isinstance(view.gather("c"), ipp.AsyncMapResult)
    assert isinstance(view.map(abs, [-1]), ipp.AsyncMapResult)
    assert view.pull("a", block=True) == [1] * 3
    assert view.map(abs, [-1, -2], block=True) == [1, 2]
    assert view.map_sync(abs, iter([-1, -2])) == [1, 2]
    view.block = True
    assert view.apply(pow, 2, 3) == [8] * 3
    rc.block = True
    assert rc[0].apply(pow, 2, 3) == 8
    assert rc.direct_view([0, 1], block=False).apply(pow, 2, 3).get(-1) == [8, 8]
    assert [v.targets for v in rc] == rc.ids == [0, 1, 2]
    assert rc.direct_view().targets == "all"
    assert len(rc.direct_view()) == 3
    with pytest.raises(TypeError, match="no flag 'colour'"):
        rc.load_balanced_view(colour="red")


def test_errors_have_the_shape_that_they_had(rc: ipp.Client) -> None:
    with pytest.raises(ipp.RemoteError) as one:
        rc[1].apply_sync(fail_at, 2)
    assert isinstance(one.value, ValueError)
    assert (one.value.ename, one.value.evalue) == ("ValueError", "two")
    uuid = rc[1].apply_async(abs, -1).engine_uuid
    assert one.value.engine_info == {"engine_id": 1, "engine_uuid": uuid, "method": "apply"}
    assert len(set(rc[:].apply_async(abs, -1).engine_uuid)) == len(rc)
    assert one.value.render_traceback()[0] == "[1:apply]"
    assert one.value.render_traceback()[-1] == "ValueError: two"

    result = rc[:].execute("1/0")
    with pytest.raises(ipp.CompositeError, match="by zero") as several:
        result.get()
    assert isinstance(several.value, ipp.RemoteError)
    assert [(row[0], row[3]["engine_id"]) for row in several.value.elist] == [
        ("ZeroDivisionError", i) for i in range(3)
    ]
    assert several.value.elist[0][3]["method"] == "execute"
    with pytest.raises(ZeroDivisionError):
        several.value.raise_exception()
    with pytest.raises(ipp.RemoteError) as last:
        several.value.raise_exception(2)
    assert last.value.engine_id == 2
    with pytest.raises(IndexError, match="no error 3"):
        several.value.raise_exception(3)
    assert several.value.render_traceback().count("[1:execute]:") == 1
    assert several.value.render_traceback(1)[0] == "[1:execute]:"
    several.value.tb_limit = 2
    assert several.value.render_traceback()[-1] == "... 1 more exceptions ..."
    assert several.value is result.exception()
    assert several.value._render_traceback_()[0] == "[0-2:execute]", "what IPython shows"
    twice = ipp.AsyncResult.join(rc[:].execute("1/0"), rc[:].execute("1/0"))
    with pytest.raises(ipp.CompositeError) as each:
        twice.get()
    assert [row[3]["engine_id"] for row in each.value.elist] == [0, 1, 2, 0, 1, 2], "an entry for each task"
    with pytest.raises(ValueError, match="more than one value of engine"):
        rc.load_balanced_view().map_async(abs, range(6)).get_dict()
    assert not isinstance(several.value, AlreadyDisplayedError)

    mapped = rc.load_balanced_view().map(fail_at, range(4), return_exceptions=True)
    values = mapped.get()
    assert isinstance(values[2], ipp.RemoteError)
    assert values == list(mapped) == [0, 1, values[2], 3]
    direct = rc[:].map(fail_at, range(4), return_exceptions=True).get()
    assert isinstance(direct[2], ipp.RemoteError)
    with pytest.raises(ipp.CompositeError):
        list(rc[:].map(fail_at, range(4)).get())
    with pytest.raises(ipp.RemoteError):
        list(rc.load_balanced_view().map(fail_at, range(4)))
    with pytest.raises(FileNotFoundError) as missing:  # a class with a layout of its own
        rc[0].apply_sync(open, "/nowhere")
    assert isinstance(missing.value, ipp.RemoteError)


def test_an_engine_that_dies(processes: Processes) -> None:
    with ipp.Cluster(n=2, cluster_id="dying") as rc:
        with pytest.raises(ipp.RemoteError) as lost:
            rc[1].apply_sync(os._exit, 1)
        assert isinstance(lost.value, ipp.EngineError)
        assert isinstance(lost.value, hpc.errors.EngineLost)
        assert lost.value.ename == "EngineError"
        wait_until(lambda: rc.ids == [0], "the end of the engine")
        with pytest.raises(IndexError, match="engine 1"):
            rc[1]
        both = rc.direct_view("all").apply_sync(os.getpid)
        assert len(both) == 1


def test_references_stand_for_what_is_there(rc: ipp.Client) -> None:
    view = rc[:]
    view.scatter("n", [10, 20, 30], flatten=True, block=True)
    view.execute("f = lambda x: n * x\nrow = [0, 1, 2]", block=True)
    n = ipp.Reference("n")
    assert view.apply_sync(lambda x: x + 1, n) == [11, 21, 31]
    assert view.apply_sync(lambda x: x, [n, {"deep": (n,)}]) == [[i, {"deep": (i,)}] for i in (10, 20, 30)]
    assert rc[0].apply_sync(lambda x, y: (x, y), y=ipp.Reference("row[2]"), x=1) == (1, 2)
    assert view.apply_sync(ipp.Reference("f"), 2) == [20, 40, 60]
    assert view.map_sync(ipp.Reference("f"), [1, 1, 1]) == [10, 20, 30]
    assert view.map_sync(lambda x: x, [n] * 3) == [10, 20, 30]
    view.push({"m": n}, block=True)
    assert view["m"] == [10, 20, 30]
    with pytest.raises(NameError):
        rc[0].apply_sync(lambda x: x, ipp.Reference("nowhere"))


def test_names(rc: ipp.Client) -> None:
    view = rc[:]
    view["a"] = 1
    view.update({"b": np.arange(3)})
    assert view.get("a") == [1] * 3
    view.scatter("c", list(range(7)), dist="r", block=True)
    assert view["c"] == [[0, 3, 6], [1, 4], [2, 5]]
    assert view.gather("c", dist="r", block=True) == list(range(7))
    view.clear(targets=0, block=True)
    with pytest.raises(NameError):
        rc[0].get("a")
    assert rc[1].get("a") == 1
    view.execute("%%capture out\nprint(1)", block=True)  # from here on there is IPython's shell
    view.clear(block=True)
    assert view.execute("6 * 7", silent=False, block=True).execute_result[0]["data"]["text/plain"] == "42"


def test_what_execute_gives(rc: ipp.Client) -> None:
    result = rc[:].execute("print('hello')\n5", silent=False)
    reply = result.get()[1]
    assert (reply.engine_id, reply.stdout, reply.data["text/plain"]) == (1, "hello\n", "5")
    assert repr(reply) == f"<ExecuteReply[{reply.execution_count}]: 5>"
    rich = rc[0].execute("from IPython.display import HTML\nHTML('<b>5</b>')", silent=False).get()
    assert rich._repr_html_() == "<b>5</b>"
    assert rich._repr_png_() is None
    assert not hasattr(rich, "_repr_nothing_")
    assert result.stdout == ["hello\n"] * 3
    assert rc[0].execute("5").get().execute_result is None
    shown = rc[0].execute("from IPython.display import display\ndisplay(1)\n2", silent=False)
    assert [output["data"]["text/plain"] for output in shown.get().outputs] == ["1"]
    assert shown.status == "ok"
    assert shown["msg_id"] == shown.msg_ids[0]
    assert rc[0].execute("1/0").get(return_exceptions=True).ename == "ZeroDivisionError"
    assert rc[[0]].execute("a = 3", targets=[1, 2], block=True).engine_id == [1, 2]


def test_waiting(rc: ipp.Client, tmp_path: Path) -> None:
    view = rc[:]
    view.scatter("s", [0.0, 0.3, 0.3], flatten=True, block=True)
    result = view.apply(time.sleep, ipp.Reference("s"))
    done, pending = result.wait(return_when=ipp.FIRST_COMPLETED)
    assert done
    assert all(isinstance(part, ipp.AsyncResult) for part in done | pending)
    assert result.wait(-1) is True
    assert ipp.AsyncResult.join(*result.split()).get(10) == [None] * 3
    assert result.timedelta(result.started, result.completed) >= 0.3
    slow = view.apply(wait_for, str(tmp_path / "go on"))
    assert rc.outstanding == set(slow.msg_ids) == view.outstanding
    assert rc.wait(slow.msg_ids[0], 0) is False
    (tmp_path / "go on").touch()
    dropped = view.apply(time.sleep, 0.1).msg_ids  # a result that nobody holds is waited for by its name
    assert rc.wait([*dropped, slow], 10) is True
    assert slow.done()
    assert view.wait() is True
    assert rc.wait(timeout=10) is True
    assert rc.outstanding == set()
    assert rc.wait([slow, concurrent.futures.Future()], timeout=0) is False
    assert rc.get_result(slow.msg_ids) is not None
    assert rc.history[-6:] == slow.msg_ids + dropped
    assert view.get_result().msg_ids == dropped[-1:], "the last result is kept"
    assert view.get_result(-4).msg_ids == slow.msg_ids[-1:]
    view.apply(pow, 2, 5)
    assert rc.get_result(range(-3, 0), block=True) == [32] * 3
    rc.wait_interactive([slow])
    rc.purge_local_results(slow)

    async def awaited() -> object:
        return await view.apply(pow, 2, 2)

    assert asyncio.run(awaited()) == [4] * 3


def test_ending_tasks_early(rc: ipp.Client, tmp_path: Path) -> None:
    view = rc[0]
    first = view.apply(wait_for, str(tmp_path / "go on"))
    second, third = view.apply(pow, 2, 2), view.apply(pow, 2, 2)
    with pytest.raises(RuntimeError, match="not ended"):
        rc.purge_local_results("all")
    view.abort(second)
    view.abort(third.msg_ids)
    for result in (second, third):
        with pytest.raises(TaskAborted):
            result.get()
    (tmp_path / "go on").touch()
    assert first.get() is None
    asleep = rc[:].apply(sleep_after_saying_so, str(tmp_path / "begun"))
    wait_until(lambda: len(list(tmp_path.glob("begun-*"))) == 3, "the start of the tasks")
    assert {"queue", "tasks", "completed"} <= set(rc.queue_status(0))
    rc.send_signal("SIGINT")
    with pytest.raises(ipp.CompositeError) as interrupted:
        asleep.get(10)
    assert {row[0] for row in interrupted.value.elist} == {"KeyboardInterrupt"}
    with pytest.raises(NotImplementedError, match="SIGINT"):
        rc.send_signal(signal.SIGKILL)


def test_functions_that_are_decorated(rc: ipp.Client) -> None:
    @ipp.require("base64", twice=lambda x: 2 * x)
    @ipp.interactive
    def encoded(x: bytes) -> object:
        return base64.b64encode(twice(x))  # type: ignore[name-defined]  # noqa: F821

    assert rc.load_balanced_view().apply_sync(encoded, b"a") == b"YWE="
    assert encoded.__name__ == "encoded"
    needs = ipp.require("no_such_module")(abs)
    with pytest.raises(ipp.UnmetDependency, match="no_such_module"):
        rc[0].apply_sync(needs, 1)

    @ipp.depend(ipp.interactive(lambda first: id == first), 1)
    def only_there() -> int:
        return 7

    assert rc[1].apply_sync(ipp.depend(lambda: True)(abs), -3) == 3
    with pytest.raises(ipp.UnmetDependency, match="is False"):
        rc[1].apply_sync(ipp.depend(lambda: False)(only_there))
    tasks = [rc.load_balanced_view().apply_async(only_there) for _ in range(4)]
    assert [ar.get(10) for ar in tasks] == [7] * 4
    assert {ar.engine_id for ar in tasks} == {1}

    @ipp.remote(rc[0], block=True)
    def added(a: int, b: int = 1) -> int:
        return a + b

    assert added(1) == 2

    @ipp.parallel(rc[:], dist="b", block=True)
    def doubled(part: list[int]) -> list[int]:
        return [2 * x for x in part]

    assert doubled([1, 2, 3, 4]) == [2, 4, 6, 8]
    assert rc[:].parallel("b", True)(doubled.func)([1, 2]) == [2, 4]

    rc[0]["a"] = 5
    f = ipp.interactive(lambda: a)  # type: ignore[name-defined]  # noqa: F821
    assert rc[0].apply_sync(f) == 5


def test_what_is_not_there_says_so(rc: ipp.Client) -> None:
    lv = rc.load_balanced_view()
    with lv.temp_flags(retries=1, after=None, track=True):
        assert lv.retries == 1
    with pytest.raises(NotImplementedError, match="label"):
        rc[:].set_flags(label="x")
    for name in ("db_query", "hub_history", "purge_results", "resubmit", "become_dask"):
        with pytest.raises(NotImplementedError, match=name):
            getattr(rc, name)()
    with pytest.raises(NotImplementedError, match="no result of task 00000000-1"):
        rc.get_result("00000000-1")
    with pytest.raises(NotImplementedError, match="not 'sge'"):
        ipp.Cluster(n=1, engines="sge")
    with pytest.raises(AttributeError, match="session"):
        rc.session
    assert "short_of_time" not in rc.queue_status()


def test_tasks_that_depend_on_others(rc: ipp.Client) -> None:
    lv = rc.load_balanced_view()
    slept = lv.apply_async(time.sleep, 0.1)
    with lv.temp_flags(after=[slept.msg_ids[0]], label="second"):
        then = lv.apply_async(os.getpid)
    with lv.temp_flags(follow=ipp.Dependency(then)):
        there = lv.apply_async(os.getpid)
    assert there.get(10) == then.get(10)
    assert then.started >= slept.completed
    failed = lv.apply_async(lambda: 1 / 0)
    with lv.temp_flags(after=failed), pytest.raises(ipp.error.ImpossibleDependency, match="failed") as caught:
        lv.apply_sync(abs, 1)
    assert isinstance(caught.value, ipp.RemoteError)
    assert caught.value.ename == "ImpossibleDependency"
    with lv.temp_flags(after="12345"), pytest.raises(ipp.error.InvalidDependency, match="12345"):
        lv.apply_sync(abs, 1)
    waits = lv.apply_async(time.sleep, 1)
    with lv.temp_flags(after=waits, timeout=0.05), pytest.raises(ipp.TaskTimeout, match="0.05 s"):
        lv.apply_sync(abs, 1)


def test_executors(rc: ipp.Client) -> None:
    executor = rc.executor([0, 1])
    assert isinstance(executor.view, ipp.LoadBalancedView)
    with executor:
        assert executor.submit(pow, 2, 5).result() == 32
        assert list(executor.map(abs, [-1, -2])) == [1, 2]
    lv = rc.load_balanced_view()
    lv.register_joblib_backend()
    joblib = pytest.importorskip("joblib")
    with joblib.parallel_config(backend="ipyparallel"):
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(pow)(2, i) for i in range(4)) == [1, 2, 4, 8]


def test_a_cluster_of_its_own(processes: Processes) -> None:
    cluster = ipp.Cluster(n=1, engines="local", profile="own", cluster_id="two")
    rc = cluster.start_and_connect_sync()
    assert cluster.cluster_id == "own-two"
    assert rc.ids == [0]
    future = rc.wait_for_engines(2, timeout=20, block=False)
    cluster.start_engines_sync(1)
    assert future is not None
    assert future.result() is None
    assert rc.wait_for_engines(2) is None
    with pytest.raises(TimeoutError):
        rc.wait_for_engines(3, timeout=0.1)
    rc.shutdown(1)
    assert rc.ids == [0]
    before = rc[0].apply_sync(os.getpid)
    cluster.restart_engines_sync()
    assert rc[0].apply_sync(os.getpid) != before
    assert rc.ids == [0], "the id stays"
    again = ipp.Cluster.from_file(profile="own", cluster_id="two").connect_client_sync()
    assert again[:].apply_sync(abs, -1) == [1]
    again.close()
    rc.close()
    cluster.stop_cluster_sync()

    async def session() -> object:
        async with ipp.Cluster(n=1) as rc:
            return await rc[0].apply(pow, 3, 3)

    assert asyncio.run(session()) == 27
    processes.assert_none_left()
