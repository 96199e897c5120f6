"""It hangs: where? And how a person gets on: stacks, stalled collectives, interrupts, new processes, the debugger."""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import hpc
from hpc.errors import CollectiveStalled, CompositeError, EngineLost, TaskAborted

from .conftest import IPCLUSTER, Processes, wait_until

START_S = 30.0


def run_forever() -> None:
    while True:
        pass


def sleep_in_c(seconds: float) -> None:
    time.sleep(seconds)


def hold_the_interpreter() -> None:
    import ctypes

    while True:
        ctypes.PyDLL(None).pause()


def die(how: str) -> None:
    import ctypes

    os.write(2, b"these are my last words\n")
    if how == "exit":
        os._exit(3)
    elif how == "segfault":
        ctypes.string_at(0)
    elif how == "abort":
        hpc.comm().Abort(5)
        while True:  # MPICH's returns: its mpirun ends the ranks, and loses why if this one does not wait for that
            time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)


def fail_on_rank_1() -> int:
    comm = hpc.comm()
    if comm.rank == 1:
        raise ValueError("no convergence")
    return int(comm.allreduce(1))


def leave_on_rank_1() -> None:
    comm = hpc.comm()
    if comm.rank != 1:
        comm.Barrier()


@pytest.fixture
def rc(processes: Processes) -> Iterator[hpc.RemoteController]:
    with hpc.Cluster(n=3, name="hangs") as controller:
        yield controller


@pytest.fixture
def group(processes: Processes) -> Iterator[hpc.RemoteController]:
    with hpc.Cluster(n=3, mpi=True, name="hangs") as controller:
        yield controller


def is_at(rc: hpc.RemoteController, engine: int, function: str) -> bool:
    return any(frame.name.endswith(function) for frame in rc.stacks()[engine])


# ---------------------------------------------------------------- stacks


def test_stacks_of_engines_that_sit_anywhere(rc: hpc.RemoteController) -> None:
    rc[0].apply_async(run_forever)
    rc[1].apply_async(sleep_in_c, 600)
    rc[2].apply_async(hold_the_interpreter)
    wait_until(lambda: is_at(rc, 0, "run_forever") and is_at(rc, 1, "sleep_in_c"), "the tasks")
    wait_until(lambda: is_at(rc, 2, "hold_the_interpreter"), "the stack of an engine that cannot answer")
    stacks = rc.stacks()
    assert (stacks[1].state, stacks[1].call) == ("running", "sleep")
    assert "engine 1 in sleep at test_hangs.py:" in str(stacks)
    shown = subprocess.run(
        [*IPCLUSTER, "stacks", "--name", "hangs", "--json"], capture_output=True, text=True, check=True
    )
    assert [row["id"] for row in json.loads(shown.stdout)] == [0, 1, 2]
    text = subprocess.run([*IPCLUSTER, "stacks"], capture_output=True, text=True, check=True).stdout
    assert "in sleep_in_c" in text


def test_stacks_of_a_cluster_that_is_not_there(processes: Processes) -> None:
    shown = subprocess.run([*IPCLUSTER, "stacks", "--name", "nobody"], capture_output=True, text=True, check=False)
    assert (shown.returncode, "no cluster named 'nobody'" in shown.stderr) == (1, True)


# ---------------------------------------------------------------- collectives


@pytest.mark.needs_mpi
def test_a_rank_that_raises_is_reported_while_others_wait(group: hpc.RemoteController) -> None:
    result = group[:].apply_async(fail_on_rank_1)
    with pytest.raises(
        CollectiveStalled, match=r"ranks 0,2 in allreduce at test_hangs.py:\d+; rank 1 raised Value"
    ) as e:
        result.get(timeout=15)
    assert e.value.stacks is not None
    assert not result.done()
    began = time.monotonic()
    assert not result.cancel(force=True), "rank 1 has ended by itself"
    assert time.monotonic() - began < 15
    with pytest.raises(CompositeError, match="no convergence"):
        result.get(timeout=1)
    assert group.ids == [0, 1, 2]
    assert group[:].apply_sync(lambda: hpc.comm().allreduce(1)) == [3, 3, 3]


