"""Moving objects between the client and engines: here, within messages (route ``inline``).

Everything that pushes, pulls, scatters and gathers comes through `push`, `push_parts` and `pull`, so that another way
for the data needs to be put in here only.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpc.client import grouproute, reducing
from hpc.client.asyncresult import AsyncResult
from hpc.client.bundle import Part, Placement
from hpc.client.calls import PULL, PUSH, dump_call
from hpc.client.gathering import GatherResult
from hpc.client.groupresult import GroupResult
from hpc.client.parts import Layout, join
from hpc.wire.objects import Reference

if TYPE_CHECKING:
    from hpc.client.link import Link


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
    link.outbox.submit_each(Placement(targets, route=route), digest, dump_call(*call), Part(result, len(targets)))
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
    result = AsyncResult(link, name, target)
    place = link.placement(target) if route is None else Placement([target], route=route)
    link.outbox.submit(place, digest, dump_call(*call), result)
    return result


def push(
    link: "Link", targets: list[int], single: bool, names: Mapping[str, Any], *, route: str | None = None
) -> GroupResult:
    """Bind the same objects on every target; those of other engines go there without coming here."""
    title = f"push {', '.join(names)}"
    here = {name: value for name, value in names.items() if type(value) is not Reference or value.engine is None}
    if len(here) == len(names):
        if grouproute.applicable(link, targets, None, route):
            together = grouproute.push(link, targets, here, single=single, route=route)
            if together is not None:
                return together
        return call_each(link, targets, PUSH, ((here,), {}), title, single=single, route=route)
    there: dict[int, dict[str, str]] = {}
    for name, value in names.items():
        if name not in here:
            there.setdefault(value.engine, {})[name] = value.name
    n, times = len(targets), len(there) + bool(here)
    result = GroupResult(link, title, targets * times, lambda values: values[:n], single)
    place = Placement(targets, route=route)
    if here:
        link.outbox.submit_each(place, PUSH, dump_call((here,), {}), Part(result, n, n * len(there)))
    for i, (engine, wanted) in enumerate(there.items()):
        link.outbox.submit_from(engine, place, PUSH, dump_call((wanted,), {}), Part(result, n, n * i))
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
        place = Placement([target], route=route)
        link.outbox.submit_each(place, PUSH, dump_call(({name: part},), {}), Part(result, 1, base))
    return result


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
    link: "Link", targets: list[int], single: bool, name: str, op: reducing.Operation, *, route: str | None = None
) -> GroupResult:
    """Fetch what a name means on the targets, combined into one value."""
    if grouproute.applicable(link, targets, None, route):
        return grouproute.reduce(link, targets, name, op, single=single)

    def combine(values: list[list[Any]]) -> Any:
        return reducing.reduce([value for (value,) in values], op)

    title = f"reduce {name}"
    return call_each(link, targets, PULL, (([name],), {}), title, combine=combine, single=single, route=route)


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
