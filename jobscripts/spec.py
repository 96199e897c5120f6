"""What a job is to be, in words that no scheduler owns."""

import dataclasses
import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from jobscripts.errors import SpecError
from jobscripts.launch import Launch

__all__ = ["JobSpec", "parse_duration_s"]

Duration = str | int | float | datetime.timedelta | None

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_ARRAY: Final = re.compile(r"\d+(-\d+(:\d+)?)?(,\d+(-\d+(:\d+)?)?)*(%\d+)?\Z")
_DEPENDENCY: Final = re.compile(r"[a-z]+(:[^\s:,]+)*\Z")
_WORDS: Final = ("name", "account", "queue", "qos", "reservation", "mail")
_COUNTS: Final = ("nodes", "ranks_per_node", "ranks", "cpus_per_rank", "gpus_per_node", "memory_mib", "notice_s")
_LINES: Final = ("prologue", "epilogue")
MAIL_EVENTS: Final = ("begin", "end", "fail")
# What a component of a heterogeneous job may say of itself; all else is said once, for the whole job.
COMPONENT_FIELDS: Final = frozenset(
    {"nodes", "ranks_per_node", "ranks", "cpus_per_rank", "gpus_per_node", "memory_mib", "constraint", "queue"}
)


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """One job: what runs, on how much of which machine, for how long.

    Attributes
    ----------
    command : tuple of str, or str
        The words of a program, or shell text for bash. It runs once, on the first node, unless ``launch`` is set.
    launch : Launch, optional
        Start ``command``, which must be words then, as the ranks of an MPI program.
    name : str
        What the queue calls it.
    nodes, ranks_per_node, ranks : int, optional
        The shape: nodes and ranks on each; or ``ranks`` in all, which the scheduler may put where it likes unless
        ``nodes`` is given too. Nothing means one rank on one node.
    cpus_per_rank, gpus_per_node, memory_mib : int, optional
        Cores of each rank, GPUs and memory of each node.
    walltime : str, number, timedelta, optional
        ``"2:00:00"``, ``"1-12:00:00"``, ``"90m"``, seconds. A bare number in a string is refused: schedulers disagree
        on whether it means minutes or seconds. `walltime_s` has it in seconds.
    account, queue, qos, constraint, reservation : str
        As the site names them. A queue is what Slurm calls a partition. For PBS a constraint is a resource of the
        chunk, ``"model=ice"``.
    exclusive : bool
        No other job on these nodes.
    array : str
        Indices of a job array, ``"0-9"``, or ``"0-9%2"`` for two at a time.
    dependency : tuple of str
        ``"afterok:123"``; all must hold.
    mail, mail_on : str, tuple of str
        An address, and ``begin``, ``end``, ``fail``.
    stdout, stderr : str
        Files. Without ``stderr`` both go to ``stdout``. ``{id}`` and ``{index}`` stand for the job's id and the index
        in an array, where the scheduler can say so.
    environment : mapping
        Variables of the job. They are written into the script: no place for secrets.
    prologue, epilogue : tuple of str
        Lines of bash before and after the command. The epilogue runs however the command ends.
    workdir : str
        Where the job works; by default where it was submitted.
    notice_s : int, optional
        Seconds before the end of the walltime at which the command gets SIGUSR1.
    requeue : bool, optional
        Whether the scheduler may start it again from the beginning after a node failed or it was preempted.
    extra, skip : tuple of str
        Directives to add as they are (``"--mem-bind=local"``), and names of directives not to write (``"--mem"``).
    components : tuple of JobSpec
        The parts of a heterogeneous job. They say what they need of nodes; everything else stands outside.
    exit_file : str
        Where the script writes how it ended. For arrays, ``.INDEX`` is appended.

    Raises
    ------
    SpecError
        A field is wrong or contradicts another; it is named, with what to write instead.
    """

    command: tuple[str, ...] | str = ""
    launch: Launch | None = None
    name: str = ""
    nodes: int | None = None
    ranks_per_node: int | None = None
    ranks: int | None = None
    cpus_per_rank: int | None = None
    gpus_per_node: int | None = None
    memory_mib: int | None = None
    walltime: Duration = None
    account: str = ""
    queue: str = ""
    qos: str = ""
    constraint: str = ""
    reservation: str = ""
    exclusive: bool = False
    array: str = ""
    dependency: tuple[str, ...] = ()
    mail: str = ""
    mail_on: tuple[str, ...] = ("end", "fail")
    stdout: str = ""
    stderr: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    prologue: tuple[str, ...] = ()
    epilogue: tuple[str, ...] = ()
    workdir: str = ""
    notice_s: int | None = None
    requeue: bool | None = None
    extra: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    components: "tuple[JobSpec, ...]" = ()
    exit_file: str = ""

    def __post_init__(self) -> None:
        for name in _SEQUENCES:
            object.__setattr__(self, name, _sequence(name, getattr(self, name)))
        if not isinstance(self.command, str):
            object.__setattr__(self, "command", _sequence("command", self.command))
        object.__setattr__(self, "environment", dict(self.environment))
        _check_words(self)
        _check_shape(self)
        _check_time(self)
        _check_text(self)
        if self.components:
            _check_components(self)

    def replace(self, **changes: Any) -> "JobSpec":
        """Return a copy with some fields changed, checked anew."""
        check_names(changes)
        return dataclasses.replace(self, **changes)

    @property
    def walltime_s(self) -> int | None:
        """The walltime in whole seconds; None if the site's default is to hold."""
        return parse_duration_s(self.walltime)

    @property
    def node_count(self) -> int | None:
        """How many nodes; None if the scheduler may choose."""
        if self.nodes is not None:
            return self.nodes
        return 1 if self.ranks is None else None

    @property
    def ranks_on_node(self) -> int | None:
        """How many ranks on each node; None if the scheduler may choose."""
        if self.ranks_per_node is not None:
            return self.ranks_per_node
        if self.nodes is None:
            return 1 if self.ranks is None else None
        return (self.ranks or self.nodes) // self.nodes

    @property
    def total_ranks(self) -> int:
        """How many ranks in all, those of components included."""
        if self.components:
            return sum(component.total_ranks for component in self.components)
        return self.ranks if self.ranks is not None else (self.nodes or 1) * (self.ranks_per_node or 1)

    @property
    def array_indices(self) -> tuple[int, ...]:
        """The indices of the array, in order; () if it is none."""
        found: set[int] = set()
        for part in filter(None, self.array.partition("%")[0].split(",")):
            first, _, rest = part.partition("-")
            last, _, step = rest.partition(":")
            found.update(range(int(first), int(last or first) + 1, int(step or 1)))
        return tuple(sorted(found))


