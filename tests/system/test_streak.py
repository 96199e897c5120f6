"""A client that waits again and again keeps the connection to itself; who only listens is not forgotten meanwhile."""

import threading
from collections.abc import Iterator

import pytest

import hpc

from .conftest import DEADLINE_S


@pytest.fixture(params=["unix", "tcp"])
def rc(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> "Iterator[hpc.RemoteController]":
    with hpc.Cluster(n=2) as near:
        if request.param == "unix":
            yield near
            return
        monkeypatch.setattr("hpc.security.info.ConnectionInfo.is_local", lambda _: False)
        far = hpc.connect()
        assert far._connected().route == "tcp"
        yield far
        far.close()


def test_a_callback_comes_though_nobody_waits_any_more(rc: "hpc.RemoteController") -> None:
    for _ in range(20):
        for _ in range(10):  # a streak: the connection is lent to this thread
            assert rc[0].apply_sync(abs, -1) == 1
        called = threading.Event()
        rc[1].apply_async(abs, -2).add_done_callback(lambda _, called=called: called.set())  # type: ignore[misc]
        assert called.wait(DEADLINE_S)


def test_threads_take_turns_in_streaks(rc: "hpc.RemoteController") -> None:
    wrong: list[object] = []

    def work(target: int) -> None:
        wrong.extend(i for i in range(200) if rc[target].apply_sync(abs, -i) != i)

    threads = [threading.Thread(target=work, args=(i % 2,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), "a thread waits for ever"
    assert not wrong
