"""Arrays that are announced before they are copied, between real processes: who waits for whom, and who may die."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import hpc
from hpc.dataplane import handover
from hpc.errors import EngineLost

from .conftest import wait_until
from .test_shm import controller_pid, segments_of

MIB = 1 << 20


@pytest.fixture
def rc() -> "Iterator[hpc.RemoteController]":
    with hpc.Cluster(n=3) as rc:
        yield rc


def warm(rc: "hpc.RemoteController") -> None:
    """Wait until there is warm memory for what is sent first."""
    assert rc.ids
    wait_until(lambda: not rc._link.freight.outgoing.pool.wanted, "warm memory", 10)


def test_the_first_array_finds_warm_memory(rc: "hpc.RemoteController", monkeypatch: pytest.MonkeyPatch) -> None:
    warm(rc)
    array = np.arange(4 * MIB)
    lent, hand_over = list[Any](), handover.HandOver.finish
    monkeypatch.setattr(handover.HandOver, "finish", lambda self: (lent.append(self._loan), hand_over(self))[1])
    rc[0].push({"x": array})
    array[:] = 0
    assert np.array_equal(rc[0]["x"], np.arange(4 * MIB))
    assert [(loan.warm, loan.late) for loan in lent] == [(True, True)]


def test_the_engine_answers_while_the_array_is_copied(
    rc: "hpc.RemoteController", monkeypatch: pytest.MonkeyPatch
) -> None:
    warm(rc)
    copy, gate = handover.copy, threading.Event()

    def copy_late(*args: Any) -> None:
        assert gate.wait(20)
        copy(*args)

    rc[0].execute("x = 1")
    monkeypatch.setattr(handover, "copy", copy_late)
    pushing = threading.Thread(target=rc[0].push, args=({"x": np.arange(4 * MIB)},))
    pushing.start()
    wait_until(lambda: rc.queue_status()[0]["completed"] >= 2, "the answer", 10)
    looking = rc[0].pull("x", block=False)
    with pytest.raises(TimeoutError):
        looking.get(timeout=0.2)
    assert pushing.is_alive(), "the array is the caller's again when it has been copied"
    gate.set()
    pushing.join(20)
    assert np.array_equal(looking.get(timeout=20), np.arange(4 * MIB)), "and nobody sees it before that"


def test_a_client_that_is_killed_while_it_copies(rc: "hpc.RemoteController") -> None:
    rc[0].execute("z = 1")
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            with hpc.RemoteController() as mine:
                warm(mine)
                handover.copy = lambda *_: (os.write(writer, b"x"), signal.pause())  # type: ignore[assignment]
                mine[0].push({"z": np.full(4 * MIB, 7)})
        finally:
            os._exit(1)
    assert os.read(reader, 1) == b"x"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reader)
    os.close(writer)
    assert rc[0].pull("z") == 1, "half an array is none"
    wait_until(lambda: not segments_of(controller_pid(rc)), "the controller's last descriptor", 10)


def test_an_engine_that_is_killed_while_its_array_is_copied(
    rc: "hpc.RemoteController", monkeypatch: pytest.MonkeyPatch
) -> None:
    warm(rc)
    pid, copy = rc[2].apply_sync(os.getpid), handover.copy

    def kill(*args: Any) -> None:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: 2 not in rc.ids, "the end of the engine", 10)
        copy(*args)

    monkeypatch.setattr(handover, "copy", kill)
    with contextlib.suppress(EngineLost):  # it may have answered before
        rc[2].push({"x": np.ones(4 * MIB)})
    monkeypatch.undo()
    rc[0].push({"x": np.ones(4 * MIB)})
    assert rc[0]["x"].sum() == 4 * MIB
