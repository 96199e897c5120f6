"""What tasks ask of an engine: resources, labels, a condition that is asked for where they are to run."""

from typing import NamedTuple

from hpc.wire import messages as m


class Demand(NamedTuple):
    """One set of demands; tasks with the same ones wait in the same pool. ``condition`` is the digest of a function."""

    resources: tuple[tuple[str, float], ...] = ()
    labels: tuple[str, ...] = ()
    condition: bytes = b""

    def fits(self, info: m.EngineInfo) -> bool:
        """Say whether an engine has what is asked for. Of the condition only the engine itself can tell."""
        has = info.resources
        return all(has.get(name, 0.0) >= amount for name, amount in self.resources) and all(
            label in info.labels for label in self.labels
        )

    def __str__(self) -> str:
        wanted = [f"{name}: {amount:g}" for name, amount in self.resources]
        if self.labels:
            wanted.append(f"label{'s' * (len(self.labels) > 1)} {', '.join(self.labels)}")
        return ", ".join(wanted)


def demand_of(options: m.Options | None) -> Demand | None:
    """Return what tasks with these options ask for; None if any engine will do."""
    if options is None or not (options.resources or options.labels or options.condition):
        return None
    resources = tuple(sorted((name, amount) for name, amount in options.resources.items() if amount))
    return Demand(resources, tuple(sorted(set(options.labels))), options.condition)
