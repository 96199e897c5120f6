"""Where teams can be: the hosts of a group, or the whole of it; and which engines of a place are to be one."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from hpc.controller.engines import Engine, Group


class Place(NamedTuple):
    """Engines of one group, by rank: those on one host, or all."""

    engines: list[Engine]
    is_one_host: bool


def places_of(groups: Iterable[Group]) -> Iterator[Place]:
    """Return the hosts of each group, and the whole of those that are on several."""
    for group in groups:
        if group.visible and not group.doomed:
            living = group.living()
            by_host: dict[str, list[Engine]] = defaultdict(list)
            for engine in living:
                by_host[engine.info.host].append(engine)
            for engines in by_host.values():
                yield Place(engines, True)
            if len(by_host) > 1:
                yield Place(living, False)


def choose(engines: list[Engine], free: set[int], n: int, is_one_host: bool) -> list[Engine]:
    """Return ``n`` of those that are free, by rank: whole blocks where possible, so that the same meet again."""
    for start in range(0, len(engines) - n + 1, n):
        block = engines[start : start + n]
        if all(engine.id in free for engine in block):
            return block
    there = [engine for engine in engines if engine.id in free]
    if not is_one_host:  # as few hosts as possible
        by_host: dict[str, list[Engine]] = defaultdict(list)
        for engine in there:
            by_host[engine.info.host].append(engine)
        there = [engine for some in sorted(by_host.values(), key=len, reverse=True) for engine in some]
    return sorted(there[:n], key=lambda engine: engine.info.rank)
