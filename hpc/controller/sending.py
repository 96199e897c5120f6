"""What is sent to engines to have work done: functions, before the first part that needs them, and parts."""

from typing import TYPE_CHECKING

from hpc.controller.bundles import Part, run_message
from hpc.controller.engines import Engine
from hpc.controller.events import Send
from hpc.wire import messages as m

if TYPE_CHECKING:
    from hpc.controller.queues import Queues


def order(queues: "Queues", engine: Engine, part: Part) -> None:
    """Tell an engine to run a part, and what it needs to know for that."""
    for digest in part.bundle.needs:
        if digest not in engine.holds:
            engine.holds.add(digest)
            define, blob = queues.functions[digest]
            queues.out.append(Send(engine.id, define, blob))
    queues.out.append(Send(engine.id, run_message(part), part.bundle.body))


def resend(queues: "Queues", engine: Engine, message: m.Need) -> None:
    """Send functions again that an engine turns out not to hold, and the part that it dropped for it."""
    engine.holds.difference_update(message.digests)
    part = engine.holding(message.client, message.first, message.start, message.stop)
    part = part or queues.teams.followed(engine, message)
    if part is None:
        return
    for digest in dict.fromkeys((*message.digests, *part.bundle.needs)):
        if digest in queues.functions and digest not in engine.holds:
            engine.holds.add(digest)
            queues.out.append(Send(engine.id, *queues.functions[digest]))
    queues.out.append(Send(engine.id, run_message(part, message.start, message.stop), part.bundle.body))
