"""Asking where engines are."""

from typing import TYPE_CHECKING, Any

from hpc.security.host import hostname
from hpc.security.peek import peek
from hpc.wire import messages as m
from hpc.wire.stacks import SILENT, Stacks, user_frames

if TYPE_CHECKING:
    from hpc.client.link import Link


def stacks(link: "Link", ids: list[int] | None) -> Stacks:
    """Return the stacks of engines, by default of all."""
    arguments = {} if ids is None else {"targets": ids}
    rows: list[dict[str, Any]] = link.request(lambda number: m.Query(number, "stacks", arguments))
    return Stacks(completed(rows))


def completed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the controller's answer, with what can be seen from here of engines that did not answer."""
    here = hostname()
    for row in rows:
        found = peek(row["pid"]) if row["state"] == SILENT and row["host"] == here else None
        if found is not None:
            row["state"], row["frames"] = found[0], user_frames(found[1])
    return rows
