"""Tasks that failed and may be tried again: their results go no further, and they are queued anew."""

from typing import TYPE_CHECKING, Final, NamedTuple

from hpc.controller import conditions
from hpc.controller.bundles import Bundle
from hpc.controller.engines import Engine
from hpc.controller.events import Frames
from hpc.errors import ProtocolError
from hpc.wire import codec
from hpc.wire import messages as m

if TYPE_CHECKING:
    from hpc.controller.queues import Queues

# Ends of allocations say nothing about the task. But one for which no allocation is long enough must come to an end.
MAX_ALLOCATIONS: Final = 100


class Tried(NamedTuple):
    """Results divided into messages of what stands, with their frames, and the tasks that are to be tried again.

    With each of these is how many pieces of output its tries have sent.
    """

    standing: list[tuple[m.Results, Frames]]
    again: list[tuple[int, int]]


def permit(bundle: Bundle, offset: int, why: m.EndReason) -> bool:
    """Take note that a task was lost with its engine; say whether it may be run again."""
    if why is m.EndReason.PREEMPTED:
        return bundle.retries > 0
    if why is m.EndReason.WALLTIME:
        bundle.allocations = bundle.allocations or {}
        n = bundle.allocations[offset] = bundle.allocations.get(offset, 0) + 1
        return bundle.retries > 0 and n < MAX_ALLOCATIONS
    tries = bundle.tries[offset] = bundle.tries.get(offset, 0) + 1
    return tries <= bundle.retries


def sift(bundle: Bundle, message: m.Results, frames: Frames) -> Tried | None:
    """Divide results some of which failed; None if all of them stand."""
    tries, retries = bundle.tries, bundle.retries
    failed = {offset for offset in message.failed if tries.get(offset, 0) < retries}
    if not failed or bundle.pool is None or message.packed:
        return None
    try:
        entries = codec.decode_entries(frames[0])
    except (ProtocolError, IndexError):
        return None  # the client will say that they cannot be read
    if len(entries) != message.stop - message.start:
        return None
    tried = Tried([], [])
    run: list[m.Entry] = []
    run_place = place = 1
    for offset, entry in enumerate(entries, message.start):
        if offset in failed:
            _stand(tried, message, offset, run, frames[run_place:place])
            tried.again.append((offset, entry.n_outputs))
            run, run_place = [], place + entry.n_buffers
        else:
            run.append(entry)
        place += entry.n_buffers
    _stand(tried, message, message.stop, run, frames[run_place:place])
    return tried


def _stand(tried: Tried, message: m.Results, stop: int, run: list[m.Entry], buffers: Frames) -> None:
    if run:
        start = stop - len(run)
        failed = [offset for offset in message.failed if start <= offset < stop]
        part = m.Results(message.client, message.first, start, stop, False, failed, 0.0)
        tried.standing.append((part, (codec.encode_entries(run), *buffers)))


def try_again(queues: "Queues", bundle: Bundle, engine: Engine, tried: Tried, now: float) -> None:
    """Queue tasks anew, before everything else; an engine that idles gets them rather than the one they failed on."""
    for offset, n_outputs in reversed(tried.again):
        bundle.tries[offset] = bundle.tries.get(offset, 0) + 1
        if n_outputs:
            bundle.heard(offset, n_outputs)
            # Some of it may still be on its way.
            task = bundle.first + offset
            bundle.client.past.places.append((task, task + 1, engine.id))
        queues.back_to_queue(bundle, offset, offset + 1, None)
    for message, frames in tried.standing:
        queues.deliver(engine, bundle, message, frames)
    if bundle.pool is not None:
        conditions.forsake(queues, bundle.pool, now)
        queues.pump(bundle.pool, now)
