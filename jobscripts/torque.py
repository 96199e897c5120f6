"""Torque, the other branch of the family: nodes and ppn instead of select, XML instead of JSON, `C` for finished."""

import re
import xml.parsers.expat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree

from jobscripts.body import Dialect
from jobscripts.directives import Directives
from jobscripts.errors import QueryError, SpecError
from jobscripts.pbs import FINISHED, UNKNOWN_JOB, Pbs
from jobscripts.pbs_states import STATES, collect, duration_s, signal_code
from jobscripts.scheduler import Output
from jobscripts.spec import JobSpec
from jobscripts.states import JobStatus, State

__all__ = ["Torque"]

_KNOWN: Final = frozenset(
    {"-S", "-N", "-A", "-q", "-t", "-m", "-M", "-o", "-e", "-j", "-r", "depend", "walltime", "nodes", "mem", "qos"}
)
_NAME_LIMIT: Final = 15
# exit_status < 0 is Torque's own.
_ENDINGS: Final = {
    -10: (State.FAILED, "out of memory"),
    -11: (State.TIMEOUT, "walltime"),
    -12: (State.FAILED, "cpu time"),
    -4: (State.NODE_FAIL, "node restarted"),
    -5: (State.NODE_FAIL, "node restarted"),
    -6: (State.NODE_FAIL, "node restarted"),
}
_KILLED: Final = (256 + 15, 256 + 9)


@dataclass(frozen=True)
class Torque(Pbs):
    """The dialect of Torque (and of Slurm's wrappers that imitate it)."""

    name = "torque"
    known = _KNOWN
    dialect = Dialect("torque", "$PBS_JOBID", "$PBS_ARRAYID", "PBS_O_WORKDIR")
    history: bool = False

    def script(self, spec: JobSpec) -> str:  # noqa: D102
        if len(spec.name) > _NAME_LIMIT:
            raise SpecError("name", f"{spec.name!r} is longer than the {_NAME_LIMIT} characters that Torque takes")
        return super().script(spec)

    def default_stdout(self, path: str, spec: JobSpec) -> str:
        """Torque itself appends the index of an element."""
        return path

    def mpi_setup(self) -> tuple[str, str]:  # noqa: D102
        return "", ""

    def add_resources(self, directives: Directives, spec: JobSpec) -> None:  # noqa: D102
        if spec.exclusive:
            raise SpecError("exclusive", 'depends on the site\'s scheduler; try extra=("-l naccesspolicy=singlejob",)')
        parts = spec.components or (spec,)
        directives.add("nodes", f"-l nodes={'+'.join(_node(part) for part in parts)}")
        if any(part.memory_mib is not None for part in parts):
            # The sum over all nodes: pbs_resources(7B) of Torque.
            total_mib = sum((part.memory_mib or 0) * (part.node_count or 1) for part in parts)
            directives.add("mem", f"-l mem={total_mib}mb")

    def add_queue(self, directives: Directives, spec: JobSpec) -> None:  # noqa: D102
        if spec.qos:
            directives.add("qos", f"-l qos={spec.qos}")
        super().add_queue(directives, spec.replace(qos=""))

    def add_array(self, directives: Directives, spec: JobSpec) -> None:  # noqa: D102
        if ":" in spec.array:
            raise SpecError(
                "array", f'{spec.array!r} has a step, which Torque does not know; list the indices, "0,2,4"'
            )
        directives.add("-t", f"-t {spec.array}")

    def output_path(self, field: str, path: str, spec: JobSpec) -> str:  # noqa: D102
        if "{index}" in path:
            raise SpecError(field, "Torque cannot put the index into a path, but appends it itself; leave it out")
        return super().output_path(field, path.replace("{id}", "$PBS_JOBID"), spec)

    def status_command(self, ids: Sequence[str]) -> list[str]:
        """Ask for XML, which is what -x means here."""
        return ["qstat", *(["-t"] if any("[" in job_id for job_id in ids) else []), "-f", "-x", *ids]

    def parse_status(self, output: Output, ids: Sequence[str]) -> dict[str, JobStatus]:  # noqa: D102
        start = output.stdout.find("<")
        gone = output.code in (FINISHED, UNKNOWN_JOB)
        if output.code and not gone:
            raise QueryError(f"qstat failed ({output})", transient=True)
        if start < 0:
            return collect({}, ids)
        try:
            # There may be a document for each id. What qstat prints comes from the scheduler of this site.
            documents = re.sub(r"<\?xml[^>]*\?>", "", output.stdout[start:])
            root = ElementTree.fromstring(f"<All>{documents}</All>")  # noqa: S314
        except (ElementTree.ParseError, xml.parsers.expat.ExpatError) as error:
            raise QueryError(f"qstat wrote XML that is none ({error})", transient=True) from None
        statuses = [_status(job) for job in root.iter("Job")]
        return collect({status.id: status for status in statuses}, ids)

    def without(self, output: Output) -> "Pbs | None":  # noqa: D102
        return None


def _node(part: JobSpec) -> str:
    count, ranks = part.node_count, part.ranks_on_node
    if count is None or ranks is None:
        raise SpecError("nodes", "say how many: Torque cannot choose")
    words = [str(count), f"ppn={ranks * (part.cpus_per_rank or 1)}"]
    if part.gpus_per_node:
        words.append(f"gpus={part.gpus_per_node}")
    if part.constraint:
        words.append(part.constraint)
    return ":".join(words)


def _status(job: ElementTree.Element) -> JobStatus:
    def text(path: str) -> str:
        return (job.findtext(path) or "").strip()

    job_id, raw = text("Job_Id"), text("job_state")
    start_s = float(text("start_time")) if text("start_time").isdigit() else None
    nodes = tuple(dict.fromkeys(part.split("/")[0] for part in text("exec_host").split("+") if part))
    if raw in ("C", "F"):
        state, reason, code = _ending(text("exit_status"))
        end_s = float(text("comp_time")) if text("comp_time").isdigit() else None
        return JobStatus(job_id, state, reason, code, nodes, start_s, end_s, raw)
    state, reason = STATES.get(raw, (State.UNKNOWN, f"Torque says {raw!r}, which is not in its manual"))
    limit_s = duration_s(text("Resource_List/walltime")) if text("Resource_List/walltime") else None
    end_s = start_s + limit_s if state is State.ACTIVE and start_s is not None and limit_s is not None else None
    return JobStatus(job_id, state, text("comment") or reason, None, nodes, start_s, end_s, raw)


def _ending(exit_status: str) -> tuple[State, str, int | None]:
    if not exit_status.lstrip("-").isdigit():
        return State.CANCELED, "deleted before it ran", None
    code = int(exit_status)
    if code < 0:
        state, reason = _ENDINGS.get(code, (State.FAILED, f"Torque could not run it (exit_status {code})"))
        return state, reason, None
    if code in _KILLED:
        return State.CANCELED, "killed", signal_code(code)
    return (State.FAILED, "", signal_code(code)) if code else (State.COMPLETED, "", 0)
