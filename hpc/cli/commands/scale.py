"""``ipcluster scale``: more or fewer engines, while a cluster runs."""

# ruff: noqa: D301 - click leaves a paragraph after \b as it is

import click

from hpc.cli.commands.options import fail, name_option
from hpc.cli.commands.status import choose
from hpc.errors import HpcError


@click.command("scale")
@name_option
@click.option(
    "--adapt", type=(int, int), metavar="MIN MAX", help="Follow the load between these, until the next scale."
)
@click.option("--timeout", type=float, default=60.0, show_default=True, help="Seconds to wait for it to come about.")
@click.argument("n", type=click.IntRange(min=0), required=False)
def command(name: str, adapt: tuple[int, int] | None, timeout: float, n: int | None) -> None:
    """Start or end engines until there are N in all.

    \b
      ipcluster scale 8
      ipcluster scale 128 --name heat         in a cluster of jobs: one more job with as many as are missing
      ipcluster scale --adapt 0 64            as many as there is work for

    Engines that started together end together, those first that are idle. Returns when the engines are there; when
    that takes longer, as with a job that waits in the queue, it goes on without this command.
    """
    if (n is None) == (adapt is None):
        raise click.UsageError("give the number of engines there shall be, or --adapt MIN MAX")
    entry = choose(name)
    if entry is None or entry.gone:
        fail(f"there is no cluster named {name!r}" if name else "no cluster is running")
    from hpc.cluster.cluster import Cluster

    try:
        cluster = Cluster.from_name(entry.name)
        if adapt is not None:
            cluster.adapt(*adapt)
            click.echo(f"cluster {entry.name!r} follows its load, between {adapt[0]} and {adapt[1]} engines")
            return
        assert n is not None  # noqa: S101 - checked above
        cluster.scale(n, timeout=timeout)
    except TimeoutError as error:
        fail(str(error))
    except HpcError as error:
        fail(str(error))
    click.echo(f"cluster {entry.name!r} has {n} engines")
