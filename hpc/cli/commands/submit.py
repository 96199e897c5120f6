"""``ipcluster submit``: a job with a cluster in it, into the queue."""

# ruff: noqa: D301 - click leaves a paragraph after \b as it is

import sys
from typing import Any

import click

from hpc.cli.commands.jobshapes import described, shape_options
from hpc.cli.commands.options import fail, say
from hpc.cli.commands.status import choose
from hpc.cluster.record import free_name
from hpc.cluster.shapes import Programs
from hpc.errors import HpcError
from hpc.security.info import ConnectionInfo
from jobscripts import JobScriptError


@click.command("submit")
@shape_options
@click.option("--wait", is_flag=True, help="Wait for the end of the job; the exit status is the job's.")
def command(wait: bool, **job: Any) -> None:
    """Submit a job with a cluster in it and print its id; SHAPE says what it runs, see ipcluster script --help.

    \b
      ipcluster submit slurm batch --nodes 4 --ranks-per-node 32 --walltime 2:00:00 -- analysis.py
      ipcluster submit slurm engines --name heat --array 0-9%2 --nodes 1 --ranks-per-node 32 --walltime 1:00:00

    The job uses this Python. What it prints stands in the current directory. ipcluster list shows how the job is doing,
    ipcluster stop ends it.
    """
    from hpc.cluster import submitted

    try:
        if not job["name"]:
            job["name"] = _name(job)
        made = described(**job, programs=Programs(sys.executable), probing=True)
        entry = submitted.submit(made.plan.scheduler, made.spec, shape=made.shape, cluster=made.cluster)
    except (JobScriptError, HpcError, OSError, ValueError) as error:
        fail(str(error))
    click.echo(entry.job.id)
    say(f"{entry}; output: {entry.job.stdout.replace('{index}', '*')}")
    if wait:
        raise SystemExit(_wait(entry))


def _name(job: dict[str, Any]) -> str:
    """Return the name of the cluster that a job without one is of: for engines, that of their controller."""
    if "engines" not in job["shape_and_script"][:1]:
        return free_name("")[0]
    if job["connection_file"]:
        return ConnectionInfo.load(job["connection_file"]).name
    entry = choose("")
    if entry is None or entry.gone:
        fail("no cluster is running that engines could join: start one, or name it (--name, --connection-file)")
    return entry.name


def _wait(entry: Any) -> int:
    from hpc.cluster.submitted import describe
    from jobscripts import Runner, State, get_scheduler

    try:
        runner = Runner(get_scheduler(entry.job.scheduler))
        status = runner.wait([entry.job], on_change=lambda status: say(describe(status)))[entry.job.id]
    except KeyboardInterrupt:
        fail(f"Ctrl-C: the job goes on; ipcluster list shows it, ipcluster stop --name {entry.cluster} ends it", 130)
    entry.forget()
    return status.exit_code or int(status.state is not State.COMPLETED)
