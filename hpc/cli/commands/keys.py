"""``ipcluster keys``: who is let in by TCP, and who no longer."""

# ruff: noqa: D301 - click leaves a paragraph after \b as it is

import time
from pathlib import Path
from typing import Any

import click

from hpc.cli.commands.options import fail, name_option
from hpc.cli.commands.status import choose
from hpc.errors import HpcError

TIMEOUT_S = 10.0
_ROLE = click.Choice(("client", "engine", "monitor"))


@click.group("keys", invoke_without_command=True)
@name_option
@click.pass_context
def command(ctx: click.Context, name: str) -> None:
    """List the keys with which others are let in, hand out more, take them back.

    \b
      ipcluster keys                                    all of them, and who uses them
      ipcluster keys issue monitor --label wall -o wall.json
      ipcluster keys revoke 1f09a5c2                    cut off whoever uses it, let it in no more
      ipcluster keys renew engine                       a new key in engine.json; copies of the old one are worthless

    Processes of yours on the controller's host need no key. Those elsewhere that can read the renewed file come back by
    themselves, within seconds, and lose nothing.
    """
    if ctx.invoked_subcommand is None:
        _list(name)
    else:
        ctx.obj = name


def _list(name: str) -> None:
    rows = _ask(name, what="list")
    table = [["KEY", "ROLE", "CONNECTIONS", "SINCE", "FOR"]]
    for row in rows:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created"]))
        table.append([row["name"], row["role"], str(row["connections"]), since, row["label"]])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


@command.command("issue")
@click.argument("role", type=_ROLE)
@click.option("--label", default="", help="What or whom it is for; shown in the list.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The connection file to write.",
)
@click.pass_obj
def issue(name: str, role: str, label: str, output: Path) -> None:
    """Write a connection file with a key of its own, which can be revoked by itself.

    A monitor only looks, an engine only runs what it is sent, a client may do everything. The key is made here; its
    secret half stands in that file only.
    """
    import msgspec

    from hpc.security.info import ConnectionInfo
    from hpc.transport import new_keypair

    public, secret = new_keypair()
    try:
        theirs = ConnectionInfo.load(_directory(name) / f"{role}.json")
        msgspec.structs.replace(theirs, public_key=public, secret_key=secret).save(output)
    except (HpcError, OSError) as error:
        fail(str(error))
    key = ""
    try:
        key = _ask(name, what="admit", key=public, role=role, label=label or str(output.name))
    finally:
        if not key:
            output.unlink(missing_ok=True)
    click.echo(f"{output} holds the key {key}: whoever has that file comes in as {role}")


@command.command("renew")
@click.argument("role", type=_ROLE)
@click.pass_obj
def renew(name: str, role: str) -> None:
    """Put a new key into the connection file of a role; the old one is let in no more."""
    key = _ask(name, what="renew", role=role)
    click.echo(f"{role}.json holds the key {key} now")


@command.command("revoke")
@click.argument("key")
@click.pass_obj
def revoke(name: str, key: str) -> None:
    """Let a key in no more, and cut off whoever uses it; KEY is how it begins in the list.

    What a client has submitted with it is still run. An engine is lost, and so is what it does.
    """
    click.echo(f"the key {_ask(name, what='revoke', key=key)} is revoked")


def _directory(name: str) -> Path:
    entry = choose(name)
    if entry is None or entry.gone:
        fail(f"there is no cluster named {name!r}" if name else "no cluster is running")
    if entry.info is None:
        fail(f"cluster {entry.name!r} is {entry.state}: its controller does not listen yet")
    return entry.directory


def _ask(name: str, **fields: Any) -> Any:
    from hpc.cluster.link import Monitor
    from hpc.security.info import ConnectionInfo
    from hpc.wire import messages as m

    try:
        client = Monitor(ConnectionInfo.load(_directory(name) / "client.json"), TIMEOUT_S, role="client")
        try:
            return client.request(lambda number: m.Keys(number, **fields), TIMEOUT_S)
        finally:
            client.close()
    except (HpcError, OSError) as error:
        fail(str(error))
