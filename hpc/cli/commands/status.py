"""``ipcluster status``: a cluster's controller and engines, as the controller sees them."""

# ruff: noqa: D301 - click leaves a paragraph after \b as it is

import json
from typing import Any, NoReturn

import click

from hpc.cli.commands.listing import job_line, jobs_of
from hpc.cli.commands.options import fail, name_option
from hpc.cluster.record import Entry, entries
from hpc.errors import HpcError


@click.command("status")
@name_option
@click.option(
    "--json", "as_json", is_flag=True, help='{"controller": {"pid", "host", ...}, "engines": [{"id", ...}, ...]}'
)
@click.option("--timeout", type=float, default=5.0, show_default=True, help="Seconds to wait for the controller.")
def command(name: str, as_json: bool, timeout: float) -> None:
    """Show a cluster's controller and engines.

    \b
      ipcluster status
      ipcluster status --name heat --json

    Exit status 1 if there is no such cluster, or it is gone (the reason is shown), or does not answer.
    """
    entry = choose(name)
    if entry is None:
        reason = f"there is no cluster named {name!r}" if name else "no cluster is running"
        _fail(as_json, {"name": name or None, "state": "gone", "reason": reason}, reason)
    controller: dict[str, Any] = _describe(entry)
    jobs = jobs_of([entry]).get(entry.name, [])
    if entry.gone:
        _fail(as_json, controller, f"cluster {entry.name!r} is gone: {entry.gone}")
    if entry.info is None and jobs:
        reason = "\n".join(map(job_line, jobs))
        _fail(
            as_json, controller, f"cluster {entry.name!r} is {entry.state}: no controller listens yet\n{reason}", jobs
        )
    try:
        engines = _ask(entry, timeout, controller)
    except HpcError as error:
        controller |= {"state": "unreachable", "reason": str(error)}
        _fail(as_json, controller, str(error))
    if as_json:
        click.echo(json.dumps({"controller": controller, "engines": engines, "jobs": jobs}, indent=2))
    else:
        _print(controller, engines)
        for job in jobs:
            click.echo(job_line(job))


def choose(name: str) -> Entry | None:
    """Return the cluster of that name, else the newest that is running, else the newest that is gone."""
    found = [entry for entry in entries() if not name or entry.name == name]
    return next((entry for entry in found if not entry.gone), found[0] if found else None)


def _describe(entry: Entry) -> dict[str, Any]:
    record, info = entry.record, entry.info
    return {
        "pid": info.pid if info else (record.controller_pid if record else 0) or None,
        "host": info.host if info else record.host if record else None,
        "name": entry.name,
        "state": entry.state,
        "reason": entry.gone or None,
        "addresses": list(info.addresses) if info else [],
        "unix": (info.unix if info else None) or None,
        "cluster": info.cluster if info else None,
        "created": entry.created,
        "launcher": record.launcher if record else None,
        "mpirun": (record.mpirun if record else None) or None,
        "n": record.n if record else None,
        "supervisor_pid": record.pid if record else None,
        "logs": record.logs if record else None,
    }


def _ask(entry: Entry, timeout_s: float, controller: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the engines, and complete what is known of the controller by what it says of itself."""
    from hpc.cluster.link import Monitor
    from hpc.errors import ConnectError
    from hpc.security.info import ConnectionInfo

    if entry.info is None:
        raise ConnectError(f"cluster {entry.name!r} is {entry.state}: its controller does not listen yet")
    monitor = Monitor(ConnectionInfo.load(entry.directory / "monitor.json"), timeout_s)
    try:
        answer = monitor.ask("status", timeout_s)
    finally:
        monitor.close()
    controller |= {key: value for key, value in answer["controller"].items() if key not in controller}
    engines: list[dict[str, Any]] = answer["engines"]
    return engines


def _print(controller: dict[str, Any], engines: list[dict[str, Any]]) -> None:
    addresses = ", ".join(address.removeprefix("tcp://") for address in controller["addresses"])
    click.echo(f"cluster {controller['name']!r}, {controller['state']}")
    click.echo(f"controller: pid {controller['pid']} on {controller['host']}, {addresses}")
    if controller["logs"]:
        click.echo(f"logs: {controller['logs']}")
    columns = ("id", "rank", "group", "host", "pid", "state")
    cells = [[str(engine[column]) for column in columns] for engine in engines]
    for row in cells:
        label, dash, rest = row[2].rpartition("-")
        row[2] = label if dash else rest[:8]  # a group's name is a long one, and its beginning tells them apart
    table = [[column.upper() for column in columns], *cells]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table if engines else []:
        click.echo("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    wanted = controller["n"]
    if not engines or (wanted and len(engines) < wanted):
        click.echo(f"{len(engines)} engines are registered" + (f", {wanted} were started" if wanted else ""))


def _fail(as_json: bool, controller: dict[str, Any], text: str, jobs: list[dict[str, Any]] | None = None) -> NoReturn:
    if as_json:
        click.echo(json.dumps({"controller": controller, "engines": [], "jobs": jobs or []}, indent=2))
        raise SystemExit(1)
    fail(text)
