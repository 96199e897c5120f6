"""Options that say what a job asks of its scheduler; their names are those of the fields of `jobscripts.JobSpec`."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_NUMBER: Final = click.IntRange(min=1)


def _pair(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals:
            raise click.BadParameter(f"{value!r}: write NAME=VALUE", ctx, param)
        pairs[name] = text
    return pairs


def _components(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[dict[str, Any], ...]:
    parts = []
    for value in values:
        fields = _pair(ctx, param, tuple(value.replace(" ", "").split(",")))
        parts.append({k.replace("-", "_"): int(text) if text.isdigit() else text for k, text in fields.items()})
    return tuple(parts)


_JOB: Final = (
    click.option("--walltime", help="How long the job may run: 2:00:00, 90m, 1-12:00:00."),
    click.option("--nodes", type=_NUMBER, help="How many nodes."),
    click.option("--ranks-per-node", type=_NUMBER, help="Engines on each node."),
    click.option("--cpus-per-rank", type=_NUMBER, help="Cores for each engine."),
    click.option("--gpus-per-node", type=click.IntRange(min=0), help="GPUs of each node."),
    click.option("--memory-mib", type=_NUMBER, help="Memory of each node, in MiB."),
    click.option("--queue", "-q", default="", help="Queue; Slurm calls it partition."),
    click.option("--account", "-A", default="", help="Account, or project, that pays."),
    click.option("--qos", default="", help="Quality of service."),
    click.option("--constraint", default="", help="Feature that nodes must have."),
    click.option("--reservation", default="", help="Reservation to run in."),
    click.option("--exclusive", is_flag=True, help="No other job on these nodes."),
    click.option("--dependency", multiple=True, help="afterok:123; may be given several times."),
    click.option("--mail", default="", help="Address to write to at the end."),
    click.option("--notice", "notice_s", type=_NUMBER, help="Seconds of warning before the walltime ends."),
    click.option(
        "--requeue/--no-requeue", default=None, help="Whether the scheduler may start it again from the beginning."
    ),
    click.option(
        "--env", "environment", multiple=True, callback=_pair, metavar="NAME=VALUE", help="Variable for the job."
    ),
    click.option("--prologue", multiple=True, help="Line of bash before all else: module load ..."),
    click.option("--epilogue", multiple=True, help="Line of bash after all else."),
    click.option("--directive", "extra", multiple=True, help="Directive to add as it is: '--mem-bind=local'."),
    click.option("--skip", multiple=True, help="Directive not to write: '--mem'."),
    click.option(
        "--component",
        "components",
        multiple=True,
        callback=_components,
        metavar="FIELD=N,...",
        help="Part of a heterogeneous job: nodes=1,ranks-per-node=4,gpus-per-node=4.",
    ),
    click.option(
        "--launch", default="", help="What starts ranks there: mpirun, srun:pmix, srun:pmi2.  [default: found out]"
    ),
    click.option("--site", default="", help="Profile of this site."),
)


def job_options(function: F) -> F:
    """Add the options that describe a job."""
    for option in reversed(_JOB):
        function = option(function)
    return function


def job_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a job that were given."""
    # A flag that is not given is None or False; --no-requeue and 0 GPUs are said.
    return {
        field: value
        for field, value in given.items()
        if (value if field == "exclusive" else value is not None and value not in ("", (), {}))
    }
