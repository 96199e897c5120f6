"""PBS Professional and OpenPBS: qsub, qstat, qdel. qsub(1B) and pbs_resources(7B); OpenPBS 23.06 was looked at."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from jobscripts import pbs_states
from jobscripts.body import Dialect, script_body
from jobscripts.directives import Directives
from jobscripts.errors import SchedulerError, SpecError
from jobscripts.quoting import pbs_value
from jobscripts.scheduler import DryRun, Output, Scheduler
from jobscripts.spec import JobSpec
from jobscripts.states import JobStatus

__all__ = ["Pbs"]

_DIALECT: Final = Dialect("pbs", "$PBS_JOBID", "$PBS_ARRAY_INDEX", "PBS_O_WORKDIR")
_KNOWN: Final = frozenset(
    {"-S", "-N", "-A", "-q", "-J", "-m", "-M", "-o", "-e", "-j", "-r", "depend", "walltime", "place"}
    | {"select", "ncpus", "mpiprocs", "ompthreads", "ngpus", "mem"}
)
_MAIL: Final = {"begin": "b", "end": "e", "fail": "a"}
_ID: Final = re.compile(r"^(\d+(?:\[\])?(?:\.\S+)?)$", re.MULTILINE)
_RANGE: Final = re.compile(r"(\d+)-(\d+)(:\d+)?(%\d+)?\Z")
# What qstat, qdel and qsig return for jobs that are gone.
FINISHED: Final = 35
UNKNOWN_JOB: Final = 153
_REMEDIES: Final = (
    ("Unknown queue", "queue: `qstat -Q` lists those of this site"),
    ("Unknown resource", "extra or constraint: `qmgr -c 'list resource'` lists the resources of this site"),
    (
        "violates queue and/or server resource limits",
        "walltime, nodes or ranks: `qstat -Qf` shows the limits of the queues",
    ),
    ("Invalid account", "account: ask your site which one is yours"),
    ("Unauthorized Request", "you may not submit there; ask your site, or try another queue"),
    ("would exceed", "you have as many jobs in the queue as this site allows"),
)
_TRANSIENT: Final = re.compile(
    r"cannot connect to server|Connection (?:refused|reset|timed out)|Communication failure|server is busy|timed out|"
    r"Server shutting down|Premature end of message|Expired credential",
    re.IGNORECASE,
)
# Most MPIs that one can install know nothing of PBS. They start their daemons by ssh, which many sites close between
# nodes; pbs_tmrsh starts them through PBS. It takes an argument vector; MPIs give it options of ssh and a shell's line.
_TASK_MANAGER: Final = r"""
# An mpirun that was not built for PBS reaches the other nodes through PBS too, not by ssh.
pbs_exec=${PBS_EXEC:-$(sed -n 's/^PBS_EXEC=//p' /etc/pbs.conf 2>/dev/null)}
agent=${HYDRA_LAUNCHER_EXEC:-}${PRTE_MCA_plm_ssh_agent:-}${OMPI_MCA_plm_rsh_agent:-}
if [[ -x $pbs_exec/bin/pbs_tmrsh && ! $agent ]]; then
    tmrsh=$PWD/.tmrsh-$PBS_JOBID
    printf '%s\n' '#!/bin/sh' 'while [ "${1#-}" != "$1" ]; do shift; done' 'host=$1' 'shift' \
        "exec '$pbs_exec/bin/pbs_tmrsh' \"\$host\" /bin/sh -c \"\$*\"" >"$tmrsh"
    chmod 700 "$tmrsh"
    export HYDRA_LAUNCHER=rsh HYDRA_LAUNCHER_EXEC=$tmrsh PRTE_MCA_plm_ssh_agent=$tmrsh OMPI_MCA_plm_rsh_agent=$tmrsh
