"""``ipcluster`` without a command: a cluster that lives until Ctrl-C."""

import select
import signal
from typing import Any

import click

from hpc.cli.commands.options import cluster_options, say
from hpc.cli.commands.show import Progress, welcome
from hpc.cluster import processes
from hpc.cluster.options import Event
from hpc.cluster.starter import Starter, describe


def run(*, debug: bool, **launch: Any) -> int:
    """Start a cluster, keep it until a signal, and return the exit status."""
    options = cluster_options(**launch)
    # Before there is something to lose: a Ctrl-C from here on ends the cluster, never only this process.
    signals = processes.Signals((signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1))
    starter = Starter(options)
    progress = Progress(options)
    interrupted = ""
    controller = Event("controller")
    follower = None
    sources: list[Any] = [starter, signals]
    while starter.ended is None:
        ready, _, _ = select.select(sources, [], [], 0.2 if follower else None)
        if signals in ready:
            for signum in signals.take():
                if signum == signal.SIGUSR1:  # a job script's: the walltime is about to end
                    starter.notice()
                    continue
                progress.clear()
                interrupted = interrupted or ("Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name)
                say(f"{interrupted}: ending the cluster ...")
                starter.interrupt()
        if starter in ready:
            for event in starter.receive():
                progress(event)
                if event.kind == "controller":
                    controller = event
                elif event.kind == "claimed" and debug:
                    from hpc.cli.commands.logs import Follower

                    follower = Follower(starter.logs)
                elif event.kind == "ready":
                    click.echo(welcome(starter, controller) + "\nCtrl-C ends all of it.\n")
        if follower:
            follower.show()
    return _say_end(starter, interrupted)


def _say_end(starter: Starter, interrupted: str) -> int:
    ended = starter.ended
    starter.close()
    assert ended is not None  # noqa: S101 - the loop above waited for it
    if interrupted and not starter.ready:
        say(f"{interrupted}: nothing was started")
        return 130
    if ended.failed:
        say(describe(ended))
        return 1
    kept = f"; an engine had crashed, so the logs stay: {ended.logs}" if ended.logs else ""
    say(f"the cluster has ended ({interrupted or ended.text}): controller and engines are gone{kept}")
    return 0
