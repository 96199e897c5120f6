"""What stands below the directives: bash that is the same for all schedulers."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from jobscripts.errors import SpecError
from jobscripts.launch import launch_line
from jobscripts.quoting import command_line, shell_word
from jobscripts.spec import JobSpec

__all__ = ["Dialect", "script_body"]

# Seconds before its walltime ends from which on a SIGTERM means the walltime, not a person.
WALLTIME_SLACK_S: Final = 30
# Without a scheduler, the script itself kills what does not end after SIGTERM.
KILL_AFTER_S: Final = 10
# A signal may find a subshell that bash has only just forked, with the traps of the script still in it.
_ONLY_HERE: Final = "((BASHPID == $$)) || exit 143"


@dataclass(frozen=True)
class Dialect:
    """What the body has to know of a scheduler.

    Attributes
    ----------
    name : str
        ``slurm``, ``pbs``, ``torque``, ``mpiexec``.
    job_id, index : str
        The shell's words for the job's id and the index in an array.
    submit_directory : str
        The variable with the directory of submission, if jobs start elsewhere.
    signals_notice : bool
        The scheduler itself sends SIGUSR1 before the walltime ends.
    ends_jobs : bool
        It kills what is left of a job, and jobs that are out of time.
    """

    name: str
    job_id: str
    index: str = ""
    submit_directory: str = ""
    signals_notice: bool = False
    ends_jobs: bool = True


def script_body(spec: JobSpec, dialect: Dialect, setup: Iterable[str] = (), cleanup: Iterable[str] = ()) -> str:
    """Return the script without its directives.

    Parameters
    ----------
    setup, cleanup : iterable of str
        Lines that the scheduler's MPI needs before the prologue, and at the very end.

    Raises
    ------
    SpecError
        There is no command, or its launcher cannot start it here.
    """
    if not spec.command:
        raise SpecError("command", "there is none; give the words of a program, or shell text")
    supervised = bool(spec.exit_file or spec.notice_s is not None or (spec.walltime_s and not dialect.ends_jobs))
    last = [*spec.epilogue, *cleanup]
    blocks = [_where(spec, dialect), _variables(spec)]
    if supervised:
        blocks.append(_ending(spec, dialect, last))
    elif last:
        blocks.append(["finish() {", *_indented(last), "}", "trap finish EXIT"])
    blocks += [list(setup), list(spec.prologue), *(_supervised if supervised else _plain)(spec, dialect)]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _where(spec: JobSpec, dialect: Dialect) -> list[str]:
    if spec.workdir:
        return [f"cd -- {shell_word(spec.workdir)} || exit"]
    return [f'cd -- "${dialect.submit_directory}" || exit'] if dialect.submit_directory else []


def _variables(spec: JobSpec) -> list[str]:
    lines = [f"export {name}={shell_word(value)}" for name, value in spec.environment.items()]
    if spec.walltime_s is not None:
        lines.append(f"export HPC_WALLTIME_END=$(($(date +%s) + {spec.walltime_s}))")
    return lines


def _ending(spec: JobSpec, dialect: Dialect, last: list[str]) -> list[str]:
    """Say what happens at the very end, however it comes."""
    lines = ["main= timers=()"]
    report: list[str] = []
    if spec.exit_file:
        suffix = f".{dialect.index}" if spec.array else ""
        # What an earlier run left must not speak for a job that was started again.
        lines += ["started=$(date +%s) reason="]
        lines += [f"exit_file={shell_word(spec.exit_file)}{suffix}", 'rm -f -- "$exit_file"']
        report = [
            "# How it ended, for whoever asks when the scheduler has forgotten this job.",
            'printf \'%s\\n\' "code=$code" "started=$started" "ended=$(date +%s)" "host=$(hostname)" \\',
            f'    "reason=$reason" "job={dialect.job_id}" >"$exit_file.$$" && mv -f -- "$exit_file.$$" "$exit_file"',
        ]
    if _uses_timers(spec, dialect):
        report.insert(0, '((${#timers[@]})) && kill "${timers[@]}" 2>/dev/null')
    lines += [
        "finish() {",
        *_indented(["local code=$?", _ONLY_HERE, "trap '' TERM USR1", *report, *last, 'exit "$code"']),
        "}",
    ]
    # A notice while the prologue is at work must not end the job.
    early = ["trap : USR1"] if spec.notice_s is not None else []
    return [
        *lines,
        "trap finish EXIT",
        *early,
        f"trap '{'reason=terminated; ' if spec.exit_file else ''}exit 143' TERM",
    ]


def _plain(spec: JobSpec, dialect: Dialect) -> list[list[str]]:
    return [[_command(spec, dialect)]]


def _supervised(spec: JobSpec, dialect: Dialect) -> list[list[str]]:
    """Have the command run in the background, since bash hears of signals only while it waits."""
    return [
        _AFTER.splitlines() if _uses_timers(spec, dialect) else [],
        _main(spec, dialect),
        _traps(spec, dialect),
        # Without a scheduler: each command in its own process group, which can be ended as a whole.
        [*([] if dialect.ends_jobs else ["set -m"]), "main &", "main=$!", *_timers(spec, dialect), *_WAIT.splitlines()],
    ]


_AFTER: Final = """\
# after SECONDS COMMAND: run it then, unless the job has ended
after() {
    (first=$!; trap '[[ $! == "$first" ]] || kill "$!"; exit' TERM; sleep "$1" & wait "$!"; eval "$2") &
    timers+=("$!")
}
"""
# A trap ends `wait` while the command goes on. scancel sends SIGCONT and then SIGTERM, and where bash takes note of
# them the other way round, it believes for ever that the command runs, and `wait` returns -1.
_WAIT: Final = """\
while :; do
    caught=
    wait "$main"
    code=$?
    ((code < 0)) && { kill -0 "$main" 2>/dev/null && continue; code=143; }
    [[ $caught ]] || break