fi
"""
_TASK_MANAGER_END: Final = '[[ ! ${tmrsh:-} ]] || rm -f -- "$tmrsh"'


@dataclass(frozen=True)
class Pbs(Scheduler):
    """The dialect of PBS Professional and OpenPBS.

    Attributes
    ----------
    history : bool
        The server remembers finished jobs (``job_history_enable``).
    """

    name = "pbs"
    programs = ("qsub", "qstat", "qdel")
    suffix = ".pbs"
    known: ClassVar[frozenset[str]] = _KNOWN
    dialect: ClassVar[Dialect] = _DIALECT
    history: bool = True

    def script(self, spec: JobSpec) -> str:  # noqa: D102
        directives = Directives("#PBS", self.known, spec.skip)
        # The login shell of the account would run the script otherwise, whatever its first line says.
        directives.add("-S", "-S /bin/bash")
        if spec.name:
            if not re.match(r"[A-Za-z0-9+_]\S{0,229}\Z", spec.name):
                raise SpecError(
                    "name", f"{spec.name!r} is none for PBS: it begins with a letter or digit and has no blanks"
                )
            directives.add("-N", f"-N {pbs_value('name', spec.name)}")
        self.add_resources(directives, spec)
        if spec.walltime_s is not None:
            directives.add("walltime", f"-l walltime={clock(spec.walltime_s)}")
        self._add_rest(directives, spec)
        several = spec.node_count != 1 or bool(spec.components)
        setup, cleanup = self.mpi_setup() if several else ("", "")
        body = script_body(spec, self.dialect, setup.strip().splitlines(), cleanup.splitlines())
        return f"#!/bin/bash\n{directives.text()}\n{body}"

    def mpi_setup(self) -> tuple[str, str]:
        """Return lines of bash without which MPI would not reach the other nodes, and those that tidy up after them."""
        return _TASK_MANAGER, _TASK_MANAGER_END

    def add_resources(self, directives: Directives, spec: JobSpec) -> None:
        """Write what is wanted of nodes."""
        if spec.exclusive and not directives.wants("place"):
            raise SpecError("exclusive", "is said in the directive place, which is to be skipped")
        chunks = [_chunk(directives, part) for part in spec.components or (spec,)]
        directives.add("select", f"-l select={'+'.join(chunks)}")
        place = "free" if spec.node_count is None and not spec.components else "scatter"
        directives.add("place", f"-l place={place}{':excl' if spec.exclusive else ''}")

    def _add_rest(self, directives: Directives, spec: JobSpec) -> None:
        if spec.account:
            directives.add("-A", f"-A {pbs_value('account', spec.account)}")
        self.add_queue(directives, spec)
        if spec.array:
            self.add_array(directives, spec)
        if spec.dependency:
            directives.add("depend", f"-W depend={pbs_value('dependency', ','.join(spec.dependency))}")
        if spec.mail:
            directives.add("-M", f"-M {pbs_value('mail', spec.mail)}")
            directives.add("-m", f"-m {''.join(_MAIL[event] for event in spec.mail_on) or 'n'}")
        for field, option in (("stdout", "-o"), ("stderr", "-e")):
            if value := getattr(spec, field):
                directives.add(option, f"{option} {pbs_value(field, self.output_path(field, value, spec))}")
        if not spec.stderr:
            directives.add("-j", "-j oe")
        if spec.requeue is not None:
            directives.add("-r", f"-r {'y' if spec.requeue else 'n'}")
        for line in spec.extra:
            directives.raw(line)

    def add_queue(self, directives: Directives, spec: JobSpec) -> None:
        """Write where it waits. A reservation is a queue here; there is no quality of service."""
        if spec.qos:
            raise SpecError("qos", "PBS has none; a site that offers priorities does so by queues")
        if spec.queue and spec.reservation:
            raise SpecError("reservation", f"is a queue of its own in PBS; leave out the queue {spec.queue!r}")
        if any(part.queue for part in spec.components):
            raise SpecError("queue", "is one for the whole job in PBS, not for a component")
        if queue := spec.queue or spec.reservation:
            directives.add("-q", f"-q {pbs_value('queue', queue)}")

    def add_array(self, directives: Directives, spec: JobSpec) -> None:
        """Write the range of an array: PBS has no lists, and no array of one."""
        match = _RANGE.match(spec.array)
        if not match or int(match[1]) >= int(match[2]):
            raise SpecError(
                "array", f'{spec.array!r} is no range of several indices, and PBS has nothing else; "0-9:2%2"'
            )
        if spec.requeue is False:
            raise SpecError("requeue", "an array of PBS can always be started again; leave it out")
        directives.add("-J", f"-J {spec.array}")

    def output_path(self, field: str, path: str, spec: JobSpec) -> str:
        """Return the path with PBS's word for the index of an array."""
        if "{id}" in path:
            raise SpecError(field, "PBS cannot put the job's id into a path; leave it out, or use {index} in an array")
        if "{index}" in path and not spec.array:
            raise SpecError(field, "has {index}, but the job is no array")
        if not path.isascii() or ":" in path.partition("/")[0]:
            raise SpecError(field, f"{path!r}: PBS takes ASCII only, and a colon before the first slash for a host")
        return path.replace("{index}", "^array_index^")

    def submit_command(self, path: str, spec: JobSpec) -> list[str]:  # noqa: D102
        return ["qsub", path]

    def parse_submit(self, output: Output) -> str:  # noqa: D102
        if output.code:
            raise self.parse_error(output)
        found = _ID.findall(output.stdout)
        if not found:
            raise SchedulerError(f"qsub printed no job id, but may have accepted the job; look with qstat ({output})")
        return str(found[-1])

    def status_command(self, ids: Sequence[str]) -> list[str]:  # noqa: D102
        options = ["-x"] if self.history else []
        if any("[" in job_id for job_id in ids):
            options.append("-t")
        return ["qstat", *options, "-f", "-F", "json", *ids]

    def parse_status(self, output: Output, ids: Sequence[str]) -> dict[str, JobStatus]:  # noqa: D102
        return pbs_states.read_json(output, ids)

    def without(self, output: Output) -> "Pbs | None":  # noqa: D102
        return Pbs(history=False) if self.history and "job history" in output.stderr else None

    def cancel_command(self, ids: Sequence[str], signal: str = "") -> list[str]:
        """End jobs, or send a signal to all of their processes: PBS cannot send it to the script alone."""
        return ["qsig", "-s", f"SIG{signal}", *ids] if signal else ["qdel", *ids]

    def parse_cancel(self, output: Output) -> None:  # noqa: D102
        if output.code not in (0, FINISHED, UNKNOWN_JOB):
            raise self.parse_error(output)

    def dry_run_command(self, path: str, spec: JobSpec) -> list[str]:
        """Submit it held: PBS has no other way to ask. The answer carries the id that must be deleted."""
        return ["qsub", "-h", path]

    def parse_dry_run(self, output: Output) -> DryRun:  # noqa: D102
        try:
            return DryRun(True, "accepted (and deleted again)", job_id=self.parse_submit(output))
        except SchedulerError as error:
            return DryRun(False, str(error))

    def parse_error(self, output: Output) -> SchedulerError:  # noqa: D102
        text = (output.stderr + output.stdout).strip()
        message = "; ".join(line.removeprefix("qsub: ") for line in text.splitlines()) or str(output)
        for words, remedy in _REMEDIES:
            if words.lower() in text.lower():
                return SchedulerError(f"{message}. {remedy}")
        return SchedulerError(message, transient=output.code == -1 or bool(_TRANSIENT.search(text)))


