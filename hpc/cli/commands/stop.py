"""``ipcluster stop``: end clusters."""

# ruff: noqa: D301 - click leaves a paragraph after \b as it is

import click

from hpc.cli.commands.options import fail, say
from hpc.cluster.ending import stop
from hpc.cluster.record import Entry, entries
from hpc.errors import HpcError


@click.command("stop")
@click.option("--name", default="", help="Which cluster; not needed where there is only one.")
@click.option("--all", "everything", is_flag=True, help="All clusters of this user.")
@click.option("--timeout", type=float, default=15.0, show_default=True, help="Seconds to wait for the end.")
def command(name: str, everything: bool, timeout: float) -> None:
    """End a cluster: engines, controller, their files and sockets.

    \b
      ipcluster stop                      the one that is running
      ipcluster stop --name heat
      ipcluster stop --all

    Returns when nothing of it is left. What clusters that crashed left behind is removed, too.
    """
    if name and everything:
        raise click.UsageError("--name names one, --all means all: give one of them")
    failed = False
    for entry in _choose(name, everything):
        try:
            click.echo(stop(entry, timeout))
        except HpcError as error:
            say(str(error))
            failed = True
    raise SystemExit(int(failed))


def _choose(name: str, everything: bool) -> list[Entry]:
    found = entries()
    living = [entry for entry in found if not entry.gone]
    gone = [entry for entry in found if entry.gone]
    if everything:
        return living + gone
    if name:
        named = [entry for entry in found if entry.name == name]
        if not named:
            fail(f"there is no cluster named {name!r} (running: {', '.join(e.name for e in living) or 'none'})")
        return named
    if len(living) > 1:
        fail("several clusters are running: choose with --name, or --all: " + ", ".join(e.name for e in living))
    if not living and not gone:
        fail("no cluster is running")
    return living or gone
