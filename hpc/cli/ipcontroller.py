"""``ipcontroller``: one controller in the foreground. Also ``python -m hpc.cli.ipcontroller``."""

# ruff: noqa: D301 - click leaves a paragraph after \b as it is

import sys

import click

from hpc.cli.loglevel import log_level


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hpc", prog_name="ipcontroller")
@click.option("--ip", default="*", show_default=True, help="Address or interface to listen at; '*' for all.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=10000, show_default=True, help="Port for all; 0 for any free one."
)
@click.option("--engine-port", type=click.IntRange(0, 65535), help="A second port, for engines only.")
@click.option("--name", default="", help="Name of the cluster.  [default: default, or the next free one]")
@log_level("How much to log, on stderr.")
def main(ip: str, port: int, engine_port: int | None, name: str, log_level: str) -> None:
    """Run a controller; engines and clients come to it, in any order, until Ctrl-C.

    \b
      ipcontroller &                                   here, port 10000
      ipengine &                                       as often as you want
      ipengine --controller-ip=host0                   on another host, with the same home directory
      mpirun -n 4 ipengine --controller-port=10000 --controller-ip=host0

    Connections are encrypted and both sides prove who they are, by keys in the private directory of the cluster that
    only you can read: an engine on a host that does not share your home needs a copy of engine.json from there
    (ipengine --connection-file).

    Exit status: 0 after Ctrl-C or a shutdown by a client, 1 if it failed, 2 usage.
    """
    from hpc.cluster.record import find_entry, free_name

    try:
        name, note = free_name(name)
        left = find_entry(name)
        if left is not None:  # by one that is gone
            left.clean()
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except FileExistsError as error:
        click.echo(f"ipcontroller: {error}", err=True)
        raise SystemExit(1) from None
    if note:
        click.echo(f"ipcontroller: {note}", err=True)
    from hpc.controller.server import ControllerOptions, run_controller
    from hpc.errors import HpcError

    options = ControllerOptions(name=name, ip=ip, port=port, engine_port=engine_port, log_level=log_level)
    try:
        raise SystemExit(run_controller(options))
    except (HpcError, OSError) as error:
        click.echo(f"ipcontroller: {error}", err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    sys.exit(main(prog_name="ipcontroller"))
