"""Slurm: sbatch, squeue, sacct, scancel. Names are those of sbatch(1); nothing newer than 22.05 is needed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from jobscripts import slurm_states
from jobscripts.body import Dialect, script_body
from jobscripts.directives import Directives
from jobscripts.errors import QueryError, SchedulerError, SpecError
from jobscripts.quoting import slurm_value
from jobscripts.scheduler import DryRun, Output, Scheduler
from jobscripts.spec import JobSpec
from jobscripts.states import JobStatus

__all__ = ["Slurm"]

_DIALECT: Final = Dialect("slurm", "$SLURM_JOB_ID", "$SLURM_ARRAY_TASK_ID", signals_notice=True)
_KNOWN: Final = frozenset(
    {"--nodes", "--ntasks", "--ntasks-per-node", "--cpus-per-task", "--gpus-per-node", "--mem", "--constraint"}
    | {"--job-name", "--time", "--account", "--partition", "--qos", "--reservation", "--exclusive", "--array"}
    | {"--dependency", "--kill-on-invalid-dep", "--mail-type", "--mail-user", "--output", "--error", "--signal"}
    | {"--requeue", "--open-mode"}
)
_MAIL: Final = {"begin": "BEGIN", "end": "END", "fail": "FAIL"}
_ID: Final = re.compile(r"^(\d+)(?:;\S+)?$", re.MULTILINE)
_STARTS: Final = re.compile(r"Job \d+ to start at (\S+)")
_TRANSIENT: Final = re.compile(
    r"Socket timed out|Unable to contact|Connection (?:refused|reset)|Resource temporarily unavailable|communications? "
    r"(?:connection )?(?:failure|shutdown|receive failure)|temporarily unable|Transport endpoint|backup controller|"
    r"Protocol authentication error|timed out",
    re.IGNORECASE,
)
# What sbatch says, and what a person can do about it.
_REMEDIES: Final = (
    ("Invalid partition name", "queue: `sinfo -s` lists the partitions of this site"),
    ("Invalid account", "account: `sacctmgr show associations user=$USER` lists yours"),
    ("Invalid qos", "qos: `sacctmgr show qos` lists those of this site"),
    ("Invalid feature", "constraint: `sinfo -o '%P %f'` lists the features of the nodes"),
    ("Invalid job array", "array: `scontrol show config | grep MaxArraySize` says how large an index may be"),
    ("Requested time limit is invalid", "walltime: `sinfo -o '%P %l'` lists the limits"),
    (
        "Requested node configuration is not available",
        "nodes, ranks, memory or GPUs: no node is like that; see `sinfo -N -l`",
    ),
    ("MaxSubmitJobs", "you have as many jobs in the queue as this site allows"),
)


@dataclass(frozen=True)
class Slurm(Scheduler):
    """The dialect of Slurm.

    Attributes
    ----------
    accounting : bool
        This site keeps an archive that ``sacct`` can ask.
    """

    name = "slurm"
    programs = ("sbatch", "squeue", "scancel")
    suffix = ".sbatch"
    accounting: bool = True

    def script(self, spec: JobSpec) -> str:  # noqa: D102
        directives = Directives("#SBATCH", _KNOWN, spec.skip)
        if spec.name:
            directives.add("--job-name", f"--job-name={slurm_value('name', spec.name)}")
        shapes = spec.components or (spec,)
        for number, shape in enumerate(shapes):
            if number:
                directives.raw("hetjob")
            _add_shape(directives, shape, spec)
            if number == 0:
                _add_whole(directives, spec)
        return f"#!/bin/bash\n{directives.text()}\n{script_body(spec, _DIALECT)}"

    def submit_command(self, path: str, spec: JobSpec) -> list[str]:  # noqa: D102
        return ["sbatch", "--parsable", path]

    def parse_submit(self, output: Output) -> str:  # noqa: D102
        if output.code:
            raise self.parse_error(output)
        found = _ID.findall(output.stdout)
        if not found:
            raise SchedulerError(
                f"sbatch printed no job id, but may have accepted the job; look with squeue ({output})"
            )
        return str(found[-1])

    def status_command(self, ids: Sequence[str]) -> list[str]:
        """Ask for all jobs of this user: with -j, squeue fails when one of them is no longer known."""
        return ["squeue", "--me", "-h", "-r", "-t", "all", "-o", slurm_states.FORMAT]

    def parse_status(self, output: Output, ids: Sequence[str]) -> dict[str, JobStatus]:  # noqa: D102
        if output.code:
            raise QueryError(f"squeue failed ({output})", transient=True)
        return slurm_states.read_squeue(output.stdout, ids)

    def without(self, output: Output) -> "Slurm | None":  # noqa: D102
        return Slurm(accounting=False) if "accounting storage is disabled" in output.stderr + output.stdout else None

    def evidence_command(self, ids: Sequence[str]) -> list[str]:  # noqa: D102
        if not self.accounting:
            return []
        return ["sacct", "-P", "-n", "-X", "-D", "-j", ",".join(ids), "-o", slurm_states.SACCT_FIELDS]

    def parse_evidence(self, output: Output, ids: Sequence[str]) -> dict[str, JobStatus]:  # noqa: D102
        if output.code:
            raise QueryError(f"sacct failed ({output})", transient=True)
        return slurm_states.read_sacct(output.stdout, ids)

    def cancel_command(self, ids: Sequence[str], signal: str = "") -> list[str]:
        """With a signal, reach the batch shell only: it hands it on to its command."""
        return ["scancel", *([f"--signal={signal}", "--batch"] if signal else []), *ids]

    def parse_cancel(self, output: Output) -> None:  # noqa: D102
        if output.code and "Invalid job id" not in output.stderr and "already completing" not in output.stderr:
            raise self.parse_error(output)

    def dry_run_command(self, path: str, spec: JobSpec) -> list[str]:  # noqa: D102
        return ["sbatch", "--test-only", path]

    def parse_dry_run(self, output: Output) -> DryRun:  # noqa: D102
        text = (output.stderr + output.stdout).strip()
        if output.code:
            return DryRun(False, str(self.parse_error(output)))
        starts = _STARTS.search(text)
        return DryRun(True, text, slurm_states.read_time(starts[1]) if starts else None)

    def parse_error(self, output: Output) -> SchedulerError:  # noqa: D102
        text = output.stderr + output.stdout
        lines = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in text.strip().splitlines()]
        message = "; ".join(lines) or str(output)
        for words, remedy in _REMEDIES:
            if words.lower() in text.lower():
                return SchedulerError(f"{message}. {remedy}")
        return SchedulerError(message, transient=output.code == -1 or bool(_TRANSIENT.search(text)))


def _add_shape(directives: Directives, shape: JobSpec, spec: JobSpec) -> None:
    """Write what each component of a heterogeneous job says for itself."""
    if shape.node_count is not None:
        directives.add("--nodes", f"--nodes={shape.node_count}")
        directives.add("--ntasks-per-node", f"--ntasks-per-node={shape.ranks_on_node}")
    else:
        directives.add("--ntasks", f"--ntasks={shape.ranks}")
        if shape.ranks_per_node is not None:
            directives.add("--ntasks-per-node", f"--ntasks-per-node={shape.ranks_per_node}")
    if shape.cpus_per_rank is not None:
        directives.add("--cpus-per-task", f"--cpus-per-task={shape.cpus_per_rank}")
    if shape.gpus_per_node:
        if shape.node_count is None:
            raise SpecError("gpus_per_node", "needs nodes to be given, or the scheduler cannot know how many")
        directives.add("--gpus-per-node", f"--gpus-per-node={shape.gpus_per_node}")
    if shape.memory_mib is not None:
        directives.add("--mem", f"--mem={shape.memory_mib}M")
    queue = shape.queue or spec.queue
    if queue:
        directives.add("--partition", f"--partition={slurm_value('queue', queue)}")
    if shape.constraint:
        directives.add("--constraint", f"--constraint={slurm_value('constraint', shape.constraint)}")
    if spec.exclusive:
        directives.add("--exclusive", "--exclusive")


def _add_whole(directives: Directives, spec: JobSpec) -> None:
    """Write what holds for the whole job; sbatch hands it on to all components."""
    if spec.walltime_s is not None:
        directives.add("--time", f"--time={_clock(spec.walltime_s)}")
    for field in ("account", "qos", "reservation"):
        if value := getattr(spec, field):
            directives.add(f"--{field}", f"--{field}={slurm_value(field, value)}")
    if spec.array:
        directives.add("--array", f"--array={spec.array}")
    if spec.dependency:
        directives.add("--dependency", f"--dependency={slurm_value('dependency', ','.join(spec.dependency))}")
        # Without it, a job whose dependency failed waits for ever.
        directives.add("--kill-on-invalid-dep", "--kill-on-invalid-dep=yes")
    if spec.mail:
        directives.add("--mail-user", f"--mail-user={slurm_value('mail', spec.mail)}")
        directives.add("--mail-type", f"--mail-type={','.join(_MAIL[event] for event in spec.mail_on)}")
    for field, option in (("stdout", "--output"), ("stderr", "--error")):
        if value := getattr(spec, field):
            directives.add(option, f"{option}={slurm_value(field, _pattern(field, value, spec))}")
    if spec.notice_s is not None:
        directives.add("--signal", f"--signal=B:USR1@{spec.notice_s}")
    if spec.requeue is not None:
        directives.add("--requeue", "--requeue" if spec.requeue else "--no-requeue")
        if spec.requeue:
            directives.add("--open-mode", "--open-mode=append")
    for line in spec.extra:
        directives.raw(line)


def _pattern(field: str, path: str, spec: JobSpec) -> str:
    """Write a file name as sbatch reads it ("filename pattern"): % begins a symbol, a backslash forbids all."""
    if "\\" in path:
        if "{id}" in path or "{index}" in path:
            raise SpecError(field, f"{path!r}: Slurm fills in nothing in a path with a backslash")
        return path.replace("\\", "\\\\")
    return path.replace("%", "%%").replace("{id}", "%A" if spec.array else "%j").replace("{index}", "%a")


def _clock(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    return f"{hours:02}:{rest // 60:02}:{rest % 60:02}"
