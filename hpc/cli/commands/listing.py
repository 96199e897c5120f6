"""``ipcluster list``: the clusters of this user."""

import json
import time

import click

from hpc.cluster.record import LOGS, Entry, entries


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="A JSON array with one object for each cluster.")
def command(as_json: bool) -> None:
    """List the clusters of this user, newest first.

    STATE is starting, running, orphaned (its supervisor is gone, the controller is ending it) or gone. What is gone is
    shown once, with the reason, and what it left behind is removed, except for logs.
    """
    found = entries()
    rows = [_row(entry) for entry in found]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif not rows:
        click.echo("no cluster is running: ipcluster start -n 4")
    else:
        _print_table(rows)
    for entry in found:
        if entry.gone:
            entry.clean()


def _row(entry: Entry) -> dict[str, object]:
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
    }


def _print_table(rows: list[dict[str, object]]) -> None:
    lines = [("NAME", "STATE", "N", "LAUNCHER", "HOST", "CONTROLLER", "ADDRESS", "AGE")]
    for row in rows:
        address = str(row["address"] or "-").removeprefix("tcp://")
        cells = [row["name"], row["state"], row["n"], row["launcher"], row["host"], row["controller_pid"], address]
        age = _age(time.time() - float(str(row["created"])))
        lines.append((*("-" if cell is None else str(cell) for cell in cells), age))  # type: ignore[arg-type]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line, described in zip(lines, [{}, *rows], strict=True):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        if described.get("reason"):
            click.echo(f"    gone: {described['reason']}")
            if described["logs"]:
                click.echo(f"    logs: {described['logs']}")


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
