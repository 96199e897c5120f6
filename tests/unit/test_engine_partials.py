"""What engines keep of reductions, and for how long."""

import numpy as np
import pytest

from hpc.engine.current import Identity
from hpc.engine.namespace import Namespace
from hpc.engine.partials import MAX_KEPT, Partials
from hpc.errors import HpcError

KIB = 1024


@pytest.fixture
def namespace():
    return Namespace(Identity())


def test_large_values_are_kept_small_ones_are_given(namespace):
    partials = Partials(namespace)
    namespace.push({"a": np.ones(KIB), "s": [1, 2], "l": {"deep": [np.ones(KIB)]}})
    assert partials.offer("!t", "s", KIB) == (False, [1, 2])
    assert partials.offer("!t", "a", KIB) == (True, None)
    assert namespace.lookup("!t") is namespace.names["a"]
    assert not namespace.kept, "it is looked up once"
    assert partials.offer("!t", "l", KIB) == (True, None)
    with pytest.raises(NameError, match="nothing"):
        partials.offer("!t", "nothing", KIB)


def test_the_users_array_is_not_written_to_and_the_partial_result_is(namespace):
    partials = Partials(namespace)
    namespace.push({"a": np.ones(KIB)})
    partials.offer("!t", "a", 1)
    partials.combine("!t", "sum", np.ones(KIB))
    first = namespace.kept["!t"]
    partials.combine("!t", "sum", np.ones(KIB))
    assert namespace.kept["!t"] is first
    assert (first == 3).all()
    assert (namespace.names["a"] == 1).all()


def test_what_failed_or_was_dropped_is_gone(namespace):
    partials = Partials(namespace)
    namespace.push({"a": np.ones(KIB)})
    partials.offer("!t", "a", 1)
    with pytest.raises(ZeroDivisionError):
        partials.combine("!t", lambda a, b: 1 / 0, None)
    with pytest.raises(HpcError, match="an earlier step failed"):
        partials.combine("!t", "sum", None)
    partials.offer("!t", "a", 1)
    partials.drop("!t")
    partials.drop("!t")
    assert not namespace.kept
    for i in range(MAX_KEPT + 5):
        partials.offer(f"!{i}", "a", 1)
    assert len(namespace.kept) == MAX_KEPT
    assert "!4" not in namespace.kept
