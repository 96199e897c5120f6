"""Print a job script: ``python -m jobscripts slurm --nodes 4 --ranks-per-node 32 --walltime 2:00:00 -- program``."""

import argparse
import dataclasses
import sys
from typing import Any, Final

from jobscripts import JobScriptError, JobSpec, Launch, Profile, detect, get_scheduler

# Fields that a command line has no good way to write: `python` has.
_ONLY_IN_PYTHON: Final = frozenset({"command", "components", "launch", "environment"})
_MANY: Final = frozenset({"dependency", "mail_on", "prologue", "epilogue", "extra", "skip"})
_WHOLE: Final = frozenset(
    {"nodes", "ranks_per_node", "ranks", "cpus_per_rank", "gpus_per_node", "memory_mib", "notice_s"}
)
_SWITCHES: Final = frozenset({"exclusive", "requeue"})


def parser() -> argparse.ArgumentParser:
    """Return the command line, which has an option for each field of `JobSpec`."""
    made = argparse.ArgumentParser("python -m jobscripts", description="Print a job script.", allow_abbrev=False)
    made.add_argument("scheduler", choices=["slurm", "pbs", "torque", "mpiexec", "auto"])
    for field in dataclasses.fields(JobSpec):
        option = f"--{field.name.replace('_', '-')}"
        if field.name in _SWITCHES:
            made.add_argument(option, action=argparse.BooleanOptionalAction, default=None)
        elif field.name in _MANY:
            made.add_argument(option, action="append", metavar="TEXT", help="may be given several times")
        elif field.name not in _ONLY_IN_PYTHON:
            made.add_argument(
                option, type=int if field.name in _WHOLE else str, metavar="N" if field.name in _WHOLE else "TEXT"
            )
    made.add_argument("--environment", action="append", default=[], metavar="NAME=VALUE")
    made.add_argument("--launch", choices=["srun", "mpirun", "mpiexec"], help="start the command as ranks of MPI")
    made.add_argument("--mpi", default="", metavar="pmi2|pmix", help="for srun")
    made.add_argument("--hostfile", default="", help="for mpirun without a scheduler")
    made.add_argument("--site", help="a profile: its name, or a file")
    made.add_argument("command", nargs="+", help="after --: the program and its arguments")
    return made


def read_spec(arguments: argparse.Namespace) -> JobSpec:
    """Return the job that the command line describes."""
    given: dict[str, Any] = {
        name: tuple(value) if name in _MANY else value
        for name, value in vars(arguments).items()
        if value is not None and name in {field.name for field in dataclasses.fields(JobSpec)} - _ONLY_IN_PYTHON
    }
    launch = Launch(arguments.launch, arguments.mpi, hostfile=arguments.hostfile) if arguments.launch else None
    environment = dict(item.partition("=")[::2] for item in arguments.environment)
    return JobSpec(command=tuple(arguments.command), launch=launch, environment=environment, **given)


def main(words: list[str] | None = None) -> int:
    """Print the script; 2 and a message if it cannot be."""
    arguments = parser().parse_args(words)
    try:
        spec = read_spec(arguments)
        profile = Profile.load(arguments.site) if arguments.site else Profile()
        name = arguments.scheduler if arguments.scheduler != "auto" else profile.scheduler
        scheduler = get_scheduler(name) if name else detect()
        sys.stdout.write(scheduler.script(profile.apply(spec)))
    except JobScriptError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
