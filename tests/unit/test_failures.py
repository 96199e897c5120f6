"""Exceptions as bytes, and the errors people read: types, pickling, text."""

import builtins
import contextlib
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.errors import CompositeError, EngineLost, HpcError, ProtocolError, RemoteError, ranges
from hpc.wire import failures
from hpc.wire.failures import dump_error, load_error

WHERE = {"engine_id": 3, "rank": 1, "host": "node7"}


def travel(error, traceback="Traceback: ..."):
    return load_error(dump_error(error, traceback), **WHERE)


BUILT_INS = sorted(
    (k for k in vars(builtins).values() if isinstance(k, type) and issubclass(k, Exception)), key=lambda k: k.__name__
)


def example(kind):
    if issubclass(kind, UnicodeDecodeError):
        return kind("utf-8", b"x", 0, 1, "no")
    if issubclass(kind, UnicodeEncodeError):
        return kind("utf-8", "x", 0, 1, "no")
    if issubclass(kind, UnicodeTranslateError):
        return kind("x", 0, 1, "no")
    if issubclass(kind, BaseExceptionGroup):
        return kind("several", [ValueError(1)])
    return kind("what happened")


@pytest.mark.parametrize("kind", BUILT_INS, ids=lambda k: k.__name__)
def test_every_built_in_exception_is_caught_by_its_own_name(kind):
    error = travel(example(kind))
    assert isinstance(error, RemoteError)
    assert isinstance(error, kind)
    assert type(error).__name__ == error.ename == kind.__name__
    assert error.args
    back = pickle.loads(pickle.dumps(error))
    assert isinstance(back, kind)
    assert (back.ename, back.evalue, back.engine_id, back.rank) == (error.ename, error.evalue, 3, 1)


def test_what_it_says():
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError as error:
        remote = travel(error, "Traceback (most recent call last):\n  ...\nZeroDivisionError: division by zero\n")
    with pytest.raises(ZeroDivisionError) as caught:
        raise remote
    assert str(caught.value) == (
        "ZeroDivisionError: division by zero\n"
        "[engine 3 (rank 1 on node7)]\n"
        "Traceback (most recent call last):\n"
        "  ...\n"
        "ZeroDivisionError: division by zero"
    )
    assert (remote.evalue, remote.engine_id, remote.rank, remote.host) == ("division by zero", 3, 1, "node7")


def test_arguments_survive():
    assert travel(KeyError("k")).args == ("k",)
    error = travel(FileNotFoundError(2, "No such file", "/x/y"))
    assert error.args[0] == 2


def test_an_exception_of_an_installed_module_is_caught_as_that():
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    error = travel(caught.value)
    assert isinstance(error, ValueError)
    assert isinstance(error, RemoteError)
    assert error.ename == "JSONDecodeError"
    assert isinstance(travel(np.linalg.LinAlgError("Singular matrix")), np.linalg.LinAlgError)


class MeshError(LookupError):
    def __init__(self, a, b):
        super().__init__(f"{a}-{b}")


def test_a_class_whose_init_wants_more_arguments():
    error = travel(MeshError(1, 2))
    assert isinstance(error, (MeshError, LookupError))
    assert (error.ename, error.evalue) == ("MeshError", "1-2")


def test_a_class_that_only_the_engine_has_is_still_its_built_in_base():
    local = type("MeshError", (ArithmeticError,), {"__module__": "only.on.the.engine"})
    error = travel(local("negative volume"))
    assert isinstance(error, ArithmeticError)
    assert type(error).__name__ == "MeshError"


def test_a_class_of_main_is_not_taken_for_one_of_the_clients_main():
    local = type("MyError", (ValueError,), {"__module__": "__main__"})
    assert isinstance(travel(local("x")), ValueError)


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit])
def test_what_would_end_the_client_is_reported_and_not_raised_as_itself(kind):
    error = travel(kind(3))
    assert isinstance(error, RemoteError)
    assert not isinstance(error, kind)
    assert error.ename == kind.__name__


def test_a_keyboard_interrupt_stays_one():
    assert isinstance(travel(KeyboardInterrupt()), KeyboardInterrupt)


def test_arguments_that_cannot_be_pickled_become_text():
    error = travel(ValueError(lambda: 0))
    assert isinstance(error, ValueError)
    assert "lambda" in error.args[0]


def test_an_exception_whose_str_raises():
    class RudeError(RuntimeError):
        def __str__(self):
            raise KeyError

    error = travel(RudeError())
    assert isinstance(error, RuntimeError)
    assert error.evalue == "<str() of the exception raised KeyError>"


def test_huge_texts_keep_their_beginning_and_end(monkeypatch):
    monkeypatch.setattr(failures, "MAX_TEXT", 100)
    error = travel(ValueError("a" * 1000 + "z"), traceback="b" * 1000)
    assert error.evalue.startswith("aaa")
    assert error.evalue.endswith("az")
    assert "[...]" in error.evalue
    assert len(error.traceback) < 200


def test_lone_surrogates_in_a_text_do_not_stop_it():
    assert "?" in travel(ValueError("\ud800")).evalue


@given(st.text(), st.text())
def test_any_text(evalue, traceback):
    error = travel(RuntimeError(evalue), traceback)
    assert error.evalue == evalue.encode("utf-8", "replace").decode()
    assert isinstance(error, RuntimeError)


@given(st.binary(max_size=200))
def test_garbage_is_a_protocol_error_and_nothing_else(payload):
    with contextlib.suppress(ProtocolError):
        load_error(payload)


# ---------------------------------------------------------------- several at once


def fail(kind, text, engine_id, traceback="Traceback\n  at solve\n"):
    return load_error(dump_error(kind(text), traceback), engine_id=engine_id, rank=engine_id, host="n")


def test_a_composite_error_groups_what_is_alike():
    errors = {i: fail(ZeroDivisionError, "division by zero", i) for i in (0, 1, 2, 5)}
    errors[3] = fail(ValueError, "bad input", 3, "Traceback\n  at check\n")
    error = CompositeError(errors, "execute")
    assert str(error) == (
        "5 engines failed in execute:\n"
        "[engines 0-2,5: ranks 0-2,5 on n] ZeroDivisionError: division by zero\n"
        "    Traceback\n"
        "      at solve\n"
        "[engine 3: rank 3 on n] ValueError: bad input\n"
        "    Traceback\n"
        "      at check"
    )
    assert isinstance(error, HpcError)


def test_a_composite_error_gives_each_engines_own():
    error = CompositeError({4: fail(KeyError, "k", 4), 2: fail(ValueError, "v", 2)})
    assert len(error) == 2
    assert sorted(error) == [2, 4]
    assert isinstance(error[4], KeyError)
    with pytest.raises(ValueError, match="v"):
        error.raise_exception()
    with pytest.raises(KeyError):
        error.raise_exception(4)
    with pytest.raises(KeyError):
        error[0]


def test_a_composite_error_takes_errors_that_were_not_raised_by_code():
    lost = EngineLost("engine 1 (rank 1 on n) was killed by SIGKILL", engine_id=1, signal=9, reason="signal")
    text = str(CompositeError({1: lost}))
    assert "[engine 1: rank 0] EngineLost: engine 1 (rank 1 on n) was killed by SIGKILL" in text


@given(st.sets(st.integers(0, 60)))
def test_ranges_name_exactly_these_ids(ids):
    named = []
    for part in filter(None, ranges(sorted(ids)).split(",")):
        low, _, high = part.partition("-")
        named += range(int(low), int(high or low) + 1)
    assert named == sorted(ids)
