"""A client that submits tasks of all kinds without a pause, checks each result, and counts.

Run as ``python -m tests.faults.load '{"name": ..., "marks": DIRECTORY}'``. It says ``{"up": ids}`` when it has the
first result, and its counts as the last line, after "stop" on standard input. A task writes its number to a file when
it runs, so what ran twice can be told.
"""

import collections
import json
import random
import select
import sys
import time
from pathlib import Path
from typing import Any

import hpc

UNDER_WAY = 64
SMALL, LARGE = 1000, 300_000  # items of arrays: in the message, and in parcels


def mark(directory: str, number: int) -> None:
    """Note that a task runs."""
    import os

    fd = os.open(f"{directory}/{os.getpid()}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, b"%d\n" % number)
    os.close(fd)


def square(directory: str, number: int) -> int:
    """Return the square of a number, having noted it."""
    mark(directory, number)
    return number * number


def doubled(directory: str, number: int, array: Any) -> Any:
    """Return twice an array, having noted the task."""
    mark(directory, number)
    return array * 2


def nap(directory: str, number: int, seconds: float) -> int:
    """Take some time."""
    import time

    mark(directory, number)
    time.sleep(seconds)
    return -number


class Run:
    """Tasks under way, and the counts."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.rc = hpc.RemoteController(name=options["name"], timeout=60, reconnect=120)
        self.rc.wait_for_engines(1, timeout=30)
        self.lv = self.rc.load_balanced_view()
        self.marks = options["marks"]
        self.base = options.get("base", 0)
        self.kinds = options.get("kinds", ["square", "nap", "array"])
        self.random = random.Random(options.get("seed", 0))
        self.counts = dict.fromkeys(("submitted", "done", "engine_lost", "data_lost", "wrong", "without_end"), 0)
        self.under_way: collections.deque[tuple[int, str, Any, Any]] = collections.deque()
        self.slowest_s = 0.0

    def submit(self) -> None:
        """Submit one task of a random kind, load-balanced or to an engine."""
        import numpy as np

        number = self.base + self.counts["submitted"]
        kind = self.random.choice(self.kinds)
        ids = self.rc.ids
        direct = bool(ids) and self.random.random() < 0.3
        apply = self.rc[self.random.choice(ids)].apply_async if direct else self.lv.apply_async
        if kind == "square":
            result, expected = apply(square, self.marks, number), number * number
        elif kind == "nap":
            result, expected = apply(nap, self.marks, number, 0.002), -number
        else:
            array = np.arange(number, number + self.random.choice((SMALL, LARGE)))
            result, expected = apply(doubled, self.marks, number, array), array * 2
        self.counts["submitted"] += 1
        self.under_way.append((number, kind, result, expected))

    def take(self, timeout_s: float = 120.0) -> None:
        """Wait for the oldest result and count it."""
        import numpy as np

        _, _, result, expected = self.under_way.popleft()
        began = time.monotonic()
        try:
            value = result.get(timeout_s)
        except hpc.errors.EngineLost:
            self.counts["engine_lost"] += 1
        except ConnectionError:
            self.counts["data_lost"] += 1
        except TimeoutError:
            self.counts["without_end"] += 1
        else:
            self.counts["done" if np.array_equal(value, expected) else "wrong"] += 1
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)


def ran_twice(directory: str | Path) -> list[int]:
    """Return the numbers of tasks that ran more than once."""
    numbers = [int(line) for path in Path(directory).iterdir() for line in path.read_text().split()]
    return [number for number, n in collections.Counter(numbers).items() if n > 1]


def main() -> None:
    """Submit until told to stop."""
    run = Run(json.loads(sys.argv[1]))
    run.submit()
    run.take()
    print(json.dumps({"up": run.rc.ids}), flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        while len(run.under_way) < UNDER_WAY:
            run.submit()
        run.take()
    while run.under_way:
        run.take()
    run.rc.close()
    print(json.dumps({**run.counts, "slowest_s": round(run.slowest_s, 2)}), flush=True)


if __name__ == "__main__":
    main()
