"""What is said between a supervisor and whoever started it: options down its stdin, events up its stdout.

One JSON object a line. Plain tuples and `json`, because both sides want to be up before anything heavier is imported.
"""

import json
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from jobscripts import JobSpec

DEFAULT_PORT: Final = 10000
DEFAULT_NAME: Final = "default"
SCHEDULERS: Final = ("slurm", "pbs", "torque")
# How long the end of a cluster may take if its jobs must end, too.
DONE_S: Final = 75.0
# Where the controller of engines in jobs may run.
PLACES: Final = ("here", "first-node", "job")
LAUNCHERS: Final = ("local", "mpiexec", *SCHEDULERS)
# What comes of it when an engine has crashed (`hpc.controller.restarts`).
POLICIES: Final = ("report", "restart", "survivors")
# After the options the starter keeps the supervisor's stdin open, its end ends the cluster; unless this came before.
DETACH: Final = b"detach"


class ClusterOptions(NamedTuple):
    """What to start.

    ``launches`` are the groups of the launcher ``mpiexec`` where a job script says how to start them: how many ranks,
    and the command line in front of the program. ``hostfile`` names the machines for one ``mpirun``. ``job`` are the
    fields of a `jobscripts.JobSpec`, ``site`` a profile of `jobscripts.sites`, for launchers that are schedulers; with
    ``keep`` a job that ends is submitted again. ``policy`` says what comes of it when an engine has crashed.

    ``name`` is empty for "default", or the next free one after it. ``port`` -1 is 10000 or, where that is taken, any;
    0 is any. ``log_level`` is the controller's and the engines'. ``argv`` is what the person typed, for the record.
    """

    n: int
    name: str = ""
    launcher: str = "local"
    ip: str = "127.0.0.1"
    port: int = -1
    engine_port: int = -1
    start_timeout_s: float = 60.0
    grace_s: float = 3.0
    log_level: str = "info"
    argv: tuple[str, ...] = ()
    launches: tuple[tuple[int, str], ...] = ()
    hostfile: str = ""
    site: str = ""
    job: Mapping[str, Any] = {}
    keep: bool = False
    policy: str = POLICIES[0]

    @property
    def by_jobs(self) -> bool:
        """Whether engines are started by jobs of a scheduler."""
        return self.launcher in SCHEDULERS

    def to_json(self) -> bytes:
        """Return one line, ended by a newline."""
        return json.dumps(self._asdict()).encode() + b"\n"

    @classmethod
    def from_json(cls, line: bytes) -> "ClusterOptions":
        """Read what `to_json` wrote."""
        fields = json.loads(line)
        launches = tuple((n, line) for n, line in fields["launches"])
        return cls(**{**fields, "argv": tuple(fields["argv"]), "launches": launches})


class GroupRow(NamedTuple):
    """A group of engines, for people: see `hpc.cluster.groups.EngineGroup`. Times are seconds since the epoch."""

    label: str
    n: int
    state: str
    pid: int = 0
    job: str = ""
    reason: str = ""
    start_s: float = 0.0
    end_s: float = 0.0
    nodes: tuple[str, ...] = ()


class Event(NamedTuple):
    """What a supervisor reports.

    ``kind`` is ``claimed`` (name, logs, and in ``text`` what is worth saying about the name), ``controller`` (it
    listens: pid, address), ``launcher`` (``text`` says which), ``engines`` (``up`` of ``of`` are registered),
    ``ready`` (all of them), ``job`` (``text`` says how a job stands), ``lost`` (``text`` says which engine and why),
    or, last of all, ``ended`` (``text`` is the reason, ``logs`` is empty if they are removed).
    """

    kind: str
    text: str = ""
    name: str = ""
    logs: str = ""
    host: str = ""
    port: int = 0
    pid: int = 0
    up: int = 0
    of: int = 0
    failed: bool = False
    tail: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """Return one line, ended by a newline; fields that have their defaults are left out."""
        fields = {k: v for k, v in self._asdict().items() if v != self._field_defaults.get(k)}
        return json.dumps(fields).encode() + b"\n"

    @classmethod
    def from_json(cls, line: bytes) -> "Event":
        """Read what `to_json` wrote."""
        fields = json.loads(line)
        return cls(**{**fields, "tail": tuple(fields.get("tail", ()))})