_SEQUENCES: Final = ("dependency", "mail_on", "prologue", "epilogue", "extra", "skip", "components")


def check_names(names: "Mapping[str, Any]") -> None:
    """Refuse names that no field of `JobSpec` has."""
    known = {item.name for item in dataclasses.fields(JobSpec)}
    for name in names:
        if name not in known:
            raise SpecError(name, f"a job has no such field; there are: {', '.join(sorted(known))}")


def parse_duration_s(value: Duration, name: str = "walltime") -> int | None:
    """Return a duration in whole seconds, rounded up; see `JobSpec` for what may be written.

    Raises
    ------
    SpecError
        It is no duration, or not longer than nothing.
    """
    if value is None or value == "":
        return None
    if isinstance(value, datetime.timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, str):
        seconds = _duration_of_text(value.strip(), name)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    else:
        raise SpecError(name, f'{value!r} is no duration; write "2:00:00", "90m", or seconds as a number')
    if not 0 < seconds < float("inf"):
        raise SpecError(name, f"{value!r} is not a time that a job could run for")
    return int(-(-seconds // 1))


_CLOCK: Final = re.compile(r"(?:(\d+)-)?(\d+):(\d{1,2})(?::(\d{1,2}))?\Z")
_UNITS: Final = re.compile(r"(?:(\d+)d)? ?(?:(\d+)h)? ?(?:(\d+)m)? ?(?:(\d+)s)?\Z")


def _duration_of_text(text: str, name: str) -> int:
    clock = _CLOCK.match(text)
    if clock and clock[4] is not None:
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        if hours < 24 or not days:
            return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    units = _UNITS.match(text)
    if units and text:
        days, hours, minutes, seconds = (int(part or 0) for part in units.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    hint = 'write hours, minutes and seconds, "2:00:00", or a unit, "90m"'
    if clock or text.isdigit():
        hint += "; schedulers disagree on what comes first in a shorter form"
    raise SpecError(name, f"{text!r} is no duration; {hint}")


def _sequence(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        raise SpecError(name, f"takes a sequence, not {value!r}; write ({value!r},)")
    return tuple(value)


def _check_words(spec: JobSpec) -> None:
    for name in _WORDS:
        value = getattr(spec, name)
        if not isinstance(value, str) or value != value.strip() or any(ord(c) < 32 for c in value):
            raise SpecError(name, f"{value!r} is no name: one line of text without blanks at its ends")
    if set(spec.mail_on) - set(MAIL_EVENTS):
        raise SpecError("mail_on", f"{spec.mail_on!r} has events other than {', '.join(MAIL_EVENTS)}")
    for item in spec.dependency:
        if not isinstance(item, str) or not _DEPENDENCY.match(item):
            raise SpecError("dependency", f'{item!r} is no dependency; write "afterok:123"')
    if spec.array and (not _ARRAY.match(spec.array) or not spec.array_indices or spec.array.endswith("%0")):
        raise SpecError("array", f'{spec.array!r} has no indices; write "0-9", or "0-9%2" for two at a time')


def _check_shape(spec: JobSpec) -> None:
    for name in _COUNTS:
        value = getattr(spec, name)
        least = 0 if name == "gpus_per_node" else 1
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise SpecError(name, f"{value!r} is no count; write a whole number from {least} on")
    if spec.ranks is None:
        return
    if spec.ranks_per_node is not None:
        nodes = spec.nodes or 1
        if spec.ranks != nodes * spec.ranks_per_node:
            raise SpecError(
                "ranks", f"{spec.ranks} contradicts {nodes} nodes with {spec.ranks_per_node} ranks each; give only one"
            )
    elif spec.nodes is not None and spec.ranks % spec.nodes:
        raise SpecError(
            "ranks",
            f"{spec.ranks} cannot be spread evenly over {spec.nodes} nodes; leave out nodes, and the scheduler chooses",
        )


def _check_time(spec: JobSpec) -> None:
    walltime_s = spec.walltime_s
    if spec.notice_s is None:
        return
    if walltime_s is None:
        raise SpecError("notice_s", "needs a walltime to count back from")
    if spec.notice_s >= walltime_s:
        raise SpecError("notice_s", f"{spec.notice_s} s is no less than the walltime, {walltime_s} s")


def _check_text(spec: JobSpec) -> None:
    for name, value in spec.environment.items():
        if not isinstance(name, str) or not _VARIABLE.match(name):
            raise SpecError("environment", f"{name!r} is no name of a variable")
        if not isinstance(value, str) or "\0" in value:
            raise SpecError("environment", f"{name} is {value!r}; variables hold text without NUL")
    for line in spec.extra:
        if not isinstance(line, str) or line.startswith("#") or "\n" in line or not line.strip():
            raise SpecError("extra", f'{line!r}: write what follows #SBATCH or #PBS, "--mem-bind=local", one line each')
    for name in (*_LINES, "command"):
        value = getattr(spec, name)
        for text in (value,) if isinstance(value, str) else value:
            if not isinstance(text, str) or "\0" in text:
                raise SpecError(name, f"{text!r} is no text for a shell")
    for name in ("stdout", "stderr", "workdir", "exit_file", "constraint"):
        if not isinstance(getattr(spec, name), str):
            raise SpecError(name, f"{getattr(spec, name)!r} is no text; write str(path)")
    if spec.launch is not None and isinstance(spec.command, str):
        raise SpecError("launch", "ranks are started from words: give the command as a tuple")


def _check_components(spec: JobSpec) -> None:
    plain = JobSpec()
    for name in sorted(COMPONENT_FIELDS - {"queue"}):
        if getattr(spec, name) != getattr(plain, name):
            raise SpecError(name, "stands in the components of a heterogeneous job, not beside them")
    for number, component in enumerate(spec.components):
        if not isinstance(component, JobSpec):
            raise SpecError("components", f"number {number} is {component!r}; write a JobSpec")
        for item in dataclasses.fields(JobSpec):
            if item.name not in COMPONENT_FIELDS and getattr(component, item.name) != getattr(plain, item.name):
                raise SpecError(item.name, f"is said once for the whole job, not in component {number}")
    if spec.array:
        raise SpecError("array", "a heterogeneous job cannot be an array; submit one job for each index")