@pytest.mark.needs_mpi
def test_a_rank_that_comes_late_lets_them_go_on(group: hpc.RemoteController) -> None:
    result = group[:].apply_async(leave_on_rank_1)
    with pytest.raises(CollectiveStalled, match="rank 1 is idle"):
        result.wait(15)

    async def wait() -> Any:
        return await result

    with pytest.raises(CollectiveStalled):
        list(result)
    group[1].apply_sync(lambda: hpc.comm().Barrier())
    assert result.get(timeout=15) == [None] * 3
    assert asyncio.run(wait()) == [None] * 3


@pytest.mark.needs_mpi
def test_ranks_that_compute_are_not_reported(group: hpc.RemoteController) -> None:
    def late() -> int:
        if hpc.comm().rank == 1:
            time.sleep(4)
        return int(hpc.comm().allreduce(1))

    assert group[:].apply_async(late).get(timeout=20) == [3, 3, 3]


# ---------------------------------------------------------------- cancelling


def test_cancel_by_force(rc: hpc.RemoteController) -> None:
    rc[:]["x"] = 1
    result = rc[0].apply_async(run_forever)
    other = rc[1].apply_async(sleep_in_c, 600)
    wait_until(lambda: is_at(rc, 0, "run_forever"), "the task")
    assert result.cancel(force=True)
    assert result.cancelled()
    with pytest.raises(TaskAborted, match="cancelled while it ran"):
        result.get()
    assert rc[0]["x"] == 1, "an interrupt was enough"
    assert not other.done()
    other.cancel(force=True)


def test_cancel_by_force_of_what_hears_no_interrupt(rc: hpc.RemoteController) -> None:
    pid = rc[0].apply_sync(os.getpid)
    result = rc[0].apply_async(hold_the_interpreter)
    wait_until(lambda: is_at(rc, 0, "hold_the_interpreter"), "the task")
    assert result.cancel(force=True, grace=0.3)
    assert rc[0].apply_sync(os.getpid) != pid
    assert rc.ids == [0, 1, 2]


def test_an_interrupt_ends_the_task_that_it_is_meant_for(rc: hpc.RemoteController) -> None:
    results = [rc[0].apply_async(sleep_in_c, 0.2) for _ in range(2)]
    last = rc[0].apply_async(sleep_in_c, 600)
    wait_until(lambda: all(result.done() for result in results), "the tasks before")
    wait_until(lambda: is_at(rc, 0, "sleep_in_c"), "the last task")
    rc[0].interrupt()
    with pytest.raises(KeyboardInterrupt):
        last.get(timeout=5)
    assert [result.get() for result in results] == [None, None]


# ---------------------------------------------------------------- new processes


def test_new_processes_under_the_same_ids(rc: hpc.RemoteController) -> None:
    v = rc[:]
    v["x"] = 1
    before = v.apply_sync(os.getpid)
    rc.restart_engines([0, 2])
    after = v.apply_sync(os.getpid)
    assert after[1] == before[1]
    assert {after[0], after[2]}.isdisjoint(before)
    assert rc[1]["x"] == 1
    with pytest.raises(NameError):
        rc[0]["x"]
    assert rc.lost == []
    with pytest.raises(EngineLost):
        rc[1].apply_sync(die, "kill")
    rc.restart_engines(1)
    assert rc.ids == [0, 1, 2]


@pytest.mark.needs_mpi
def test_a_group_is_restarted_as_a_whole(group: hpc.RemoteController) -> None:
    before = group[:].apply_sync(os.getpid)
    group.restart_group(1)
    assert set(group[:].apply_sync(os.getpid)).isdisjoint(before)
    assert group[:].apply_sync(lambda: hpc.comm().allreduce(1)) == [3, 3, 3]
    assert [g.ids for g in group.groups] == [[0, 1, 2]]


