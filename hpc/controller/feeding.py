"""Work some arguments of which are on other engines: data goes from engine to engine, past the client.

The tasks that fetch the arguments are bundles of their own, the *sources*. What they feed is queued at once, so that
the order of direct work stays that of submission, and holds up its engines until all sources have ended; load-balanced
work is queued when they have. No two can wait for each other: a source is always queued before what it feeds, and
queues are served in order.
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
# In place of the index of a function: not a call, but values that arguments refer to.
VALUES = -1


class Awaited:
    """What a bundle waits for: what its sources answer, the first of them in place 0."""

    __slots__ = ("answers", "calls", "eligible", "frames", "is_balanced")

    def __init__(self, submit: m.Submit, body: Frames) -> None:
        self.calls, self.frames = codec.decode_calls(body[0]), list(body[1:])
        self.answers: list[tuple[m.Entry, Frames] | None] = [None] * len(submit.sources)
        self.eligible, self.is_balanced = submit.eligible, submit.targets is None

    def __repr__(self) -> str:
        return f"<Awaited {self.answers.count(None)} of {len(self.answers)}>"

    def body(self) -> Frames:
        """Return what was submitted together with all answers."""
        calls, frames = list(self.calls), list(self.frames)
        for entry, buffers in filter(None, self.answers):
            calls.append((VALUES, entry.n_buffers, entry.payload))
            frames += buffers
        return (codec.encode_calls(calls), *frames)


def awaited(client: Client, submit: m.Submit, body: Frames) -> Awaited | None:
    """Return what a new bundle has to wait for, None if that is nothing; `ProtocolError` if it makes no sense."""
    if not submit.sources:
        return None
    if submit.kind is m.Kind.SPAN or (submit.kind is m.Kind.CALLS and submit.count != 1):
        raise ProtocolError("only a single call has arguments that are on other engines")
    last = submit.first + submit.count
    for number in range(last, last + len(submit.sources)):
        if number in client.bundles:
            raise ProtocolError(f"task {number} was submitted before")
    return Awaited(submit, body)


def add_sources(queues: "Queues", submit: m.Submit, bundle: Bundle) -> None:
    """Queue the tasks whose results a bundle waits for; if it is direct, it is to be queued next."""
    client, number = bundle.client, submit.first + submit.count
    for place, source in enumerate(submit.sources):
        call = m.Submit(number + place, 1, m.Kind.CALLS, [EXPORT], [source.engine], submit.submitted)
        export = Bundle(client, call, (codec.encode_calls([(0, 0, source.call)]),), (), None)
        export.route, export.feeds = submit.route, (bundle, place)
        client.bundles[call.first] = export
        queues.place(export, [source.engine])


def feed(queues: "Queues", source: Bundle, engine: "Engine", message: m.Results, frames: Frames) -> None:
    """Take the result of a source in; if it failed, that is the answer of everything that waits for it."""
    assert source.feeds is not None  # noqa: S101 - for the type checker
    bundle, place = source.feeds
    waiting = bundle.awaits
    if waiting is None:  # another source failed
        return
    if message.failed:
        for start, stop in _withdraw(queues, bundle):
            bundle.ended(stop - start)
            for offset in range(start, stop):
                item = m.Delivered(bundle.first, offset, offset + 1, engine.id, message.packed, len(frames))
                if not bundle.client.gone:
                    queues.out.append(Deliver(bundle.client.number, item, frames))
        return
    try:
        (entry,) = codec.decode_entries(frames[0])
    except (ProtocolError, ValueError, IndexError) as error:
        fail(queues, source, m.EndReason.REFUSED, f"the answer of engine {engine.id} cannot be read: {error}", None)
        return
    waiting.answers[place] = entry, frames[1:]
    if None in waiting.answers:
        return
    bundle.body = waiting.body()
    _free(queues, bundle)
    if not waiting.is_balanced:
        return
    if bundle.aborts:
        queues.end(bundle, 0, bundle.count, m.EndReason.ABORTED, "aborted before it began")
    else:
        queues.fed.append((bundle, waiting.eligible))


def fail(queues: "Queues", source: Bundle, reason: m.EndReason, detail: str, end: m.End | None) -> None:
    """End everything that waits for a source: it will have no result."""
    assert source.feeds is not None  # noqa: S101 - for the type checker
    bundle, _ = source.feeds
    if bundle.awaits is not None:
        for start, stop in _withdraw(queues, bundle):
            queues.end(bundle, start, stop, reason, detail, end=end)


def refill(queues: "Queues", now: float) -> None:
    """Queue load-balanced work that waits no more, and send engines what has waited behind direct work."""
    while queues.fed:
        queues.balance(*queues.fed.pop(0), now)
    while queues.freed:
        engine = queues.freed.pop()
        if not engine.lost:
            queues.refill(engine, now)


def _free(queues: "Queues", bundle: Bundle) -> None:
    bundle.awaits = None
    queues.freed += [part.engine for part in bundle.parts if part.engine is not None]


def _withdraw(queues: "Queues", bundle: Bundle) -> list[tuple[int, int]]:
    """Leave empty parts where a bundle waits, which its queues skip; return what they held."""
    held = [(0, bundle.count)] if bundle.awaits is not None and bundle.awaits.is_balanced else []
    _free(queues, bundle)
    for part in sorted(bundle.parts, key=lambda part: part.start):
        held.append((part.start, part.stop))
        part.stop = part.start
    bundle.parts.clear()
    return held
