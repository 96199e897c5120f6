"""What tasks wait for, as a set of names, and as the controller is told of it."""

import threading
from types import SimpleNamespace

import pytest

import hpc
from hpc.client.asyncresult import AsyncResult
from hpc.client.outcome import Loss
from hpc.errors import DependencyError
from hpc.wire import messages as m


def make_link(next_number=100):
    hello = SimpleNamespace(session="0123456789abcdef")
    return SimpleNamespace(
        lock=threading.RLock(), peer=SimpleNamespace(hello=hello), outbox=SimpleNamespace(next_number=next_number)
    )


def result(link, number, *, failed=None, engine=-1):
    ar = AsyncResult(link, "f")
    ar._number = number
    if failed is not None:
        ar._outcome = SimpleNamespace(failed=lambda _: failed, engine=engine)
    return ar


@pytest.mark.parametrize(
    ("all_", "failure", "completed", "failed", "met", "lost"),
    [
        (True, False, "ab", "", True, False),
        (True, False, "a", "", False, False),
        (True, False, "a", "b", False, True),
        (False, False, "a", "b", True, False),
        (False, False, "", "ab", False, True),
        (True, True, "a", "b", True, False),
    ],
)
def test_when_it_is_met(all_, failure, completed, failed, met, lost):
    dependency = hpc.Dependency(["a", "b"], all_, True, failure)
    assert dependency.check(set(completed), set(failed)) is met
    assert dependency.unreachable(set(completed), set(failed)) is lost


def test_it_can_be_copied_and_read_again():
    dependency = hpc.Dependency(["a"], all=False, success=False, failure=True)
    again = hpc.Dependency(dependency.as_dict())
    assert again == dependency
    assert (again.all, again.success, again.failure) == (False, False, True)
    assert repr(again) == "<Dependency on failure of any of 1 tasks>"
    with pytest.raises(ValueError, match="successes, failures"):
        hpc.Dependency(["a"], success=False)
    with pytest.raises(TypeError, match="3"):
        hpc.Dependency([3])


def test_what_is_known_here_need_not_be_asked():
    link = make_link()
    results = [result(link, 1, failed=False, engine=4), result(link, 2, failed=True, engine=5), result(link, 3)]
    results += [result(link, 4), result(link, 7)]
    after = hpc.Dependency(results).to_message(link)
    assert after == m.After([(3, 5), (7, 8)], good=1, bad=1, engines=[4])
    either = hpc.Dependency(results[:2], failure=True).to_message(link)
    assert (either.good, either.bad, sorted(either.engines)) == (2, 0, [4, 5])


def test_names_are_those_of_this_client():
    link = make_link()
    assert hpc.Dependency("01234567-99").to_message(link).tasks == [(99, 100)]
    for name in ("01234567-100", "01234567-0", "76543210-1", "12345", "01234567-x"):
        with pytest.raises(DependencyError, match=name):
            hpc.Dependency(name).to_message(link)
    with pytest.raises(DependencyError, match="another client"):
        hpc.Dependency(result(make_link(), 1)).to_message(link)


def test_a_result_that_never_came_is_a_failure():
    link = make_link()
    ar = result(link, 1)
    ar._outcome = Loss(lambda: DependencyError("no"), -1, "failed", 0.0)
    after = hpc.Dependency(ar).to_message(link)
    assert (after.good, after.bad, after.engines) == (0, 1, [])
