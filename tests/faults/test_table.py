"""The page of the manual says what the tests check, and nothing else."""

import re
from pathlib import Path

from . import test_engines, test_floods, test_frames, test_network, test_schedulers
from .table import ROWS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "faults.md"
MODULES = (test_network, test_frames, test_engines, test_floods, test_schedulers)


def test_the_manual_has_every_row() -> None:
    written = re.findall(r"^\| (?!what happens|---)(.+?) \| (.+?) \|$", PAGE.read_text(), re.MULTILINE)
    assert [row[0] for row in written] == [row.fault for row in _in_order()]
    assert [row[1] for row in written] == [row.promise for row in _in_order()]


def test_every_row_is_a_fault_of_its_own() -> None:
    assert len({row.fault for row in ROWS}) == len({row.test for row in ROWS}) == len(set(ROWS))
    for module in MODULES:
        tests = [name for name in vars(module) if name.startswith("test_")]
        entered = [row.test for row in ROWS if row.test.startswith(module.__name__.rpartition(".")[2] + ".")]
        assert len(tests) == len(set(entered)), f"{module.__name__}: a test without @fault"


def _in_order() -> list:  # type: ignore[type-arg]
    names = [module.__name__.rpartition(".")[2] for module in MODULES]
    rows = {row.test: row for row in ROWS}
    return sorted(rows.values(), key=lambda row: names.index(row.test.partition(".")[0]))
