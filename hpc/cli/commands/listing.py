"""``ipcluster list``: the clusters of this user."""

import json
import time
from typing import Any, Final

import click

from hpc.cluster.options import GroupRow
from hpc.cluster.record import LOGS, Entry, entries

# What a job is shown as once more, and then forgotten.
_FINAL: Final = ("completed", "failed", "canceled", "timeout", "preempted", "node_fail")


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="A JSON array with one object for each cluster.")
def command(as_json: bool) -> None:
    """List the clusters of this user, newest first, and their jobs.

    STATE is submitted (as jobs, see below the line), starting, running, orphaned (its supervisor is gone, the
    controller is ending it) or gone. What is gone is shown once, with the reason, and what it left behind is removed,
    except for logs.
    """
    found = entries()
    jobs = jobs_of(found)
    for entry in found:
        entry.gone = entry.gone or _why_over(entry, jobs.get(entry.name, []))
    rows = [_row(entry, jobs.get(entry.name, [])) for entry in found]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif not rows:
        click.echo("no cluster is running: ipcluster start -n 4")
    else:
        _print_table(rows)
    for entry in found:
        if entry.gone:
            entry.clean()
        for job, shown in zip(entry.jobs, jobs.get(entry.name, []), strict=False):
            if shown["state"] in _FINAL:
                job.forget()


def _why_over(entry: Entry, jobs: list[dict[str, Any]]) -> str:
    """Say why a cluster is gone whose controller was in a job, since on another host nothing else tells; else ""."""
    holding = [job for job in jobs if job["shape"] != "engines"]
    if entry.info is None or entry.info.is_local() or any(job["state"] not in _FINAL for job in holding):
        return ""
    return ", ".join(f"job {job['job']} {job['state']}" for job in holding)


def jobs_of(found: list[Entry]) -> dict[str, list[dict[str, Any]]]:
    """Return how the jobs of clusters stand: those that were submitted, by one query; others as last heard."""
    rows = {
        entry.name: [job_row(group) for group in entry.record.groups if group.job] for entry in found if entry.record
    }
    submitted = [job for entry in found for job in entry.jobs]
    if submitted:
        from hpc.cluster.submitted import row, statuses

        known = statuses(submitted)
        for job in reversed(submitted):
            rows.setdefault(job.cluster, []).insert(0, row(job, known[job.job.id]))
    return rows


def job_row(group: GroupRow) -> dict[str, Any]:
    """Return what is shown of the job of a group."""
    return {
        "job": group.job,
        "shape": "engines",
        "state": group.state,
        "n": group.n,
        "reason": group.reason or None,
        "start": group.start_s or None,
        "end": group.end_s or None,
        "nodes": list(group.nodes),
    }


def job_line(row: dict[str, Any]) -> str:
    """Say in one line how a job stands."""
    from hpc.cluster.jobs import clock

    text = f"job {row['job']} ({row['shape']}): {row['state']}"
    if row["reason"]:
        text += f", {row['reason']}"
    if row.get("exit_code") is not None:
        text += f", exit code {row['exit_code']}"
    if row["state"] in ("pending", "queued", "held", "new") and row["start"]:
        text += f", expected to start {clock(row['start'])}"
    if row["nodes"]:
        text += f", on {', '.join(row['nodes'])}"
    if row["state"] in ("running", "active") and row["end"]:
        text += f", until {clock(row['end']).removeprefix('at ')}"
    return text


def _row(entry: Entry, jobs: list[dict[str, Any]]) -> dict[str, Any]:
    record, info = entry.record, entry.info
    logs = entry.directory / LOGS
    return {
        "name": entry.name,
        "state": entry.state,
        "n": record.n if record else None,
        "launcher": record.launcher if record else None,
        "host": info.host if info else record.host if record else None,
        "pid": record.pid if record else None,
        "controller_pid": info.pid if info else (record.controller_pid if record else 0) or None,
        "address": info.addresses[0] if info and info.addresses else None,
        "created": entry.created,
        "logs": str(logs) if logs.is_dir() else None,
        "reason": entry.gone or None,
        "jobs": jobs,
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    lines: list[tuple[str, ...]] = [("NAME", "STATE", "N", "LAUNCHER", "HOST", "CONTROLLER", "ADDRESS", "AGE")]
    for row in rows:
        address = str(row["address"] or "-").removeprefix("tcp://")
        cells = [row["name"], row["state"], row["n"], row["launcher"], row["host"], row["controller_pid"], address]
        age = _age(time.time() - float(str(row["created"])))
        lines.append((*("-" if cell is None else str(cell) for cell in cells), age))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    nothing: dict[str, Any] = {}
    for line, described in zip(lines, [nothing, *rows], strict=True):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        if described.get("reason"):
            click.echo(f"    gone: {described['reason']}")
            if described["logs"]:
                click.echo(f"    logs: {described['logs']}")
        for job in described.get("jobs", ()):
            click.echo(f"    {job_line(job)}")


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