done
exit "$code"
"""


def _main(spec: JobSpec, dialect: Dialect) -> list[str]:
    first = "    trap - INT QUIT TERM    # bash has what runs in the background ignore interrupts"
    if isinstance(spec.command, str):
        survive = "    trap : USR1    # a notice ends no shell; set a trap of your own to hear it"
        return ["main() {", first, survive, spec.command, "}"]
    return ["main() {", first, f"    exec {_command(spec, dialect)}", "}"]


def _traps(spec: JobSpec, dialect: Dialect) -> list[str]:
    group = "" if dialect.ends_jobs else "-"
    body = [_ONLY_HERE, "[[ $main ]] || exit 143", "caught=1"]
    if spec.exit_file:
        body.append("reason=terminated")
        if spec.walltime_s is not None:
            body.append(f"(($(date +%s) < HPC_WALLTIME_END - {WALLTIME_SLACK_S})) || reason=walltime")
    body.append(f'kill -TERM -- "{group}$main" 2>/dev/null')
    if not dialect.ends_jobs:
        body.append(f"after {KILL_AFTER_S} 'kill -KILL -- \"-$main\"'")
    lines = ["on_term() {", *_indented(body), "}", "trap on_term TERM"]
    if spec.notice_s is not None:
        lines += ['on_notice() { caught=1; kill -USR1 "$main" 2>/dev/null; }', "trap on_notice USR1"]
    return lines


def _uses_timers(spec: JobSpec, dialect: Dialect) -> bool:
    return bool(_timers(spec, dialect)) or not dialect.ends_jobs


def _timers(spec: JobSpec, dialect: Dialect) -> list[str]:
    if spec.walltime_s is None:
        return []
    timers = []
    if spec.notice_s is not None and not dialect.signals_notice:
        timers.append(f"after {spec.walltime_s - spec.notice_s} 'kill -USR1 $$'")
    if not dialect.ends_jobs:
        timers.append(f"after {spec.walltime_s} 'kill -TERM $$'")
    return timers


def _command(spec: JobSpec, dialect: Dialect) -> str:
    if isinstance(spec.command, str):
        return spec.command
    if spec.launch is None:
        return command_line(spec.command)
    return launch_line(spec.launch, spec, spec.command, scheduler=dialect.name)


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for line in lines]
