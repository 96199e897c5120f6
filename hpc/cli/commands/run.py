"""``ipcluster run``: a cluster for the time of one script."""

# ruff: noqa: D301 - click leaves a paragraph after \b as it is

import os
import select
import signal
from typing import Any

import click

from hpc.cli.commands.joboptions import job_options
from hpc.cli.commands.options import cluster_options, fail, launch_options, say
from hpc.cli.commands.show import Progress
from hpc.cluster import processes
from hpc.cluster import script as script_of
from hpc.cluster.options import DONE_S, Event
from hpc.cluster.starter import Starter, describe


@click.command("run")
@launch_options
@job_options
@click.argument("script", nargs=-1, required=True, type=click.UNPROCESSED)
def command(script: tuple[str, ...], **launch: Any) -> None:
    """Start a cluster, run a script as its client, end the cluster. The exit status is the script's.

    \b
      ipcluster run -n 8 --mpi -- analysis.py input.h5
      ipcluster run -n 4 -- -m mypackage.analysis
      ipcluster run -n 4 -- ./pipeline.sh
      ipcluster run -n 64 --launcher slurm --walltime 1:00:00 -- analysis.py

    In the script, hpc.connect() finds exactly this cluster (by the environment variable HPC_CLUSTER). A script NAME.py
    or -m MODULE is run by this Python, anything else as a program. A script that a signal ended gives 128 + signal.
    """
    try:
        program = script_of.program(script)
    except FileNotFoundError as error:
        fail(str(error), 2 if script[0].endswith(".py") else 127)
    options = cluster_options(**launch)._replace(port=0 if launch["port"] is None else launch["port"])
    signals = processes.Signals((signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1))
    starter = Starter(options)
    progress = Progress(options)
    _wait_ready(starter, signals, progress)
    say(f"cluster {starter.name!r} with {options.n} engines is up: running {' '.join(script)}")
    try:
        process = script_of.start(program, starter.name)
    except OSError as error:
        starter.stop(DONE_S if starter.options.by_jobs else 15.0)
        fail(f"cannot run {program[0]}: {error.strerror}", 127 if isinstance(error, FileNotFoundError) else 126)
    code = _attend(process, starter, signals, progress)
    ended = starter.stop(DONE_S if starter.options.by_jobs else 15.0)
    if ended.failed or ended.logs:
        say(describe(ended))
    raise SystemExit(128 - code if code < 0 else code)


def _wait_ready(starter: Starter, signals: processes.Signals, progress: Progress) -> None:
    """Wait until the cluster is usable; exit if it cannot be, or on a signal."""
    interrupted = 0
    while starter.ready is None:
        if starter.ended is not None:
            starter.close()
            if interrupted:
                fail(f"{signal.Signals(interrupted).name}: the script was not run", 128 + interrupted)
            fail(f"the cluster could not be started: {describe(starter.ended)}")
        sources: list[Any] = [starter, signals]
        readable, _, _ = select.select(sources, [], [])
        if signals in readable:
            for signum in signals.take():
                if signum == signal.SIGUSR1:
                    starter.notice()
                elif signum != signal.SIGCHLD:
                    progress.clear()
                    interrupted = interrupted or signum
                    starter.interrupt()
        if starter in readable:
            for event in starter.receive():
                progress(event)


def _attend(process: script_of.Script, starter: Starter, signals: processes.Signals, progress: Progress) -> int:
    """Wait for the script's end, passing signals on to it; return its exit code, negative for a signal."""
    while (code := process.poll()) is None:
        sources: list[Any] = [signals] if starter.ended else [starter, signals]
        readable, _, _ = select.select(sources, [], [])
        if signals in readable:
            for signum in signals.take():
                if signum == signal.SIGUSR1:  # a job script's: the walltime is about to end
                    starter.notice()
                    continue
                # A terminal sends its Ctrl-C to the script, too: it must not get it twice.
                if signum != signal.SIGCHLD and not (signum == signal.SIGINT and _has_terminal()):
                    process.send_signal(signum)
        if starter in readable:
            for event in starter.receive():
                _tell(event, progress)
    return code


def _tell(event: Event, progress: Progress) -> None:
    if event.kind == "ended":
        say(f"the cluster has ended before the script: {describe(event)}")
    else:
        progress(event)


def _has_terminal() -> bool:
    """Say whether this process is in the foreground of a terminal, whose Ctrl-C goes to all processes there."""
    try:
        with open("/dev/tty", "rb") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False
