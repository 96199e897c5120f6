"""``ipcluster script``: the job scripts that a cluster needs, printed."""

# ruff: noqa: D301 - click leaves a paragraph after \b as it is

from typing import Any

import click

from hpc.cli.commands.jobshapes import described, shape_options
from hpc.cli.commands.options import fail
from hpc.cluster.shapes import Programs
from jobscripts import JobScriptError


@click.command("script")
@shape_options
def command(**job: Any) -> None:
    """Print a job script for SCHEDULER; SHAPE says what it runs.

    \b
      together      controller and engines, until the walltime, for clients elsewhere (the default)
      batch         controller, engines, and SCRIPT as their client; it ends with the exit status of SCRIPT
      engines       engines of a controller that runs elsewhere; with --array, as many jobs as that says
      controller    a controller whose engines come by jobs of the shape engines

    \b
      ipcluster script slurm batch --nodes 4 --ranks-per-node 32 --walltime 2:00:00 -- analysis.py
      ipcluster script pbs engines --nodes 2 --ranks-per-node 16 --walltime 1:00:00 --name heat
      ipcluster script slurm together --component nodes=1,ranks-per-node=4,gpus-per-node=4 \\
          --component nodes=2,ranks-per-node=32 --launch srun:pmix --walltime 1:00:00

    The script calls ipcluster and ipengine by name: have them on PATH where it runs (--prologue, or a site's profile).
    Ranks are started by mpirun unless --launch or the profile says otherwise.
    """
    made = described(**job, programs=Programs(), probing=False)
    try:
        click.echo(made.plan.scheduler.script(made.spec), nl=False)
    except JobScriptError as error:
        fail(str(error), 2)
