"""Forgetting the names on an engine."""

import sys
from typing import Any

_FROM_THE_START = frozenset(("id", "rank", "size", "comm"))


def forget_names() -> None:
    """Forget the names of the engine but those that it had at the start. Runs there."""
    names = sys.modules["__main__"].__dict__
    keep: Any = _FROM_THE_START
    if "get_ipython" in names:  # and those that IPython's shell needs
        keep = keep | set(names["get_ipython"]().user_ns_hidden)
    for name in list(names):
        if not name.startswith("__") and name not in keep:
            del names[name]
