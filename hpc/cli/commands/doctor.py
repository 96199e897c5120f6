"""``ipcluster doctor``: what keeps a cluster from working here, and what to do about it."""

# ruff: noqa: D301 - click leaves a paragraph after \b as it is

import json
from dataclasses import asdict
from typing import Any

import click

from hpc.cli.commands.joboptions import job_fields, job_options
from hpc.cluster.doctor.finding import Finding, Verdict
from hpc.cluster.options import LAUNCHERS

_COLOURS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "red", Verdict.SKIPPED: None}


@click.command("doctor")
@click.option("--launcher", type=click.Choice(LAUNCHERS), help="What to look at.  [default: the scheduler found here]")
@job_options
@click.option("--job/--no-job", "submit", default=True, show_default=True, help="Submit a real job of two ranks.")
@click.option(
    "--timeout", type=float, default=120.0, show_default=True, help="Seconds to wait for the end of that job."
)
@click.option("--json", "as_json", is_flag=True, help='[{"check", "verdict", "text", "remedy"}, ...]')
def command(launcher: str | None, submit: bool, timeout: float, as_json: bool, **job: Any) -> None:
    """Check this machine, its MPI and its scheduler for what clusters need.

    \b
      ipcluster doctor
      ipcluster doctor --site bigiron --account physics
      ipcluster doctor --launcher slurm --queue debug --no-job

    Each line that fails names the remedy. With a scheduler, a job of two ranks is submitted: do they find each other,
    do they reach this machine, see its files, agree with its clock?

    Exit status 1 if something failed; warnings do not count.
    """
    from hpc.cluster.doctor.examine import examine

    site = job.pop("site")
    findings = []
    for finding in examine(launcher or "", job_fields(job), site, submit=submit, timeout_s=timeout):
        findings.append(finding)
        if not as_json:
            _print(finding)
    if as_json:
        rows = [{**asdict(finding), "verdict": finding.verdict.value} for finding in findings]
        click.echo(json.dumps(rows, indent=2))
    raise SystemExit(int(any(finding.verdict is Verdict.FAILED for finding in findings)))


def _print(finding: Finding) -> None:
    first, *rest = finding.text.splitlines() or [""]
    click.echo(f"{click.style(finding.verdict.value.ljust(7), _COLOURS[finding.verdict])}  {finding.check}: {first}")
    for line in rest:
        click.echo(f"         {line.strip()}")
    for i, line in enumerate(finding.remedy.splitlines()):
        click.echo(f"         {'remedy:' if not i else '       '} {line.strip()}")
