"""Moving objects between the client and engines: what is asked of whom, whatever the route of the data.

Large buffers of the messages find their way below (`hpc.client.freight`); what a group does by MPI is chosen here.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from hpc.client import grouproute
from hpc.client.asyncresult import AsyncResult
from hpc.client.bundle import Part, Placement
from hpc.client.calls import BIND, PULL, PUSH, dump_call
from hpc.client.gathering import GatherResult
from hpc.client.groupresult import GroupResult
from hpc.client.parts import Layout, join
from hpc.client.reducing import ReduceResult
from hpc.client.referring import sources
from hpc.reduction import Operation
from hpc.wire.objects import Reference

if TYPE_CHECKING:
    from hpc.client.link import Link

SHARE = b"!share"


def place(link: "Link", target: int, route: str | None) -> Placement:
    """Return where the tasks of one engine run: the same object each time, by which bundles form, unless forced."""
    return link.placement(target) if route is None else Placement([target], route=route)


def call_each(
    link: "Link",
    targets: list[int],
    digest: bytes,
    call: tuple[tuple[Any, ...], Mapping[str, Any]],
    name: str,
    *,
    combine: Callable[[list[Any]], Any] | None = None,
    single: bool = False,
    route: str | None = None,
) -> GroupResult:
    """Have every target make the same call: one message, however many they are."""
    result = GroupResult(link, name, targets, combine, single)
    everywhere, part = Placement(targets, route=route), Part(result, len(targets))
    link.outbox.submit_each(everywhere, digest, dump_call(*call), part, sources(*call))
    return result


def call_one(
    link: "Link",
    target: int,
    digest: bytes,
    call: tuple[tuple[Any, ...], Mapping[str, Any]],
    name: str,
    *,
    route: str | None = None,
) -> AsyncResult:
    """Have one engine make a call."""
    elsewhere = sources(*call, target)
    if elsewhere:
        group = GroupResult(link, name, [target], itemgetter(0), single=True)
        link.outbox.submit_each(place(link, target, route), digest, dump_call(*call), Part(group, 1), elsewhere)
        return group
    result = AsyncResult(link, name, target)
    link.outbox.submit(place(link, target, route), digest, dump_call(*call), result)
    return result


def push(
    link: "Link", targets: list[int], single: bool, names: Mapping[str, Any], *, route: str | None = None
) -> GroupResult:
    """Bind the same objects on every target; those of other engines go there without coming here."""
    elsewhere = sources(names.values(), {})
    holders = {value.engine for value in names.values()} if elsewhere and all(map(_is_far, names.values())) else set()
    if len(holders) == 1 and holders <= set(targets) and grouproute.applicable(link, targets, None, route):
        return _share(link, targets, holders.pop(), names, single)
    if not elsewhere and grouproute.applicable(link, targets, None, route):
        together = grouproute.push(link, targets, names, single=single, route=route)
        if together is not None:
            return together
    result = GroupResult(link, f"push {', '.join(names)}", targets, None, single)
    everywhere, part = Placement(targets, route=route), Part(result, len(targets))
    link.outbox.submit_each(everywhere, operation(names), dump_call((dict(names),), {}), part, elsewhere)
    return result


def _is_far(value: Any) -> bool:
    return type(value) is Reference and value.engine is not None


def _share(link: "Link", targets: list[int], holder: int, names: Mapping[str, Any], single: bool) -> GroupResult:
    """Have the ranks of a group get what one of them has, by MPI."""
    result = grouproute.TeamResult(link, f"push {', '.join(names)}", targets, None, single)
    ranks = [link.roster.engines[target].rank for target in targets]
    body = dump_call((ranks, targets.index(holder), {new: value.name for new, value in names.items()}), {})
    link.outbox.submit_each(Placement(targets), SHARE, body, Part(result, len(targets)))
    return result


def push_parts(
    link: "Link", targets: list[int], single: bool, name: str, parts: Sequence[Any], *, route: str | None = None
) -> GroupResult:
    """Bind one name on every target, to a part of its own."""
    if grouproute.applicable(link, targets, None, route):
        together = grouproute.scatter(link, targets, name, parts, single=single, route=route)
        if together is not None:
            return together
    result = GroupResult(link, f"scatter {name}", targets, None, single)
    for base, (target, part) in enumerate(zip(targets, parts, strict=True)):
        body = dump_call(({name: part},), {})
        how = operation({name: part})
        link.outbox.submit_each(place(link, target, route), how, body, Part(result, 1, base))
    return result


def operation(names: Mapping[str, Any]) -> bytes:
    """Return what binds names to objects: plain arrays can be unpickled before their bytes are there."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or any("." in name for name in names):
        return PUSH
    plain = all(
        # What is read-only is copied when it is unpickled, to be writable.
        type(value) is numpy.ndarray and value.flags.writeable and not value.dtype.hasobject
        for value in names.values()
    )
    return BIND if plain else PUSH


def pull(
    link: "Link",
    targets: list[int],
    single: bool,
    names: Sequence[str],
    combine: Callable[[list[Any]], Any],
    *,
    route: str | None = None,
) -> GroupResult:
    """Fetch the values of names from every target; each target's value is the list of them."""
    title = f"pull {', '.join(names)}"
    return call_each(link, targets, PULL, ((list(names),), {}), title, combine=combine, single=single, route=route)


def reduce(
    link: "Link", targets: list[int], single: bool, name: str, op: Operation, *, route: str | None = None
) -> GroupResult:
    """Return what a name means on the targets, combined into one value."""
    if grouproute.applicable(link, targets, None, route):
        return grouproute.reduce(link, targets, name, op, single=single)
    return ReduceResult(link, targets, single, name=name, op=op, route=route)


def gather_into(
    link: "Link", targets: list[int], single: bool, name: str, layout: Layout, *, route: str | None = None
) -> GroupResult:
    """Fetch the parts that a name has on the targets, and put them together, where possible in one buffer."""
    if grouproute.applicable(link, targets, None, route):
        in_a_row = layout.dist == "block" and layout.axis == 0 and not layout.flatten and layout.kind in ("", "array")
        return grouproute.gather(
            link, targets, name, lambda parts: join(parts, layout), concatenate=in_a_row, single=single
        )
    return GatherResult(
        link, targets, single, name=name, layout=layout, join=lambda parts: join(parts, layout), route=route
    )
