"""New processes for engines, under the same ids."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hpc.errors import ranges
from hpc.wire import messages as m

if TYPE_CHECKING:
    from hpc.client.link import Link


def restart(link: "Link", targets: int | Iterable[int] | str, timeout_s: float | None) -> None:
    """Have the groups of engines, also of some that have ended, started anew; return when they are there.

    Raises
    ------
    HpcError
        They cannot be: there is no supervisor, or it has not started them.
    TimeoutError
        They are not there after ``timeout_s``.
    """
    if isinstance(targets, str):
        ids = list(link.roster.engines)
    else:
        ids = [targets] if isinstance(targets, int) else [int(target) for target in targets]
    before = {number: row.group for number, row in link.roster.engines.items()}
    old = set(link.request(lambda number: m.Order(number, "restart", {"targets": ids})))

    def is_back() -> bool:
        engines = link.roster.engines
        if any(row.group in old for row in engines.values()):
            return False
        return all(number in engines for number in (*ids, *(n for n, group in before.items() if group in old)))

    if not link.wait(is_back, timeout_s):
        missing = ranges(sorted(set(ids) - set(link.roster.engines)))
        raise TimeoutError(f"the new processes of engines {missing or ranges(ids)} have not come in {timeout_s:g} s")
