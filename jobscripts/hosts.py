"""Names of nodes as schedulers abbreviate them."""

import re
from typing import Final

__all__ = ["expand_hosts"]

_PART: Final = re.compile(r"[^,\[\]]*(?:\[[^\]]*\][^,\[\]]*)*")


def expand_hosts(text: str) -> tuple[str, ...]:
    """Return the names in a Slurm node list: ``n[1-2,7],login`` is n1, n2, n7, login; zeros in front are kept."""
    if text in ("", "(null)", "None assigned", "None"):
        return ()
    found: list[str] = []
    for part in _PART.findall(text):
        if part:
            found += _expand(part)
    return tuple(found)


def _expand(part: str) -> list[str]:
    head, bracket, rest = part.partition("[")
    if not bracket:
        return [part]
    inside, _, tail = rest.partition("]")
    numbers: list[str] = []
    for item in inside.split(","):
        first, dash, last = item.partition("-")
        if dash:
            numbers += [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
        else:
            numbers.append(first)
    return (
        [f"{head}{number}{end}" for number in numbers for end in _expand(tail)]
        if tail
        else [f"{head}{number}" for number in numbers]
    )
