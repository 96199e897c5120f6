"""The path to what cannot be pickled."""

import functools
import pickle
import threading

import cloudpickle
import pytest

from hpc.wire import blame

LOCK = threading.Lock()


class Thing:
    """Holds something."""

    def __init__(self, part):
        self.size = 3
        self.part = part

    def method(self):
        """Do nothing."""


def closing_over(thing):
    return lambda: thing


@pytest.mark.parametrize(
    ("obj", "path"),
    [
        (LOCK, ""),
        ([1, LOCK], "[1]"),
        ({"a": {"b": (0, LOCK)}}, "['a']['b'][1]"),
        (Thing([LOCK]), ".part[0]"),
        (((Thing({"x": LOCK}),), {}), "[0][0].part['x']"),
        (functools.partial(print, LOCK), ".args[0]"),
        (closing_over(Thing(LOCK)), " variable 'thing' of closing_over.<locals>.<lambda>.part"),
        (Thing(LOCK).method, ".__self__.part"),
    ],
)
def test_paths(obj, path):
    found, part, error = blame.find(obj, cloudpickle.dumps)
    assert found == path
    assert part is LOCK
    assert isinstance(error, TypeError)


def test_what_contains_itself_and_what_is_endless():
    obj = [LOCK]
    obj.append(obj)
    assert blame.find(obj, pickle.dumps)[:2] == ("[0]", LOCK)
    many = [Thing(i) for i in range(5000)] + [LOCK]
    path, part, error = blame.find(many, pickle.dumps)
    assert path == ""
    assert part is many
    assert error is not None


def test_what_can_be_pickled():
    assert blame.find([1, 2], pickle.dumps) == ("", [1, 2], None)
