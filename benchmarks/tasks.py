"""10,000 separate no-op tasks, submitted one by one, results collected."""

from collections.abc import Callable
from contextlib import ExitStack

from benchmarks import ours, peers
from benchmarks.harness import Row, at_least, interleave, timed
from benchmarks.raw import RawCluster
from benchmarks.work import noop

WORKERS = 4
TASKS = 10_000


def measure(quick: bool = False) -> list[Row]:
    """Compare ours with the pools and with a raw broker that carries one message a task."""
    arguments: list[object] = list(range(TASKS))

    def rate(call: Callable[[], object]) -> float:
        return TASKS / timed(call, lambda results: results == arguments)

    with ExitStack() as stack:
        found = stack.enter_context(peers.pools(WORKERS))
        cases: dict[str, Callable[[], float]] = {
            name: lambda pool=pool: rate(lambda: peers.many(pool, noop, arguments)) for name, pool in found.items()
        }
        for transport in ("tcp", "ipc"):
            raw = stack.enter_context(RawCluster(transport, WORKERS))
            cases[f"raw {transport}"] = lambda raw=raw: rate(lambda: raw.many(noop, arguments))
        view = stack.enter_context(ours.cluster(WORKERS)).load_balanced_view()
        cases["ours"] = lambda: rate(lambda: submit_and_collect(view, arguments))
        for call in cases.values():
            call()
        rates = interleave(cases, 3 if quick else 7)
    workload = f"{TASKS:,} no-op tasks, one by one"
    rows = [at_least(workload, "tasks/s", rates["ours"], "stdlib", rates["stdlib"], 3)]
    if "loky" in rates:
        rows.append(at_least(workload, "tasks/s", rates["ours"], "loky", rates["loky"], 3))
    rows.append(at_least(workload, "tasks/s", rates["ours"], "raw broker, tcp", rates["raw tcp"], 1))
    rows.append(at_least(workload, "tasks/s", rates["ours"], "raw broker, ipc", rates["raw ipc"], 1))
    return rows


def submit_and_collect(view: object, arguments: list[object]) -> list[object]:
    """Do what the peers do: one call a task, then one wait a task."""
    return [result.get() for result in [view.apply_async(noop, argument) for argument in arguments]]  # type: ignore[attr-defined]
