"""What the commands that start a cluster print."""

import sys
from typing import Final

import click

from hpc.cli.commands.options import say
from hpc.cluster.options import ClusterOptions, Event
from hpc.cluster.starter import Starter

_CLEAR_LINE: Final = "\r\x1b[2K"


class Progress:
    """Shows the events of a start as they come; on a terminal the engines are counted in place."""

    def __init__(self, options: ClusterOptions) -> None:
        self._counting = False
        self._in_place = sys.stderr.isatty()
        self._by = {"local": "", "mpiexec": " by mpirun"}.get(options.launcher, " by a job")
        if self._in_place:
            self._count("starting the controller")

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if event.kind == "engines":
            if self._in_place:
                self._count(f"{event.up} of {event.of} engines are registered, started{self._by}")
            return
        if event.kind in ("ready", "ended") or event.text:
            self.clear()
        if event.kind in ("claimed", "controller", "launcher", "job", "lost") and event.text:
            say(event.text)

    def clear(self) -> None:
        """Remove the count, if there is one, before something else is printed."""
        if self._counting:
            click.echo(_CLEAR_LINE, nl=False, err=True)
            self._counting = False

    def _count(self, text: str) -> None:
        click.echo(f"{_CLEAR_LINE}ipcluster: {text}", nl=False, err=True)
        self._counting = True


def welcome(starter: Starter, controller: Event) -> str:
    """Return what a person needs to use a cluster that is ready."""
    n, name = starter.options.n, starter.name
    engines = "1 engine" if n == 1 else f"{n} engines"
    launcher = starter.options.launcher
    by = {"local": "", "mpiexec": " (ranks of one mpirun)"}.get(launcher, f" (ranks of a {launcher} job)")
    return f"""\
Cluster {name!r}: controller at {controller.host}:{controller.port} (pid {controller.pid}), {engines}{by}.
In Python:

    import hpc
    rc = hpc.RemoteController(("{controller.host}", {controller.port}))
    rc.getIDs()

Logs: {starter.logs}"""
