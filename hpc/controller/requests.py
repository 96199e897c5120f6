"""What the brain answers when it is asked, and who is meant by a request to end engines."""

from typing import TYPE_CHECKING, Any

from hpc.controller.engines import Engine, Registry
from hpc.controller.patience import stranded
from hpc.controller.walltime import short_of_time
from hpc.errors import ranges
from hpc.wire import messages as m

if TYPE_CHECKING:
    from hpc.controller.brain import Brain


def answer(brain: "Brain", query: m.Query, now: float) -> m.Answer:
    """Answer a query; one that is not known gets an error that names those that are."""
    if query.what == "ping":
        return m.Answer(query.request, "pong")
    if query.what == "status":
        return m.Answer(query.request, status(brain))
    if query.what == "queue_status":
        return m.Answer(query.request, queue_status(brain, now))
    return m.Answer(query.request, None, f"no such query: {query.what!r}; there are ping, status and queue_status")


def status(brain: "Brain") -> dict[str, Any]:
    """Describe the whole cluster in plain types."""
    engines = [
        {
            "id": engine.id,
            "rank": engine.info.rank,
            "size": engine.info.size,
            "group": engine.info.group,
            "host": engine.info.host,
            "pid": engine.info.pid,
            "state": engine.state,
            "mpi": engine.info.mpi,
            "cwd": engine.info.cwd,
            "python": engine.info.python,
            "launcher": engine.info.launcher,
            "deadline": engine.info.deadline,
            "labels": engine.info.labels,
            "resources": engine.info.resources,
        }
        for engine in brain.registry.visible()
    ]
    incomplete = [
        {"group": group.name, "size": group.size, "present": group.n_ready}
        for group in brain.registry.groups.values()
        if not group.visible and not group.doomed
    ]
    return {
        "controller": dict(brain.facts),
        "engines": engines,
        "incomplete_groups": incomplete,
        # Number 0 is the launcher.
        "clients": sum(number > 0 for number in brain.clients),
        "waiting": n_waiting(brain),
    }


def queue_status(brain: "Brain", now: float) -> dict[str, Any]:
    """Count tasks for each engine: queued for it, sent to it, ended on it; and those that wait for any engine.

    Of these, ``short_of_time`` lists those that no engine will be there for long enough, ``stranded`` those for which
    no engine has what they ask for. ``dependent`` counts those that wait for other tasks.
    """
    engines = {
        str(engine.id): {
            "queue": sum(part.stop - part.start for part in engine.direct),
            "tasks": engine.n_tasks,
            "completed": engine.completed,
            "failed": engine.failed,
        }
        for engine in brain.registry.visible()
    }
    return {
        "engines": engines,
        "unassigned": n_waiting(brain),
        "short_of_time": short_of_time(brain.registry, brain.queues.pools.restricted.values(), now),
        "stranded": stranded(brain.queues),
        "dependent": sum(
            part.stop - part.start
            for client in brain.clients.values()
            for bundle in client.bundles.values()
            if bundle.hold is not None
            for part in bundle.parts
        ),
    }


def n_waiting(brain: "Brain") -> int:
    """Count the load-balanced tasks that wait for an engine."""
    pools = brain.queues.pools
    return pools.common.waiting + sum(pool.waiting for pool in pools.restricted.values())


def whom_to_stop(registry: Registry, targets: list[int] | None) -> list[Engine] | str:
    """Return the engines that a request to end engines is about, or why it cannot be granted.

    Ranks of one group end together: the others would wait for them in MPI for ever.
    """
    if targets is None:
        return list(registry.engines.values())
    wanted = dict.fromkeys(targets)
    engines = []
    for number in wanted:
        engine = registry.engines.get(number)
        if engine is None or not engine.visible:
            if number in registry.ends:
                continue
            return f"there is no engine {number}; {registry.describe_ids()}"
        engines.append(engine)
    for group in {engine.group.name: engine.group for engine in engines}.values():
        ids = [engine.id for engine in group.living()]
        left = [number for number in ids if number not in wanted]
        if left:
            return (
                f"engines {ranges(ids)} are the ranks of one MPI group and end together:"
                f" shut down engines {ranges(left)} as well"
            )
    return engines
