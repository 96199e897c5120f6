"""Whose output is passed on: an engine speaks for the tasks that it runs, or has run, and for no others."""

from typing import TYPE_CHECKING

from hpc.controller import events as ev
from hpc.controller.teampool import Team
from hpc.wire import messages as m

if TYPE_CHECKING:
    from hpc.controller.bundles import Client
    from hpc.controller.engines import Engine, Registry


def passed_on(registry: "Registry", client: "Client", engine: "Engine", output: m.Output) -> ev.Tell | None:
    """Return what a client is told of a piece of output, None if the engine has no business with that task."""
    bundle = client.bundles.get(output.first)
    holder = engine.team.root if isinstance(engine.team, Team) else engine
    if holder.holding(client.number, output.first, output.offset, output.offset + 1) is None:
        is_shared = bundle is None or bundle.ranks > 0
        if not _has_run(registry, client, engine, output.first + output.offset, is_shared):
            return None
    if bundle is not None and bundle.retries:
        bundle.heard(output.offset, output.number + 1)
    words = m.Output(engine.id, output.first, output.offset, output.number, output.stream, output.text)
    return ev.Tell(client.number, words)


def _has_run(registry: "Registry", client: "Client", engine: "Engine", task: int, is_shared: bool) -> bool:
    """Say whether a task ended on an engine: output and results come by different ways, so that output may be later.

    Of a task that several ranks run together only the root is remembered.
    """
    for low, high, number in reversed(client.past.places):
        if low <= task < high:
            if number == engine.id:
                return True
            other = registry.engines.get(number)
            if is_shared and other is not None and other.group is engine.group:
                return True
    return False