def test_a_crash_is_followed_by_a_restart_if_that_is_the_policy(processes: Processes) -> None:
    with hpc.Cluster(n=2, name="again", policy="restart") as rc:
        pid = rc[1].apply_sync(os.getpid)
        with pytest.raises(EngineLost):
            rc[1].apply_sync(die, "kill")
        wait_until(lambda: rc.ids == [0, 1], "the new process")
        assert rc[1].apply_sync(os.getpid) != pid


# ---------------------------------------------------------------- ends


@pytest.mark.parametrize(("how", "reason"), [("exit", "exit"), ("segfault", "signal"), ("kill", "signal")])
def test_the_end_of_an_engine_is_told_with_its_last_words(rc: hpc.RemoteController, how: str, reason: str) -> None:
    with pytest.raises(EngineLost) as caught:
        rc[1].apply_sync(die, how)
    assert caught.value.reason == reason
    if how != "kill":
        assert "these are my last words" in caught.value.stderr


@pytest.mark.needs_mpi
@pytest.mark.parametrize(("how", "reason"), [("abort", "mpi_abort"), ("segfault", "signal"), ("exit", "exit")])
def test_the_rank_that_did_it_is_named(group: hpc.RemoteController, how: str, reason: str) -> None:
    with pytest.raises(EngineLost) as caught:
        group[1].apply_sync(die, how)
    assert (caught.value.reason, caught.value.engine_id) == (reason, 1)
    wait_until(lambda: len(group.lost) == 3, "the end of the others")
    assert sorted(lost.reason for lost in group.lost) == sorted([reason, "group", "group"])


def test_an_engine_that_the_kernel_kills_for_want_of_memory(rc: hpc.RemoteController) -> None:
    memory = "/sys/fs/cgroup/memory"
    place = f"{memory}/hpc-test-{os.getpid()}"
    if not os.access(f"{memory}/memory.limit_in_bytes", os.W_OK):
        pytest.skip("needs the right to make a cgroup of version 1 for memory")
    os.mkdir(place)
    try:
        for name, text in (
            ("memory.limit_in_bytes", str(200 << 20)),
            ("cgroup.procs", str(rc[1].apply_sync(os.getpid))),
        ):
            with open(f"{place}/{name}", "w") as file:
                file.write(text)
        with pytest.raises(EngineLost, match="because memory ran out") as caught:
            rc[1].apply_sync(lambda: len(b"x" * (400 << 20)))
        assert (caught.value.reason, caught.value.signal) == ("out_of_memory", signal.SIGKILL)
    finally:
        wait_until(lambda: _removed(place), "the end of the cgroup")


def _removed(place: str) -> bool:
    try:
        os.rmdir(place)
    except OSError:
        return False
    return True


# ---------------------------------------------------------------- debugging


def test_the_debugger(
    rc: hpc.RemoteController, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def inner(a: int) -> float:
        doubled = 2 * a
        return doubled / (a - a)

    def outer(n: int) -> float:
        return inner(n)

    def typed(*lines: str) -> Callable[[str], str]:
        left = iter(lines)

        def read(prompt: str) -> str:
            print(prompt, end="")
            try:
                return next(left)
            except StopIteration:
                raise EOFError from None

        return read

    with pytest.raises(hpc.errors.HpcError, match="no task has failed on engine 0"):
        rc.debug(0)
    with pytest.raises(ZeroDivisionError) as caught:
        rc[0].apply_sync(outer, 21)
    monkeypatch.setattr("builtins.input", typed("p doubled", "up", "p n", "p nonsense", "interact"))
    rc.debug(caught.value)
    shown = capsys.readouterr().out
    assert shown.startswith("engine 0: ZeroDivisionError at test_hangs.py:")
    assert "(Pdb) 42\n" in shown
    assert "(Pdb) 21\n" in shown
    assert "NameError" in shown
    assert "this needs a terminal" in shown
    assert rc[0].apply_sync(abs, -1) == 1
