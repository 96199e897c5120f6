"""``ipcluster``: start, find, watch and end clusters. Also ``python -m hpc.cli.ipcluster``."""

# ruff: noqa: D301 - click leaves a paragraph after \b as it is

import importlib
import sys
from typing import Any, Final

import click

from hpc.cli.commands.options import launch_options

# Name: (module in hpc.cli.commands, one line for --help). A table, so that --help imports none of them.
COMMANDS: Final = {
    "start": ("start", "Start a cluster in the background, return when its engines are usable."),
    "stop": ("stop", "End a cluster, leave nothing behind."),
    "list": ("listing", "List the clusters of this user, also those that are gone."),
    "status": ("status", "Show a cluster's controller and engines."),
    "logs": ("logs", "Show what controller and engines have logged."),
    "doctor": ("doctor", "Check this machine, its MPI and its scheduler for what clusters need."),
    "run": ("run", "Start a cluster, run a script as its client, end it."),
    "scale": ("scale", "Start or end engines of a cluster that runs."),
    "script": ("script", "Print a job script: a cluster in an allocation, a batch run, engines."),
    "submit": ("submit", "Submit such a job."),
    "keys": ("keys", "List the keys that are let in, hand out more, take them back."),
    "tunnel": ("tunnel", "Reach a cluster from a machine outside, through ssh."),
}


class _LazyGroup(click.Group):
    """A group whose subcommands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"hpc.cli.commands.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(130)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=_LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hpc", prog_name="ipcluster")
@launch_options
@click.option("--debug", is_flag=True, help="Also show the logs of controller and engines as they are written.")
@click.pass_context
def main(ctx: click.Context, /, debug: bool, **launch: Any) -> None:
    """Run a cluster: one controller and N engines that you use from Python.

    Without a command, start it here and keep it until Ctrl-C, as in 2006:

    \b
      ipcluster -n 4                      controller and 4 engines on this machine
      ipcluster -n 4 --mpi                the engines are the ranks of one mpirun
      ipcluster -n 4 --ip '*'             clients and engines on other hosts may join

    or in the background:

    \b
      ipcluster start -n 4                returns when 4 engines are usable
      ipcluster status                    who is there
      ipcluster stop                      ends it
      ipcluster start -n 64 --launcher slurm --walltime 2:00:00
      ipcluster run -n 8 --mpi -- analysis.py

    Exit status: 0 in order (the end by Ctrl-C of a cluster that ran is), 1 something failed, 2 usage, 130 Ctrl-C
    before there was a cluster; that of ``run`` is the script's.
    """
    if ctx.invoked_subcommand is None:
        from hpc.cli.commands.foreground import run

        ctx.exit(run(debug=debug, **launch))
    given = [name for name in launch if _was_given(ctx, name)]
    if given:
        option = "-n" if given[0] == "n" else "--" + given[0].replace("_", "-")
        raise click.UsageError(f"{option} belongs after the command: ipcluster {ctx.invoked_subcommand} {option} ...")


def _was_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


if __name__ == "__main__":
    sys.exit(main(prog_name="ipcluster"))
