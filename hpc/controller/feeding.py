"""Work whose arguments are the result of a task on another engine: data goes from engine to engine, past the client.

The task that makes the arguments is a bundle of its own, the *source*. What it feeds is queued at once, so that the
order of direct work stays that of submission, and holds up its engines until the source has ended. No two can wait for
each other: a source is always queued before what it feeds, and queues are served in order.
"""

from typing import TYPE_CHECKING

from hpc.controller.bundles import Bundle, Client
from hpc.controller.events import Deliver, Frames
from hpc.errors import ProtocolError
from hpc.wire import codec
from hpc.wire import messages as m

if TYPE_CHECKING:
    from hpc.controller.engines import Engine
    from hpc.controller.queues import Queues

EXPORT = b"!export"


def add_source(queues: "Queues", client: Client, submit: m.Submit, bundle: Bundle, now: float) -> None:
    """Queue the task whose result will be the body of a bundle; the bundle is to be queued next."""
    number = submit.first + submit.count
    call = m.Submit(number, 1, m.Kind.CALLS, [EXPORT], [submit.source], submit.submitted, route=submit.route)
    source = Bundle(client, call, bundle.body, (), None)
    source.feeds, bundle.body, bundle.awaits = bundle, (), True
    client.bundles[number] = source
    queues.place(source, call.targets, now)


def feed(queues: "Queues", source: Bundle, engine: "Engine", message: m.Results, frames: Frames) -> None:
    """Hand the result of a source on; if it failed, that is the answer of everything that waits for it."""
    bundle = source.feeds
    assert bundle is not None  # noqa: S101 - for the type checker
    if message.failed:
        for start, stop in _withdraw(queues, bundle):
            bundle.ended(stop - start)
            for offset in range(start, stop):
                item = m.Delivered(bundle.first, offset, offset + 1, engine.id, message.packed, len(frames))
                if not bundle.client.gone:
                    queues.out.append(Deliver(bundle.client.number, item, frames))
    else:
        try:
            (entry,) = codec.decode_entries(frames[0])
            bundle.body = (codec.encode_calls([(0, entry.n_buffers, entry.payload)]), *frames[1:])
        except (ProtocolError, ValueError, IndexError) as error:
            fail(queues, source, m.EndReason.REFUSED, f"the answer of engine {engine.id} cannot be read: {error}", None)
            return
        _free(queues, bundle)


def fail(queues: "Queues", source: Bundle, reason: m.EndReason, detail: str, end: m.End | None) -> None:
    """End everything that waits for a source: it will have no result."""
    bundle = source.feeds
    assert bundle is not None  # noqa: S101 - for the type checker
    for start, stop in _withdraw(queues, bundle):
        queues.end(bundle, start, stop, reason, detail, end=end)


def refill(queues: "Queues", now: float) -> None:
    """Send engines what has waited behind bundles that wait no more."""
    while queues.freed:
        engine = queues.freed.pop()
        if not engine.lost:
            queues.refill(engine, now)


def _free(queues: "Queues", bundle: Bundle) -> None:
    bundle.awaits = False
    queues.freed += [part.engine for part in bundle.parts if part.engine is not None]


def _withdraw(queues: "Queues", bundle: Bundle) -> list[tuple[int, int]]:
    """Leave empty parts where a bundle waits, which its queues skip; return what they held."""
    _free(queues, bundle)
    held = []
    for part in sorted(bundle.parts, key=lambda part: part.start):
        held.append((part.start, part.stop))
        part.stop = part.start
    bundle.parts.clear()
    return held
