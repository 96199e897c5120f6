"""``ipcluster start``: a cluster in the background."""

# ruff: noqa: D301 - click leaves a paragraph after \b as it is

from typing import Any

import click

from hpc.cli.commands.options import cluster_options, fail, launch_options
from hpc.cli.commands.show import Progress, welcome
from hpc.cluster.options import Event
from hpc.cluster.starter import Starter, StartError


@click.command("start")
@launch_options
def command(**launch: Any) -> None:
    """Start a cluster in the background and return when its engines are usable.

    \b
      ipcluster start -n 4
      ipcluster start -n 8 --mpi --name heat
      python -c 'import hpc; print(hpc.connect("heat").ids)'
      ipcluster stop --name heat

    If not all engines come up in time, nothing is left running, and the reason is shown with the last lines of the log.
    """
    options = cluster_options(**launch)
    starter = Starter(options)
    progress = Progress(options)
    controller = Event("controller")

    def show(event: Event) -> None:
        nonlocal controller
        progress(event)
        if event.kind == "controller":
            controller = event

    try:
        starter.wait_ready(show)
    except StartError as error:
        fail(f"the cluster could not be started: {error}")
    except KeyboardInterrupt:
        progress.clear()
        starter.stop()
        fail("Ctrl-C: nothing was started", 130)
    starter.detach()
    click.echo(welcome(starter, controller))
    click.echo(f"End it: ipcluster stop --name {starter.name}")
