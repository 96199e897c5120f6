"""The bar that shows long transfers."""

import sys
import threading
import types

import pytest

from hpc.client import progress
from hpc.client.outcome import Reply
from hpc.client.progress import Transfer
from hpc.transport.meter import meter


class Slow:
    """A result of two tasks that takes a while."""

    _name = "scatter x"

    def __init__(self, nbytes, ticks):
        self.mark = types.SimpleNamespace(nbytes=nbytes)
        self.ticks = ticks

    def wait(self, timeout):
        self.ticks -= 1
        return self.ticks < 0

    def _slots(self):
        return [(0, Reply.__new__(Reply) if self.ticks < 1 else None, 0), (1, None, 0)]

    def _marks(self):
        return [self.mark]

    def _route(self, _reply):
        return "shm"


class Bar:
    def __init__(self, **options):
        self.n, self.texts, self.closed = 0, [], False
        self.total = options["total"]
        bars.append(self)

    def set_postfix_str(self, text, refresh):
        self.texts.append(text)

    def update(self, n):
        self.n += n

    def close(self):
        self.closed = True


bars = []


@pytest.fixture(autouse=True)
def faketqdm(monkeypatch):
    bars.clear()
    monkeypatch.setitem(sys.modules, "tqdm.auto", types.SimpleNamespace(tqdm=Bar))
    monkeypatch.setattr(Reply, "frames", [b"", b"x" * 1000])


@pytest.fixture(autouse=True)
def long_ago(monkeypatch):
    """Let transfers be long ones: they have begun two seconds ago."""
    monkeypatch.setattr(progress, "SHOW_AFTER_S", -1.0)


def test_a_long_transfer_shows_what_engines_have_answered():
    with Transfer("scatter x") as transfer:
        transfer.follow(Slow(10**9, 3))
    (bar,) = bars
    assert bar.closed
    assert bar.n == 5 * 10**8 + 1000
    assert bar.total == 10**9 + 2000
    assert bar.texts[-1].endswith(" GB/s, shm")


def test_bytes_within_one_message_are_seen_by_whoever_moves_them(monkeypatch):
    monkeypatch.setattr(progress, "TICK_S", 0.0)
    with Transfer("push x", 100 << 20) as transfer:
        for _ in range(10):
            thread = threading.Thread(target=meter.count, args=(10 << 20,))
            thread.start()
            thread.join()
        (bar,) = bars
        assert len(bar.texts) == 10
        assert (bar.n, bar.total) == (100 << 20, 100 << 20)
        assert transfer.measure() == (100 << 20, 100 << 20, "")
        assert not bar.closed
    assert bar.closed
    assert not meter.watchers
    meter.count(5)
    assert len(bar.texts) == 10


def test_what_was_announced_is_the_total():
    with Transfer("pull x") as transfer:
        meter.expect(64 << 20, "tcp")
        meter.count(16 << 20)
        assert transfer.measure() == (64 << 20, 16 << 20, "tcp")
    assert (bars[0].n, bars[0].total) == (16 << 20, 64 << 20)


def test_short_small_and_unwanted_ones_show_none(monkeypatch):
    with Transfer("push x", is_shown=False) as transfer:
        assert not meter.watchers
        transfer.follow(Slow(10**9, 3))
    with Transfer("push x") as transfer:
        transfer.follow(Slow(10**6, 3))
    monkeypatch.setattr(progress, "SHOW_AFTER_S", 60.0)
    with Transfer("push x") as transfer:
        meter.expect(10**9)
        meter.count(10**9)
        transfer.follow(Slow(10**9, 0))
    assert not bars


def test_a_bar_is_closed_when_the_wait_is_interrupted():
    result = Slow(10**9, 10)
    result._route = lambda _: 1 / 0 if result.ticks < 5 else "tcp"
    with pytest.raises(ZeroDivisionError), Transfer("push x") as transfer:
        transfer.follow(result)
    assert bars[0].closed
    assert not meter.watchers
