"""``ipengine``: one engine in the foreground. Also ``python -m hpc.cli.ipengine``."""

# ruff: noqa: D301 - click leaves a paragraph after \b as it is

import os
import sys
import threading
from typing import Any

import click

from hpc.cli.loglevel import log_level
from hpc.engine.start import DEFAULT_PORT, LEASE_S, WAIT_S, EngineOptions, run_engine

# What a task left running (threads that are no daemons, slow exit handlers) may hold up the end for this long.
EXIT_S = 2.0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hpc", prog_name="ipengine")
@click.option("--controller-ip", metavar="HOST", help="Host of the controller.  [default: that of the newest cluster]")
@click.option(
    "--controller-port", type=click.IntRange(1, 65535), help=f"Its port.  [default: {DEFAULT_PORT}, if --controller-ip]"
)
@click.option("--connection-file", type=click.Path(), help="The engine.json of a cluster, or the directory it is in.")
@click.option("--name", help="Name of the cluster.  [default: the newest that is running]")
@click.option("--mpi/--no-mpi", default=None, help="Take part in MPI.  [default: if mpirun or srun started this]")
@click.option("--label", default="", hidden=True, help="What whoever starts this group calls it.")
@click.option("--replaces", default="", hidden=True, help="The group whose ids this one is to have.")
@click.option(
    "--resource",
    "resources",
    multiple=True,
    metavar="NAME=AMOUNT",
    help="What tasks may ask for, gpu=2 say; may be repeated.  [default: HPC_RESOURCES, and what is found]",
)
@click.option(
    "--labels", default="", metavar="A,B", help="Kinds of engines that this is one of.  [adds to: HPC_LABELS]"
)
@click.option(
    "--wait", "wait_s", type=float, default=WAIT_S, show_default=True, help="Seconds to wait for a controller to come."
)
@click.option(
    "--lease", "lease_s", type=float, default=LEASE_S, show_default=True, help="Seconds to go on without one later."
)
@log_level("How much to log, on stderr.")
def main(**options: Any) -> None:
    """Run an engine: a live Python that a controller sends work to, until Ctrl-C or until it is shut down.

    \b
      ipengine                                        join the newest cluster of this user
      ipengine --name big                             join the one with that name
      ipengine --controller-ip=host0                  ... whose controller runs on host0, port 10000
      ipengine --controller-port=10001                ... on this host, port 10001
      mpirun -n 4 ipengine --controller-ip=host0      four engines that share an MPI communicator

    Start controller and engines in any order: an engine waits. It finds the controller, and the keys to it, by a file
    in your home directory that only you can read. Where that is not shared, copy engine.json from the controller's
    machine and name the copy with --connection-file.

    Code on an engine finds its number as `id`; under mpirun or srun also `comm`, `rank` and `size`.

    Exit status: 0 when it was told to leave, 1 if no controller could be reached or MPI does not work, 2 usage, 70 bug.
    """
    code = run_engine(EngineOptions(**options))
    _end_after(EXIT_S, code)
    raise SystemExit(code)


def _end_after(delay_s: float, code: int) -> None:
    timer = threading.Timer(delay_s, os._exit, (code,))
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    sys.exit(main(prog_name="ipengine"))
