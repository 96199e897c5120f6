"""What functions display on engines comes back in `AsyncResult.outputs`, as what cells display does."""

from collections.abc import Iterator
from typing import Any

import pytest

import hpc

pytest.importorskip("IPython", reason="it is IPython's display() that is tested")


@pytest.fixture
def rc() -> "Iterator[hpc.RemoteController]":
    with hpc.Cluster(n=2) as rc:
        yield rc


def show(text: str) -> None:
    """Display something as HTML, and as text."""
    from IPython.display import HTML, display

    print("printed")
    display(HTML(f"<b>{text}</b>"))  # type: ignore[no-untyped-call]
    display(5)  # type: ignore[no-untyped-call]


def show_and_fail() -> None:
    """Display something, and raise."""
    show("before")
    raise ValueError("after")


def mimes(outputs: Any) -> list[set[str]]:
    """Return what each output can be shown as."""
    return [set(output["data"]) for output in outputs]


EXPECTED = [{"text/plain", "text/html"}, {"text/plain"}]


def test_functions_display_on_engines_that_never_ran_a_cell(rc: "hpc.RemoteController") -> None:
    assert rc[:].apply(lambda: "IPython" in __import__("sys").modules) == [False, False]
    ar = rc[:].apply_async(show, "x")
    ar.get(60)
    assert [mimes(outputs) for outputs in ar.outputs] == [EXPECTED, EXPECTED]
    assert ar.outputs[1][0]["data"]["text/html"] == "<b>x</b>"
    assert ar.stdout == ["printed\n", "printed\n"], "text that is displayed is not printed as well"


def test_each_task_has_what_it_displayed(rc: "hpc.RemoteController") -> None:
    lv = rc.load_balanced_view()
    first, second = (lv.apply_async(show, text) for text in "ab")
    for result, text in ((first, "a"), (second, "b")):
        result.get(60)
        assert result.outputs[0]["data"]["text/html"] == f"<b>{text}</b>"
    quiet = lv.apply_async(abs, -1)
    assert quiet.get(20) == 1
    assert quiet.outputs == []
    mapped = lv.map_async(show, "abcdefgh")
    mapped.get(60)
    assert sum(map(mimes, mapped.outputs), []) == EXPECTED * 8


def test_what_was_displayed_before_an_error_is_not_lost(rc: "hpc.RemoteController") -> None:
    failed = rc[0].apply_async(show_and_fail)
    assert isinstance(failed.exception(60), ValueError)
    assert mimes(failed.outputs) == EXPECTED
    cell = rc[0].execute("from IPython.display import display\ndisplay(7)\n1 / 0", block=False)
    assert isinstance(cell.exception(60), ZeroDivisionError)
    assert mimes(cell.outputs) == [{"text/plain"}]
    assert rc[0].execute("8").outputs[0]["data"]["text/plain"] == "8"


def test_display_outputs_shows_it(rc: "hpc.RemoteController", capsys: pytest.CaptureFixture[str]) -> None:
    rc[:].apply_async(show, "x").display_outputs()
    shown = capsys.readouterr().out
    assert shown.startswith("[stdout:0] printed\n[stdout:1] printed\n")
    assert "display[0-1]: 5\n" in shown or shown.count(": 5\n") == 2
