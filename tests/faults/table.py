"""The fault table: what may go wrong, and what is promised then. One test a row."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True, slots=True)
class Row:
    """One fault and its promise; ``test`` names the function that checks it."""

    fault: str
    promise: str
    test: str


ROWS: list[Row] = []


def fault(name: str, promise: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a test the row of a fault."""

    def enter(test: Callable[..., Any]) -> Callable[..., Any]:
        ROWS.append(Row(name, promise, f"{test.__module__.rpartition('.')[2]}.{test.__name__}"))
        return pytest.mark.fault(test)

    return enter
