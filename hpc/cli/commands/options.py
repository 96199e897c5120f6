"""Options that several commands share."""

import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click

from hpc.cli.commands.joboptions import job_fields
from hpc.cli.loglevel import log_level
from hpc.cluster.options import DEFAULT_PORT, LAUNCHERS, POLICIES, ClusterOptions, check, resolve

F = TypeVar("F", bound=Callable[..., Any])

_LAUNCH = (
    click.option("-n", "n", type=click.IntRange(min=0), help="How many engines; one for each core by default."),
    click.option("--mpi", is_flag=True, help="Engines are the ranks of one mpirun: short for --launcher mpiexec."),
    click.option(
        "--launcher",
        type=click.Choice(LAUNCHERS),
        default=LAUNCHERS[0],
        show_default=True,
        help="How engines start: as processes of this machine, by mpirun, or by jobs of a scheduler.",
    ),
    click.option("--name", default="", help="Name to find the cluster by.  [default: default, or the next free one]"),
    click.option(
        "--ip",
        default="",
        help="Address or interface to listen at; '*' for all.  [default: 127.0.0.1; '*' if engines run elsewhere]",
    ),
    click.option(
        "--port",
        type=click.IntRange(0, 65535),
        help=f"Port to listen at; 0 for any free one.  [default: {DEFAULT_PORT}, or any if that is taken]",
    ),
    click.option("--engine-port", type=click.IntRange(0, 65535), help="A second port, for engines only."),
    click.option(
        "--timeout", type=float, default=60.0, show_default=True, help="Seconds that the engines have to come up."
    ),
    log_level("Of the logs of controller and engines."),
    click.option("--hostfile", type=click.Path(), default="", help="Machines for mpirun, as that mpirun reads them."),
    click.option(
        "--policy",
        type=click.Choice(POLICIES),
        default=POLICIES[0],
        show_default=True,
        help="When an engine crashes: tell, start its group anew, or keep the other ranks if their MPI can.",
    ),
    # Job scripts say it this way; a person needs -n and --mpi.
    click.option("--group", "launches", type=(int, str), multiple=True, hidden=True),
)


def launch_options(function: F) -> F:
    """Add the options that say what to start; `cluster_options` understands them."""
    for option in reversed(_LAUNCH):
        function = option(function)
    return function


name_option = click.option("--name", default="", help="Which cluster.  [default: the newest that is running]")


def cluster_options(
    *,
    n: int | None,
    mpi: bool,
    launcher: str,
    name: str,
    ip: str,
    port: int | None,
    engine_port: int | None,
    timeout: float,
    log_level: str,
    hostfile: str,
    launches: tuple[tuple[int, str], ...],
    policy: str,
    site: str = "",
    keep: bool = False,
    **job: Any,
) -> ClusterOptions:
    """Turn what `launch_options`, and perhaps `job_options`, parsed into what a supervisor is told."""
    options = ClusterOptions(
        n=-1 if n is None else n,
        name=name,
        launcher="mpiexec" if mpi else launcher,
        ip=ip,
        port=-1 if port is None else port,
        engine_port=-1 if engine_port is None else engine_port,
        start_timeout_s=timeout,
        log_level=log_level,
        argv=tuple(sys.argv),
        hostfile=hostfile,
        launches=launches,
        policy=policy,
        site=site,
        keep=keep,
        job=job_fields(job),
    )
    try:
        options = resolve(options, n_given=n is not None)
        check(options)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return options


def say(text: str) -> None:
    """Tell the person, on stderr: stdout is for what was asked for."""
    click.echo(f"ipcluster: {text}", err=True)


def fail(text: str, code: int = 1) -> NoReturn:
    """Say what went wrong and exit."""
    say(text)
    raise SystemExit(code)
