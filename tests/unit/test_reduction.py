"""Two values combined, and the order in which many are: by numpy's rules, by Python's, by the user's."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc import reduction
from hpc.client.reducing import causes


def reduce(values, op):
    return functools.reduce(lambda a, b: reduction.combine(a, b, op, spare=a), values)


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
def test_operations(op, numbers, arrays):
    assert reduce([1, 2, 3], op) == numbers
    parts = [np.array([1, 0], "i1"), np.array([0, 2], "i1"), np.array([3, 0], "i1")]
    back = reduce(parts, op)
    assert back.tolist() == arrays
    assert back.dtype == (bool if op in reduction.LOGICAL else "i1")
    masked = [np.ma.masked_array([1, 2], mask=[True, False]), np.ma.masked_array([3, 4])]
    assert np.ma.getmaskarray(reduce(masked, "sum")).tolist() == [True, False]


def test_other_things():
    assert reduce([[1], [2]], "sum") == [1, 2]
    assert reduce(["a", "b"], "max") == "b"
    assert reduce([np.array(1), np.array(2)], "sum") == 3
    assert reduce([np.ones(2), np.ones((3, 2))], "sum").shape == (3, 2)
    assert reduce([np.ones(2, "i4"), np.ones(2)], "sum").dtype == float
    dates = [np.array(["2020-01-01"], "M8[D]"), np.array(["2021-01-01"], "M8[D]")]
    assert reduce(dates, "max") == dates[1]
    days = np.array([1], "m8[D]")
    assert reduce([np.array(["2020-01-01"], "M8[D]"), days], "sum") == np.array(["2020-01-02"], "M8[D]")


def test_only_what_is_spare_is_written_to():
    left, right = np.ones(3), np.ones(3)
    assert reduction.combine(left, right, "sum", spare=left) is left
    assert reduction.combine(left, right, "sum") is not left
    assert left.tolist() == [2, 2, 2]
    assert right.tolist() == [1, 1, 1]
    left.flags.writeable = False
    assert reduction.combine(left, right, "sum", spare=left).tolist() == [3, 3, 3]
    assert left.tolist() == [2, 2, 2]


@pytest.mark.parametrize(("op", "error"), [("mean", ValueError), (3, TypeError), (None, TypeError)])
def test_what_is_no_operation(op, error):
    with pytest.raises(error, match="land"):
        reduction.check(op)


@given(st.integers(1, 70))
def test_a_tree_keeps_the_order_and_takes_everybody_in_once(n):
    values = [[i] for i in range(n)]
    for left, right in reduction.pairs(n):
        values[left] = values[left] + values[right]
        values[right] = None
    assert values[0] == list(range(n))
    assert len(reduction.pairs(n)) == n - 1


@given(st.integers(2, 40), st.data())
def test_only_causes_are_told(n, data):
    steps = [*reduction.pairs(n), (0, 0)]
    origin = data.draw(st.integers(0, len(steps) - 1))
    failed, ruined = [origin], {steps[origin][0]}
    for number in range(origin + 1, len(steps)):
        if not ruined.isdisjoint(steps[number]):
            failed.append(number)
            ruined.add(steps[number][0])
    assert causes(steps, failed) == [origin]
