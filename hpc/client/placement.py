"""Moving objects between the client and engines: here, within messages (route ``inline``).

Everything that pushes, pulls, scatters and gathers comes through `push`, `push_parts` and `pull`, so that another way
for the data needs to be put in here only.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpc.client.asyncresult import AsyncResult
from hpc.client.bundle import Part, Placement
from hpc.client.calls import PULL, PUSH, dump_call
from hpc.client.groupresult import GroupResult

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
) -> GroupResult:
    """Have every target make the same call: one message, however many they are."""
    result = GroupResult(link, name, targets, combine, single)
    link.outbox.submit_each(Placement(targets), digest, dump_call(*call), Part(result, len(targets)))
    return result


def call_one(
    link: "Link", target: int, digest: bytes, call: tuple[tuple[Any, ...], Mapping[str, Any]], name: str
) -> AsyncResult:
    """Have one engine make a call."""
    result = AsyncResult(link, name, target)
    link.outbox.submit(link.placement(target), digest, dump_call(*call), result)
    return result


def push(link: "Link", targets: list[int], single: bool, names: Mapping[str, Any]) -> GroupResult:
    """Bind the same objects on every target."""
    return call_each(link, targets, PUSH, ((dict(names),), {}), f"push {', '.join(names)}", single=single)


def push_parts(link: "Link", targets: list[int], single: bool, name: str, parts: Sequence[Any]) -> GroupResult:
    """Bind one name on every target, to a part of its own."""
    result = GroupResult(link, f"scatter {name}", targets, None, single)
    for base, (target, part) in enumerate(zip(targets, parts, strict=True)):
        link.outbox.submit_each(Placement([target]), PUSH, dump_call(({name: part},), {}), Part(result, 1, base))
    return result


def pull(
    link: "Link", targets: list[int], single: bool, names: Sequence[str], combine: Callable[[list[Any]], Any]
) -> GroupResult:
    """Fetch the values of names from every target; each target's value is the list of them."""
    return call_each(
        link, targets, PULL, ((list(names),), {}), f"pull {', '.join(names)}", combine=combine, single=single
    )
