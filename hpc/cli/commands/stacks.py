"""``ipcluster stacks``: where every engine is."""

# ruff: noqa: D301 - click leaves a paragraph after \b as it is

import json

import click

from hpc.cli.commands.options import fail, name_option
from hpc.cli.commands.status import choose
from hpc.errors import HpcError


@click.command("stacks")
@name_option
@click.option("--json", "as_json", is_flag=True, help='[{"id", "rank", "state", "call", "frames", ...}, ...]')
@click.option("--timeout", type=float, default=10.0, show_default=True, help="Seconds to wait for the controller.")
def command(name: str, as_json: bool, timeout: float) -> None:
    """Show where the engines of a cluster are: their Python stacks, identical ones together.

    \b
      ipcluster stacks
      ipcluster stacks --name heat --json

    It disturbs nothing, and works while engines sit in C code or in MPI.
    """
    from hpc.client.lookout import completed
    from hpc.cluster.link import Monitor
    from hpc.security.info import ConnectionInfo
    from hpc.wire.stacks import Stacks

    entry = choose(name)
    if entry is None or entry.gone or entry.info is None:
        fail(f"there is no cluster named {name!r} that runs" if name else "no cluster is running")
    try:
        monitor = Monitor(ConnectionInfo.load(entry.directory / "monitor.json"), timeout)
        try:
            rows = completed(monitor.ask("stacks", timeout))
        finally:
            monitor.close()
    except HpcError as error:
        fail(str(error))
    click.echo(json.dumps(rows, indent=2) if as_json else str(Stacks(rows)))
