"""Large arrays over TCP with CURVE, through the controller, against bare pyzmq that relays the same bytes.

Both hops are encrypted, on both sides of the comparison. The bare relay is there twice: with each array in one message,
as a program with pyzmq does it, and in pieces that are asked for, as ours does it. The controller's peak is that of one
scatter alone. What encryption and the second hop cost is the difference between bare relays.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from benchmarks import ours
from benchmarks.arrays import MIB, clock, peak, same
from benchmarks.harness import Row, at_least, interleave, under
from benchmarks.raw_relay import RawRelay

SMALL_MIB, WHOLE_MIB, N_ENGINES = 64, 256, 4
HELD_MIB = 512


def measure(quick: bool = False) -> list[Row]:
    """Start all of them and move arrays by turns."""
    with ExitStack() as stack:
        rc = stack.enter_context(ours.tcp_cluster(N_ENGINES))
        raw = stack.enter_context(RawRelay(N_ENGINES))
        variants = {
            "bare relay, not encrypted": stack.enter_context(RawRelay(1, "--plain")),
            "bare relay, 2 I/O threads": stack.enter_context(RawRelay(1, "--io-threads", "2")),
            "bare, client to worker": stack.enter_context(RawRelay(1, "--direct")),
            "bare, client to worker, not encrypted": stack.enter_context(RawRelay(1, "--direct", "--plain")),
        }
        rows = [held(rc)]
        rows += one(rc, raw, variants, 3 if quick else 9)
        rows += divided(rc, raw, 3 if quick else 5)
    return rows


def held(rc: Any) -> Row:
    """Scatter, and see by how much the controller grows."""
    controller, _, _ = ours.processes(rc)
    before = peak(controller)
    array = sample(HELD_MIB)
    rc[:].scatter("part", array)
    grown = (peak(controller) - before) / MIB
    same(rc[:].gather("part"), array)
    rc[:].execute("del part")
    return under(f"controller's peak, scatter {HELD_MIB} MiB by tcp", "MiB", grown, 64)


def one(rc: Any, raw: RawRelay, variants: dict[str, RawRelay], n: int) -> list[Row]:
    """Push to one engine and pull from it."""
    array, engine = sample(SMALL_MIB), rc[0]
    parts = views([array])
    engine.push({"pulled": array})
    cases = {
        "push": lambda: clock(lambda: engine.push({"pushed": array})),
        "pull": lambda: clock(lambda: engine.pull("pulled"), array),
        "in one message": lambda: clock(lambda: raw.whole(parts)),
        "in pieces": lambda: clock(lambda: raw.pieces(parts)),
        **{name: lambda each=each: clock(lambda: each.pieces(parts)) for name, each in variants.items()},
    }
    for case in cases.values():
        case()
    rate = {name: array.nbytes / seconds / 1e9 for name, seconds in interleave(cases, n).items()}
    same(engine.pull("pushed"), array)
    rows = []
    for name in ("push", "pull"):
        rows += against_both(f"{name} {SMALL_MIB} MiB by tcp", rate[name], rate)
    pieces = rate["in pieces"]
    rows += [Row(f"{name}, in pieces", "GB/s", rate[name], "bare relay, encrypted", pieces) for name in variants]
    return rows


def divided(rc: Any, raw: RawRelay, n: int) -> list[Row]:
    """Scatter over all engines."""
    array = sample(WHOLE_MIB)
    parts = views(np.split(array, N_ENGINES))
    cases = {
        "scatter": lambda: clock(lambda: rc[:].scatter("part", array)),
        "in one message": lambda: clock(lambda: raw.whole(parts)),
        "in pieces": lambda: clock(lambda: raw.pieces(parts)),
    }
    for case in cases.values():
        case()
    rate = {name: array.nbytes / seconds / 1e9 for name, seconds in interleave(cases, n).items()}
    same(rc[:].gather("part"), array)
    return against_both(f"scatter {WHOLE_MIB} MiB by tcp, {N_ENGINES} engines", rate["scatter"], rate)


def against_both(workload: str, found: float, rate: dict[str, float]) -> list[Row]:
    """Return the rows that compare with the bare relay, as it is written first and as it is best."""
    return [
        at_least(workload, "GB/s", found, f"bare relay, {how}", rate[how], 0.85)
        for how in ("in one message", "in pieces")
    ]


def sample(n_mib: int) -> Any:
    """Return so many random mebibytes."""
    return np.random.default_rng(n_mib).integers(0, 255, n_mib * MIB, dtype=np.uint8)


def views(arrays: Sequence[Any]) -> list[memoryview]:
    """Return the bytes of arrays."""
    return [memoryview(each).cast("B") for each in arrays]
