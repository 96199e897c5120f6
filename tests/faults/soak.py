"""Kill and cut at random under load, and count what is lost, doubled or wrong: nothing may be.

    python -m tests.faults.soak                      30 minutes; as root with a network to cut, else without
    python -m tests.faults.soak --minutes 2 --seed 7

The last line is the counts, as JSON; the exit status is 1 if a result was lost, doubled or wrong. A task that was on an
engine which was killed ends as EngineLost: that is an end, and is counted apart.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.system.conftest import Processes

from .load import ran_twice
from .network import Across, Load, Network, missing

# Beyond this the clients are stopped, their counts taken, and new ones started.
ROUND_S = 60.0
HOSTS = ("h1", "h2")


class NoNetwork:
    """In place of a `Network`, where there can be none: all runs on this host, and nothing can be cut."""

    def on(self, name: str, *command: str) -> list[str]:
        """Return the command."""
        return [*command]

    def wire(self, **settings: Any) -> None:
        """Do nothing: there is no wire."""

    def close(self) -> None:
        """Do nothing: there are no hosts."""


class Soak:
    """The cluster under load, what may be done to it, and the counts."""

    def __init__(self, network: Any, processes: Processes, marks: Path, seed: int) -> None:
        self.network, self.marks = network, marks
        self.random = random.Random(seed)
        self.across = Across(network, processes, 2)
        self.engines = [*self.across.engines, self.across.engine("h1")]
        self.counts: collections.Counter[str] = collections.Counter()
        self.done: collections.Counter[str] = collections.Counter()
        self.slowest_s = 0.0
        self.n_clients = 0
        self.clients: dict[str, Load] = {}
        self.faults: list[Callable[[], None]] = [
            self.kill_engine,
            self.stop_engine,
            self.kill_client,
            self.stop_client,
        ]
        if isinstance(network, Network):
            self.faults += [self.cut, self.cut, self.half_open, self.bad_wire, self.forget]

    def run(self, seconds: float) -> None:
        """Do it for so long, in rounds; the counts are complete after that."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for host in HOSTS:
                self.start(host)
            end = min(until, time.monotonic() + ROUND_S)
            while time.monotonic() < end:
                self.random.choice(self.faults)()
                time.sleep(self.random.uniform(0.2, 2.0))
            self.network.wire()
            for client in self.clients.values():
                self.count(client.stop(300))
            print(json.dumps(self.summary()), flush=True)

    def start(self, host: str) -> None:
        """Start a client."""
        self.n_clients += 1
        base = self.n_clients * 10_000_000
        self.clients[host] = self.across.load(host, marks=str(self.marks), base=base, seed=self.random.random())

    def count(self, counts: dict[str, Any]) -> None:
        """Add what a client has counted."""
        self.slowest_s = max(self.slowest_s, counts.pop("slowest_s"))
        self.counts.update(counts)

    def summary(self) -> dict[str, Any]:
        """Return what has come of it so far."""
        counts = self.counts
        ends = counts["done"] + counts["wrong"] + counts["engine_lost"] + counts["data_lost"]
        return {
            "faults": dict(self.done),
            "tasks": counts["submitted"],
            "ended_with_their_engine": counts["engine_lost"],
            "ended_without_their_data": counts["data_lost"],
            "slowest_s": self.slowest_s,
            "lost": counts["submitted"] - ends,
            "doubled": len(ran_twice(self.marks)),
            "wrong": counts["wrong"],
        }

    # ------------------------------------------------------------ faults

    def kill_engine(self) -> None:
        """Kill an engine, and start another one."""
        i = self.random.randrange(len(self.engines))
        self.engines[i].kill()
        self.engines[i].wait(10)
        self.engines[i] = self.across.engine(self.random.choice(HOSTS))
        self.done["engine killed"] += 1

    def stop_engine(self) -> None:
        """Stop an engine for some seconds."""
        self._stop(self.random.choice(self.engines))
        self.done["engine stopped"] += 1

    def kill_client(self) -> None:
        """Kill a client, whatever it is doing, and start another one; its counts are lost with it."""
        host = self.random.choice(HOSTS)
        self.clients[host].process.kill()
        self.clients[host].process.wait(10)
        self.start(host)
        self.done["client killed"] += 1

    def stop_client(self) -> None:
        """Stop a client for some seconds."""
        self._stop(self.clients[self.random.choice(HOSTS)].process)
        self.done["client stopped"] += 1

    def _stop(self, process: "subprocess.Popen[str]") -> None:
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(self.random.uniform(0.5, 5.0))
        os.kill(process.pid, signal.SIGCONT)

    def cut(self) -> None:
        """Cut the wire for up to 20 s."""
        self._wire("cut", 20.0, cut=[0, 1])

    def half_open(self) -> None:
        """Let nothing of one side through."""
        self._wire("half open", 10.0, cut=[self.random.choice((0, 1))])

    def bad_wire(self) -> None:
        """Drop, double, delay and reorder."""
        self._wire("bad wire", 5.0, drop=0.02, double=0.02, delay_s=0.005, jitter_s=0.01)

    def forget(self) -> None:
        """Have the NAT forget all connections."""
        self._wire("NAT forgot", 1.0, forget=True)

    def _wire(self, name: str, longest_s: float, **settings: Any) -> None:
        self.network.wire(**settings)
        time.sleep(self.random.uniform(0.2, longest_s))
        self.network.wire()
        self.done[name] += 1


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    root = Path(tempfile.mkdtemp(prefix="hpc-soak-"))
    home, runtime, marks = root / "home", root / "run", root / "marks"
    for directory in (home, runtime, marks):
        directory.mkdir(mode=0o700)
    os.environ.update(HPC_DIR=str(home), XDG_RUNTIME_DIR=str(runtime))
    processes = Processes(home, runtime)
    if why := missing():
        print(f"nothing will be cut: {why}", file=sys.stderr)
    network: Any = NoNetwork() if why else Network(root)
    try:
        soak = Soak(network, processes, marks, options.seed)
        soak.run(60 * options.minutes)
        summary = soak.summary()
    except BaseException:
        print(f"the logs stay in {root}", file=sys.stderr)
        raise
    finally:
        processes.clean_up()
        for process in processes._spawned:
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
        network.close()
    failed = bool(summary["lost"] or summary["doubled"] or summary["wrong"])
    if not failed:
        shutil.rmtree(root)
    print(json.dumps(summary))
    return failed


if __name__ == "__main__":
    sys.exit(main())
