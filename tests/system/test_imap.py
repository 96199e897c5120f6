"""Maps over input that need not end."""

import itertools
from collections.abc import Iterator

import pytest

import hpc


@pytest.fixture
def lv() -> "Iterator[hpc.LoadBalancedView]":
    with hpc.Cluster(n=2) as rc:
        yield rc.load_balanced_view()


class Source:
    """Counts what was drawn of it."""

    def __init__(self) -> None:
        self.drawn = 0

    def __iter__(self) -> Iterator[int]:
        for i in itertools.count():
            self.drawn += 1
            yield i


def test_endless_input_is_drawn_as_values_are_taken(lv: "hpc.LoadBalancedView") -> None:
    source = Source()
    values = lv.imap(lambda x: x * x, source, max_outstanding=5)
    for i in range(100):
        assert next(values) == i * i
        assert source.drawn <= i + 1 + 5
    drawn = source.drawn
    values.cancel()
    assert source.drawn == drawn
    assert values._over


def test_unordered_values_come_as_they_are_there(lv: "hpc.LoadBalancedView") -> None:
    def slow_first(i: int) -> int:
        import time

        time.sleep(0.5 if i == 0 else 0)
        return i

    values = list(lv.imap(slow_first, range(20), ordered=False, max_outstanding=4))
    assert sorted(values) == list(range(20))
    assert values[0] != 0


def test_several_sequences_defaults_and_errors(lv: "hpc.LoadBalancedView") -> None:
    assert list(lv.imap(pow, [1, 2, 3], [2, 2, 2])) == [1, 4, 9]
    assert list(lv.imap(abs, range(-500, 0), max_outstanding=None)) == list(range(500, 0, -1))
    found = list(lv.imap(lambda x: 1 // x, [1, 0, 2], return_exceptions=True))
    assert found[0] == 1
    assert isinstance(found[1], ZeroDivisionError)
    values = lv.imap(lambda x: 1 // x, itertools.chain([1, 0], itertools.repeat(1)))
    assert next(values) == 1
    with pytest.raises(ZeroDivisionError):
        next(values)
    assert list(values) == [], "an error ends the map, also over endless input"
    with pytest.raises(ValueError, match="auto"):
        lv.imap(abs, [1], max_outstanding="many")
