"""The pools of processes that ours is measured against: the standard library's and loky's."""

import importlib.util
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager

from benchmarks.work import noop


@contextmanager
def pools(workers: int) -> Iterator[dict[str, Executor]]:
    """Start the pools that are installed, warm. Enter this before anything that starts threads: stdlib's may fork."""
    with ExitStack() as stack:
        found: dict[str, Executor] = {"stdlib": stack.enter_context(ProcessPoolExecutor(workers))}
        if importlib.util.find_spec("loky"):
            import loky

            found["loky"] = stack.enter_context(loky.ProcessPoolExecutor(workers))
        for pool in found.values():
            for future in [pool.submit(noop) for _ in range(10 * workers)]:
                future.result()
        yield found


def one(pool: Executor) -> object:
    """Run a single task and wait for it."""
    return pool.submit(noop, 1).result()


def many(pool: Executor, function: Callable[[object], object], arguments: list[object]) -> list[object]:
    """Submit one task per argument, then collect the results."""
    return [future.result() for future in [pool.submit(function, argument) for argument in arguments]]
