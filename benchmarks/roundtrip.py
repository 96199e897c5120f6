"""A no-op, client to engine and back: the median of single calls, one at a time."""

from collections.abc import Callable
from contextlib import ExitStack

from benchmarks import ours, peers
from benchmarks.harness import Row, at_most, interleave, p50
from benchmarks.limit import BareCluster
from benchmarks.raw import TRANSPORTS, RawCluster
from benchmarks.work import noop

WORKERS = 4


def measure(quick: bool = False) -> list[Row]:
    """Compare ours on one host, and over TCP with CURVE, with raw brokers of all transports and with the pools."""
    repeats, rounds = (100, 3) if quick else (400, 9)
    calls: dict[str, Callable[[], object]] = {}
    with ExitStack() as stack:
        for name, pool in stack.enter_context(peers.pools(WORKERS)).items():
            calls[name] = lambda pool=pool: peers.one(pool)
        for transport in TRANSPORTS:
            raw = stack.enter_context(RawCluster(transport, WORKERS))
            calls[f"raw {transport}"] = lambda raw=raw: raw.one(noop, 1)
        bare = stack.enter_context(BareCluster())
        calls["bare"] = lambda: bare.one(noop, 1)
        here = stack.enter_context(ours.cluster(WORKERS))
        far = stack.enter_context(ours.tcp_cluster(WORKERS))
        direct, balanced, encrypted = here[0], here.load_balanced_view(), far[0]
        calls["direct"] = lambda: direct.apply_sync(noop, 1)
        calls["balanced"] = lambda: balanced.apply_sync(noop, 1)
        calls["encrypted"] = lambda: encrypted.apply_sync(noop, 1)
        for name, call in calls.items():
            if any(call() != 1 for _ in range(50)):
                raise AssertionError(f"{name} gave a wrong result")
        cases = {name: lambda call=call: 1e6 * p50(call, repeats) for name, call in calls.items()}
        us = interleave(cases, rounds)
    same_host = "round trip, same host"
    rows = [
        at_most(same_host, "us", us["direct"], "raw broker, tcp", us["raw tcp"], 1.25),
        at_most(same_host, "us", us["direct"], "raw broker, ipc", us["raw ipc"], 1.25),
        at_most("round trip, TCP + CURVE", "us", us["encrypted"], "raw broker, tcp + curve", us["raw curve"], 1.25),
    ]
    rows += [at_most(same_host, "us", us["direct"], name, us[name], 1) for name in ("stdlib", "loky") if name in us]
    rows.append(Row(same_host, "us", us["direct"], "the limit: bare unix sockets", us["bare"]))
    rows.append(Row("round trip, load-balanced", "us", us["balanced"], "stdlib", us["stdlib"]))
    return rows
