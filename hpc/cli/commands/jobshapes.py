"""What ``ipcluster script`` and ``ipcluster submit`` have in common: which job is meant."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import click

from hpc.cli.commands.joboptions import job_fields, job_options
from hpc.cli.commands.options import fail
from hpc.cluster.options import SCHEDULERS
from hpc.cluster.shapes import SHAPES, Plan, Programs, make_plan
from jobscripts import JobScriptError, JobSpec

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    job_options,
    click.option(
        "-n", "ranks", type=click.IntRange(min=1), help="Engines in all, where the scheduler may choose the nodes."
    ),
    click.option(
        "--array", default="", help="Submit it many times, with these indices: 0-9, or 0-9%2 for two at a time."
    ),
    click.option("--job-name", default="", help="What the queue calls the job."),
    click.option("--workdir", default="", help="Where the job works.  [default: where it is submitted]"),
    click.option("--stdout", default="", help="File for what the job prints; {id} stands for its id."),
    click.option("--stderr", default="", help="Another file for what it prints on stderr."),
    click.option("--name", default="", help="Name of the cluster.  [default: default, or the next free one]"),
    click.option("--connection-file", default="", help="For engines: the engine.json of their controller."),
    click.argument("scheduler", type=click.Choice((*SCHEDULERS, "mpiexec"))),
    click.argument("shape_and_script", nargs=-1, type=click.UNPROCESSED, metavar="[SHAPE] [-- SCRIPT ARGS...]"),
)


def shape_options(function: F) -> F:
    """Add the arguments and options that describe a job of one of the shapes."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


class Described(NamedTuple):
    """A job as the command line describes it."""

    plan: Plan
    spec: JobSpec
    shape: str
    cluster: str


def described(
    *,
    scheduler: str,
    shape_and_script: tuple[str, ...],
    name: str,
    connection_file: str,
    job_name: str,
    site: str,
    programs: Programs,
    probing: bool,
    **job: Any,
) -> Described:
    """Return the job that is meant; what is wrong with it ends the program."""
    first, *rest = shape_and_script or ("together",)
    shape, script = (first, rest) if first in SHAPES else ("batch", [first, *rest])
    if script and shape != "batch":
        raise click.UsageError(
            f"the shape {shape} runs no script: leave out {' '.join(script)}, or take the shape batch"
        )
    if connection_file and shape != "engines":
        raise click.UsageError(f"--connection-file is for the shape engines, not {shape}")
    try:
        fields = job_fields(job) | ({"name": job_name} if job_name else {})
        plan = make_plan(scheduler, fields, site=site, programs=programs, probing=probing)
        if shape == "batch":
            spec = plan.batch(script, name=name)
        elif shape == "engines":
            spec = plan.engines(name=name, connection_file=connection_file)
        else:
            spec = plan.together(name=name) if shape == "together" else plan.controller(name=name)
        return Described(plan, spec, shape, name)
    except JobScriptError as error:
        fail(str(error), 2)
