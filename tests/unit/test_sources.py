"""Tracebacks of code whose source only the client has."""

import linecache

import pytest

from hpc.client.sources import with_sources


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> str:
    name = "<cell 7>"
    code = "def f():\n    return 1 / 0\n"
    monkeypatch.setitem(linecache.cache, name, (len(code), None, code.splitlines(keepends=True), name))
    return name


def test_lines_that_are_missing_are_put_in(cell: str) -> None:
    given = f'Traceback (most recent call last):\n  File "{cell}", line 2, in f\nZeroDivisionError: division by zero\n'
    assert with_sources(given) == given.replace("in f\n", "in f\n    return 1 / 0\n")


def test_what_is_there_or_unknown_stays(cell: str) -> None:
    given = (
        'Traceback (most recent call last):\n  File "<somewhere>", line 1, in g\n'
        f'  File "{cell}", line 2, in f\n    another line\n    ~~~^~~\n'
        f'  File "{cell}", line 99, in h\nZeroDivisionError'
    )
    assert with_sources(given) == given
    assert with_sources("") == ""
