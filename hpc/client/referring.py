"""Arguments that are on engines: which of them have to be sent there by other engines."""

import pickle
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from hpc.client.bundle import Part, Placement
from hpc.client.calls import dump_call
from hpc.client.outbox import Outbox
from hpc.wire import messages as m
from hpc.wire import objects
from hpc.wire.objects import Reference

# Stands in every pickle of a reference: cheaper to look for than to look at each item.
_MARK: Final = Reference.__name__.encode()


def sources(args: Iterable[Any], kwargs: Mapping[str, Any], target: int = -1) -> Sequence[m.Source]:
    """Return which engines have what arguments refer to, except for the ``target`` itself, and what they have."""
    for value in chain(args, kwargs.values()) if kwargs else args:
        if type(value) is Reference:
            break
    else:
        return ()
    wanted: dict[int, dict[str, None]] = {}
    for value in chain(args, kwargs.values()):
        if type(value) is Reference and value.engine is not None and value.engine != target:
            wanted.setdefault(value.engine, {})[value.name] = None
    return [m.Source(engine, pickle.dumps(((list(names),), {}), 5)) for engine, names in wanted.items()]


def submit_columns(
    outbox: Outbox, placement: Placement, digest: bytes, columns: Sequence[Sequence[Any]], part: Part
) -> None:
    """Submit calls whose arguments are the items of columns: together, or one by one where items are on engines."""
    body = objects.dumps(columns)
    if (len(body) == 1 and _MARK not in body[0]) or not any(sources(column, {}) for column in columns):
        outbox.submit_span(placement, digest, body, part)
        return
    target = placement.targets[0] if placement.targets else -1
    for i, args in enumerate(zip(*columns, strict=True)):
        one = Part(part.taker, 1, part.base + i)
        outbox.submit_each(placement, digest, dump_call(args, {}), one, sources(args, {}, target))
