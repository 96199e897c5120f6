"""No scheduler: the script runs at once, in the background of this machine; mpirun may reach others by a hostfile."""

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from jobscripts.body import Dialect, script_body
from jobscripts.errors import QueryError, SchedulerError, SpecError
from jobscripts.scheduler import DryRun, Output, Scheduler
from jobscripts.spec import JobSpec
from jobscripts.states import JobStatus, State

__all__ = ["Mpiexec"]

_DIALECT: Final = Dialect("mpiexec", "$$.$(hostname)", ends_jobs=False)
# What only a scheduler can give.
_NOT_HERE: Final = (
    *("account", "queue", "qos", "constraint", "reservation", "exclusive", "array", "dependency", "mail", "requeue"),
    *("extra", "skip", "components", "memory_mib", "gpus_per_node", "cpus_per_rank"),
)
# The last word of each job's command line. No other program has it there: a pid used again is not taken for a job.
_MARK: Final = "jobscripts"
_SUBMIT: Final = """\
set -m
exec 3>"$2"
if [[ $3 ]]; then exec 4>"$3"; else exec 4>&3; fi
nohup bash "$1" "$4" </dev/null >&3 2>&4 3>&- 4>&- &
echo "$!.$5"
"""
# Small machines have no ps: where there is a /proc, bash reads that. A zombie has no command line any more.
_ARGS: Final = """\
args() {
    if [[ -d /proc/self ]]; then { tr '\\0\\n' '  ' <"/proc/$1/cmdline"; } 2>/dev/null; else ps -ww -o args= -p "$1"; fi
}
"""
_STATUS: Final = _ARGS + 'for pid; do line=$(args "$pid"); [[ ! $line ]] || echo "$pid ${line% }"; done'
_CANCEL: Final = _ARGS + 'for pid; do line=$(args "$pid"); [[ ${line% } != *" $0" ]] || kill -s "$SIGNAL" "$pid"; done'
_ID: Final = re.compile(r"^(\d+)\.(\S+)$", re.MULTILINE)


def _this_host() -> str:
    return socket.gethostname()


@dataclass(frozen=True)
class Mpiexec(Scheduler):
    """Run on this machine, at once. A job's id is the pid of its script and the host, ``12345.login1``.

    Attributes
    ----------
    host : str
        This machine's name: jobs of another one are UNKNOWN here.
    """

    name = "mpiexec"
    programs = ("bash",)
    suffix = ".sh"
    host: str = field(default_factory=_this_host)

    def script(self, spec: JobSpec) -> str:  # noqa: D102
        plain = JobSpec()
        for name in _NOT_HERE:
            if getattr(spec, name) != getattr(plain, name):
                raise SpecError(
                    name, f"{getattr(spec, name)!r} is for a scheduler, and there is none here; leave it out"
                )
        if (spec.nodes or 1) > 1 and spec.launch is not None and not spec.launch.hostfile:
            raise SpecError("nodes", "without a scheduler, the hosts must be named: Launch(hostfile=...)")
        for name in ("stdout", "stderr"):
            if "{id}" in getattr(spec, name) or "{index}" in getattr(spec, name):
                raise SpecError(name, "has {id} or {index}, which only schedulers fill in")
        return f"#!/bin/bash\n\n{script_body(spec, _DIALECT)}"

    def submit_command(self, path: str, spec: JobSpec) -> list[str]:
        """Start it in a process group of its own, deaf to the end of this terminal."""
        stdout = spec.stdout or f"{path}.out"
        return ["bash", "-c", _SUBMIT, "submit", path, stdout, spec.stderr, _MARK, self.host]

    def parse_submit(self, output: Output) -> str:  # noqa: D102
        found = _ID.findall(output.stdout)
        if output.code or not found:
            raise self.parse_error(output)
        pid, host = found[-1]
        return f"{pid}.{host}"

    def status_command(self, ids: Sequence[str]) -> list[str]:  # noqa: D102
        return ["bash", "-c", _STATUS, "status", *(_pid(job_id) for job_id in ids)]

    def parse_status(self, output: Output, ids: Sequence[str]) -> dict[str, JobStatus]:
        """Read the command lines of those processes that are there."""
        if output.code:
            raise QueryError(f"the processes of this machine cannot be seen ({output})", transient=True)
        running = set()
        for line in output.stdout.splitlines():
            pid, _, args = line.partition(" ")
            if args.endswith(f" {_MARK}"):
                running.add(pid)
        return {job_id: self._status(job_id, running) for job_id in ids}

    def _status(self, job_id: str, running: set[str]) -> JobStatus:
        host = job_id.partition(".")[2]
        if host != self.host:
            return JobStatus(job_id, State.UNKNOWN, f"it runs on {host}; ask there", raw="elsewhere")
        if _pid(job_id) in running:
            return JobStatus(job_id, State.ACTIVE, nodes=(host,), raw="running")
        return JobStatus(job_id, State.UNKNOWN, "its process is gone")

    def cancel_command(self, ids: Sequence[str], signal: str = "") -> list[str]:  # noqa: D102
        here = [_pid(job_id) for job_id in ids if job_id.partition(".")[2] == self.host]
        script = f"SIGNAL={signal or 'TERM'}; {_CANCEL}"
        return ["bash", "-c", script, _MARK, *here]

    def dry_run_command(self, path: str, spec: JobSpec) -> list[str]:
        """Have bash read it."""
        return ["bash", "-n", path]

    def parse_dry_run(self, output: Output) -> DryRun:  # noqa: D102
        return DryRun(not output.code, str(output) if output.code else "it would start at once")

    def parse_error(self, output: Output) -> SchedulerError:  # noqa: D102
        return SchedulerError(f"this machine did not start it ({output})")


def _pid(job_id: str) -> str:
    return job_id.partition(".")[0]