def default_n() -> int:
    """Return how many engines to start where nobody says: one for each core that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def resolve(options: ClusterOptions, *, n_given: bool) -> ClusterOptions:
    """Fill in what follows from the rest: the number of engines, and where the controller listens.

    Raises
    ------
    ValueError
        Something contradicts something else; the field is named.
    """
    job, interface, profile = options.job, "", None
    if options.site:
        from jobscripts import Profile, detect

        profile = Profile.load(options.site)
        scheduler = profile.scheduler or detect().name
        if options.launcher == "local" and scheduler in SCHEDULERS:
            options = options._replace(launcher=scheduler)
    if options.by_jobs:
        fields, spec = read_job(job)
        if profile is not None:
            from hpc.cluster.shapes import at_site

            spec, interface = at_site(profile, spec), profile.interface
        shaped = spec.nodes or spec.ranks_per_node or spec.ranks or spec.components
        if not n_given and not shaped:
            raise ValueError("n is not given: say how many engines, or nodes and ranks_per_node")
        if n_given and spec.nodes and spec.ranks_per_node and spec.total_ranks != options.n:
            raise ValueError(
                f"n is {options.n}, but {spec.nodes} nodes with {spec.ranks_per_node} ranks each make"
                f" {spec.total_ranks}: give only one of them"
            )
        options = options._replace(job=fields)
        n = options.n if n_given else spec.total_ranks
    else:
        for_jobs = [*job, *(field for field in ("site", "keep") if getattr(options, field))]
        if for_jobs:
            raise ValueError(f"{for_jobs[0]} is for jobs: choose a launcher that is one of {', '.join(SCHEDULERS)}")
        n = sum(ranks for ranks, _ in options.launches) or (options.n if n_given else default_n())
    elsewhere = options.by_jobs or options.launches or options.hostfile
    launcher = "mpiexec" if options.launches else options.launcher
    if options.hostfile and launcher != "mpiexec":
        raise ValueError(f"hostfile is for the launcher mpiexec, not {launcher}")
    hostfile = os.path.abspath(options.hostfile) if options.hostfile else ""
    if hostfile and not os.path.isfile(hostfile):
        raise ValueError(f"hostfile is {hostfile}: there is no such file")
    ip = options.ip or interface or ("*" if elsewhere else "127.0.0.1")
    return options._replace(n=n, ip=ip, launcher=launcher, hostfile=hostfile)


def read_job(job: Mapping[str, Any]) -> "tuple[dict[str, Any], JobSpec]":
    """Return the fields of a job in types that JSON has, and the spec that they make.

    ``launch`` (text) and ``components`` (mappings) are as `hpc.cluster.shapes.make_plan` reads them.
    """
    from jobscripts.errors import SpecError
    from jobscripts.spec import JobSpec, check_names, parse_duration_s

    check_names(job)
    fields = dict(job)
    if fields.get("walltime") is not None:
        fields["walltime"] = parse_duration_s(fields["walltime"])
    if not isinstance(fields.get("launch") or "", str):
        raise SpecError("launch", f'{fields["launch"]!r} is no text: write "mpirun", "srun:pmix" or "srun:pmi2"')
    rest = {key: value for key, value in fields.items() if key not in ("launch", "components")}
    return fields, JobSpec(**rest, components=tuple(JobSpec(**part) for part in fields.get("components", ())))


def check(options: ClusterOptions) -> None:
    """Raise `ValueError`, naming the field, for options that cannot be meant."""
    if options.n < 0:
        raise ValueError(f"n is {options.n}: the number of engines cannot be negative")
    if options.launcher not in LAUNCHERS:
        raise ValueError(f"launcher is {options.launcher!r}: choose one of {', '.join(LAUNCHERS)}")
    if options.policy not in POLICIES:
        raise ValueError(f"policy is {options.policy!r}: choose one of {', '.join(POLICIES)}")
    if options.policy == "survivors" and options.launcher != "mpiexec":
        raise ValueError("policy is 'survivors': that is for the ranks of an mpirun, launcher mpiexec")
    for field, port in (("port", options.port), ("engine_port", options.engine_port)):
        if not -1 <= port <= 65535:
            raise ValueError(f"{field} is {port}: a port is a number from 0 (any free one) to 65535")
    if not (options.start_timeout_s > 0 and math.isfinite(options.start_timeout_s)):
        raise ValueError(f"timeout is {options.start_timeout_s}: give a positive number of seconds")
