"""Reductions at the client, and the bar that shows long transfers."""

import sys
import time
import types

import numpy as np
import pytest

from hpc.client import progress, reducing
from hpc.client.outcome import Reply


@pytest.mark.parametrize(
    ("op", "numbers", "arrays"),
    [
        ("sum", 6, [4, 2]),
        ("prod", 6, [0, 0]),
        ("max", 3, [3, 2]),
        ("min", 1, [0, 0]),
        ("land", True, [False, False]),
        ("lor", True, [True, True]),
        (lambda a, b: a - b, -4, [-2, -2]),
    ],
)
def test_reduce(op, numbers, arrays):
    assert reducing.reduce([1, 2, 3], op) == numbers
    parts = [np.array([1, 0], "i1"), np.array([0, 2], "i1"), np.array([3, 0], "i1")]
    back = reducing.reduce(parts, op)
    assert back.tolist() == arrays
    assert back.dtype == (bool if op in ("land", "lor") else "i1")
    masked = [np.ma.masked_array([1, 2], mask=[True, False]), np.ma.masked_array([3, 4])]
    assert np.ma.getmaskarray(reducing.reduce(masked, "sum")).tolist() == [True, False]


def test_reduce_of_one_and_of_other_things():
    assert reducing.reduce([7], "sum") == 7
    assert reducing.reduce([7], "land") is True
    assert reducing.reduce([np.array([2, 0])], "lor").tolist() == [True, False]
    assert reducing.reduce([[1], [2]], "sum") == [1, 2]
    assert reducing.reduce(["a", "b"], "max") == "b"
    assert reducing.reduce([np.array(1), np.array(2)], "sum") == 3
    assert reducing.reduce([np.ones(2), np.ones((3, 2))], "sum").shape == (3, 2)
    assert reducing.reduce([np.ones(2, "i4"), np.ones(2)], "sum").dtype == float
    dates = [np.array(["2020-01-01"], "M8[D]"), np.array(["2021-01-01"], "M8[D]")]
    assert reducing.reduce(dates, "max") == dates[1]


@pytest.mark.parametrize(("op", "error"), [("mean", ValueError), (3, TypeError), (None, TypeError)])
def test_what_is_no_operation(op, error):
    with pytest.raises(error, match="land"):
        reducing.check(op)


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


def test_a_long_transfer_shows_a_bar():
    progress.follow(Slow(10**9, 3), time.monotonic() - 2)
    (bar,) = bars
    assert bar.closed
    assert bar.n == 5 * 10**8 + 1000
    assert bar.total == 10**9 + 2000
    assert bar.texts[-1].endswith(" GB/s, shm")


def test_short_and_small_ones_show_none():
    progress.follow(Slow(10**9, 0), time.monotonic())
    progress.follow(Slow(10**6, 3), time.monotonic() - 2)
    assert not bars


def test_a_bar_is_closed_when_the_wait_is_interrupted():
    result = Slow(10**9, 10)
    result._route = lambda _: 1 / 0 if result.ticks < 5 else "tcp"
    with pytest.raises(ZeroDivisionError):
        progress.follow(result, time.monotonic())
    assert bars[0].closed
