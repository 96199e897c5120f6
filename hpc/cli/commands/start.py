"""``ipcluster start``: a cluster in the background."""

# ruff: noqa: D301 - click leaves a paragraph after \b as it is

from typing import Any

import click

from hpc.cli.commands.joboptions import job_options
from hpc.cli.commands.options import cluster_options, fail, launch_options, say
from hpc.cli.commands.show import Progress, welcome
from hpc.cluster.options import DONE_S, PLACES, SCHEDULERS, ClusterOptions, Event
from hpc.cluster.starter import Starter, StartError, describe
from hpc.errors import HpcError


@click.command("start")
@launch_options
@job_options
@click.option("--keep", is_flag=True, help="Submit another job when one has reached its walltime or lost a node.")
@click.option(
    "--controller",
    "where",
    type=click.Choice(PLACES),
    default="here",
    show_default=True,
    help="Where the controller of engines in jobs runs: on this machine, on their first node, in a job of its own.",
)
@click.option("--no-wait", is_flag=True, help="Return once the job is in the queue.")
def command(where: str, no_wait: bool, **launch: Any) -> None:
    """Start a cluster in the background and return when its engines are usable.

    \b
      ipcluster start -n 4
      ipcluster start -n 8 --mpi --name heat
      ipcluster start -n 64 --launcher slurm --walltime 2:00:00 --ranks-per-node 32
      python -c 'import hpc; print(hpc.connect("heat").ids)'
      ipcluster stop --name heat

    Waiting for a job shows its state, the reason why it is pending, and when it is expected to start. With the
    controller here, this machine must stay up; on the first node, or in a job of its own, nothing stays behind here.

    If not all engines come up in time, nothing is left running, and the reason is shown with the last lines of the log.
    """
    options = cluster_options(**launch)
    if where != "here":
        _start_there(options, where, no_wait)
        return
    starter = Starter(options)
    progress = Progress(options)
    controller = Event("controller")

    try:
        for event in starter.events():
            progress(event)
            if event.kind == "controller":
                controller = event
            if event.kind == "ready" or (no_wait and event.kind == "job"):
                break
        if starter.ended is not None:
            raise StartError(describe(starter.ended))
    except StartError as error:
        fail(f"the cluster could not be started: {error}")
    except KeyboardInterrupt:
        progress.clear()
        starter.stop(DONE_S if options.by_jobs else 15.0)
        fail("Ctrl-C: nothing was started", 130)
    starter.detach()
    if starter.ready is not None:
        click.echo(welcome(starter, controller))
    else:
        click.echo(f"Cluster {starter.name!r} waits for its engines: ipcluster status --name {starter.name}")
    click.echo(f"End it: ipcluster stop --name {starter.name}")


def _start_there(options: ClusterOptions, where: str, no_wait: bool) -> None:
    """Start a cluster of which nothing runs on this machine."""
    from hpc.cluster import submitted
    from jobscripts import JobScriptError

    if not options.by_jobs:
        raise click.UsageError(f"--controller {where} is for launchers that are schedulers: {', '.join(SCHEDULERS)}")
    if options.keep:
        raise click.UsageError("--keep needs somebody who submits again: it goes with --controller here")
    jobs: list[submitted.Submitted] = []
    try:
        jobs = submitted.start(options, where)
        for job in jobs:
            say(f"submitted {job}")
        name = jobs[0].cluster
        if not no_wait:
            address = submitted.wait_usable(jobs, options, say)
            click.echo(f"Cluster {name!r}: controller at {address}, {options.n} engines.\nIn Python:\n")
            click.echo(f"    import hpc\n    rc = hpc.connect({name!r})\n")
    except (HpcError, JobScriptError, OSError, ValueError) as error:
        submitted.end(jobs)
        fail(f"the cluster could not be started: {error}")
    except KeyboardInterrupt:
        submitted.end(jobs)
        fail("Ctrl-C: the jobs are cancelled", 130)
    click.echo(f"End it: ipcluster stop --name {name}")