def _chunk(directives: Directives, part: JobSpec) -> str:
    """Return ``N:ncpus=...``: on N hosts each, or anywhere if only a number of ranks was named."""
    count, ranks = part.node_count, part.ranks_on_node
    if count is None or ranks is None:
        if part.gpus_per_node or part.memory_mib:
            raise SpecError("nodes", "say how many: memory and GPUs are counted for each")
        count, ranks = part.total_ranks, 1
    cpus = part.cpus_per_rank
    resources = [("ncpus", ranks * (cpus or 1)), ("mpiprocs", ranks)]
    if cpus is not None:
        resources.append(("ompthreads", cpus))
    if part.gpus_per_node:
        resources.append(("ngpus", part.gpus_per_node))
    words = [f"{name}={value}" for name, value in resources if directives.wants(name)]
    if part.memory_mib is not None and directives.wants("mem"):
        words.append(f"mem={part.memory_mib}mb")
    if part.constraint:
        if not re.match(r"\w+=[^\s:+]+(:\w+=[^\s:+]+)*\Z", part.constraint):
            raise SpecError("constraint", f'{part.constraint!r}: PBS asks for a resource of the node, "model=ice"')
        words.append(part.constraint)
    return ":".join([str(count), *words])


def clock(seconds: int) -> str:
    """Return ``HH:MM:SS``."""
    hours, rest = divmod(seconds, 3600)
    return f"{hours:02}:{rest // 60:02}:{rest % 60:02}"
