"""What jobs a cluster is made of: the common shapes, as `jobscripts.JobSpec`.

=================  ====================================================================================================
shape              what the job runs
=================  ====================================================================================================
``together``       controller and engines, until the walltime, for clients elsewhere
``batch``          controller, engines and a script as their client; the job ends with the script, with its exit status
``engines``        engines of a controller that runs elsewhere; with ``array``, as many times as that says
``controller``     a controller; engines come by jobs of the shape ``engines``
=================  ====================================================================================================

With components, ``together`` and ``batch`` have one group of engines for each: a heterogeneous job.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from hpc.cluster.options import ClusterOptions, read_job
from jobscripts import JobSpec, Launch, Profile, Scheduler, SpecError, get_scheduler, launch_line

SHAPES: Final = ("together", "batch", "engines", "controller")


@dataclass(frozen=True)
class Programs:
    """How a script calls our commands: by name, or, with ``python``, as modules of that very Python."""

    python: str = ""

    def words(self, command: str) -> tuple[str, ...]:
        """Return the beginning of a command line."""
        return (self.python, "-m", f"hpc.cli.{command}") if self.python else (command,)


@dataclass(frozen=True)
class Plan:
    """Everything about jobs that is the same for all jobs of a cluster.

    Attributes
    ----------
    scheduler : Scheduler
    resources : JobSpec
        What each job asks for, by the profile too; its shape is that of the first.
    launch : Launch
        How ranks are started.
    profile : Profile, optional
        The site's.
    programs : Programs
        How scripts call our commands.
    """

    scheduler: Scheduler
    resources: JobSpec
    launch: Launch
    profile: Profile | None = None
    programs: Programs = Programs()

    @property
    def ip(self) -> str:
        """Where a controller in a job listens: at the site's network for this, else at all that there are."""
        return self.profile.interface if self.profile is not None and self.profile.interface else "*"

    def resized(self, n: int) -> "Plan":
        """Return the plan with ``n`` ranks in each job."""
        return replace(self, resources=self.resources.replace(**for_ranks(self.resources, n)))

    def engines(
        self, n: int | None = None, *, label: str = "", connection_file: str = "", name: str = "", **job: Any
    ) -> JobSpec:
        """Return a job with ``n`` engines, or as many as ``resources`` say, and these fields changed.

        They find their controller by its connection file, or its name.
        """
        spec = self.resources if n is None else self.resized(n).resources
        options = [f"--{key}={value}" for key, value in (("connection-file", connection_file), ("name", name)) if value]
        if label:
            options.append(f"--label={label}")
        command = (*self.programs.words("ipengine"), "--mpi", *options)
        return self._finished(
            spec.replace(command=command, launch=self.launch, **{"name": job.pop("job_name", "") or spec.name, **job})
        )

    def together(self, *, name: str, timeout_s: float = 0.0) -> JobSpec:
        """Return a job with a controller and engines; ``timeout_s`` is how long these have to come up, if not 0."""
        timeout = [f"--timeout={timeout_s:g}"] if timeout_s else []
        command = (*self.programs.words("ipcluster"), *self._cluster(name), *timeout)
        return self._finished(self.resources.replace(command=command))

    def batch(self, script: Sequence[str], *, name: str = "") -> JobSpec:
        """Return a job with controller, engines, and a script as client."""
        if not script:
            raise SpecError("command", "this shape runs a script: write it after --")
        command = (*self.programs.words("ipcluster"), "run", *self._cluster(name), "--", *script)
        return self._finished(self.resources.replace(command=command))

    def controller(self, *, name: str) -> JobSpec:
        """Return a job with nothing but a controller."""
        alone = {
            "nodes": 1,
            "ranks": None,
            "ranks_per_node": None,
            "gpus_per_node": None,
            "components": (),
            "array": "",
        }
        command = (
            *self.programs.words("ipcontroller"),
            "--ip",
            self.ip,
            "--port=0",
            *([f"--name={name}"] if name else []),
        )
        spec = self.resources.replace(**alone, exclusive=False, command=command)
        return self._finished(spec)

    def _cluster(self, name: str) -> list[str]:
        """Return the options of an ipcluster in the allocation: how many ranks, and how they are started there."""
        spec = self.resources
        if spec.array:
            raise SpecError(
                "array", "each element would be a cluster of its own with the same name; take the shape engines"
            )
        options = ["--ip", self.ip, "--port=0", *([f"--name={name}"] if name else [])]
        for component in range(len(spec.components)) if spec.components else [None]:
            part = spec if component is None else spec.components[component]
            line = launch_line(self.launch, spec, "", scheduler=self.scheduler.name, component=component)
            options += ["--group", str(part.total_ranks), line.strip()]
        return options

    def _finished(self, spec: JobSpec) -> JobSpec:
        if self.profile is not None:
            self.profile.limits.check(spec, self.profile.name)
        return spec


def plan(options: ClusterOptions) -> Plan:
    """Return the plan of a cluster whose engines are started by jobs; they use the Python that runs this.

    Raises
    ------
    SpecError
        A field of the job is wrong; it is named.
    """
    return make_plan(options.launcher, options.job, site=options.site, programs=Programs(sys.executable))


def make_plan(
    scheduler: str, fields: Mapping[str, Any], *, site: str = "", programs: Programs = Programs(), probing: bool = True
) -> Plan:
    """Return a plan from the fields of a job, as options or a profile hold them.

    Parameters
    ----------
    fields
        Of `JobSpec`; ``launch`` is written ``"srun:pmix"``, ``"mpirun"``, and ``components`` are mappings.
    site : str
        A profile.
    probing : bool
        Whether to look at this machine where nobody says how ranks are started; else it is by ``mpirun``.
    """
    from hpc.cluster.probe import find_launch, library_choice

    said = fields.get("launch")
    resources = read_job(fields)[1]
    if resources.command:
        raise SpecError("command", "is the shape's to say")
    if programs.python:
        resources = resources.replace(environment={**library_choice(), **resources.environment})
    profile = Profile.load(site) if site else None
    if profile is not None:
        resources = at_site(profile, resources)
    if said:
        launch = parse_launch(said)
    elif profile is not None and profile.launch is not None:
        launch = profile.launch
    else:
        launch = find_launch(scheduler) if probing else Launch()
    return Plan(get_scheduler(scheduler), resources, launch, profile, programs)


def at_site(profile: Profile, resources: JobSpec) -> JobSpec:
    """Return what a job asks for, with what the site adds to it; how ranks are started is the shape's to say."""
    return replace(profile, launch=None).apply(resources)


def parse_launch(text: str) -> Launch:
    """Read ``srun:pmi2``, ``srun:pmix``, ``mpirun`` or ``mpiexec``."""
    kind, _, mpi = text.partition(":")
    return Launch(kind, mpi)


def for_ranks(spec: JobSpec, n: int) -> dict[str, Any]:
    """Return the fields of a job's shape for ``n`` ranks on nodes that are filled as those of ``spec`` are."""
    if spec.components:
        if n != spec.total_ranks:
            raise SpecError("components", f"have {spec.total_ranks} ranks together: there is no such job with {n}")
        return {}
    per_node = spec.ranks_per_node
    if per_node is None and spec.nodes is not None and n == spec.total_ranks:
        per_node = spec.ranks_on_node
    if per_node is not None and n % per_node == 0:
        return {"nodes": n // per_node, "ranks_per_node": per_node, "ranks": None}
    if spec.nodes is not None and spec.ranks_per_node is None and n % spec.nodes == 0:
        return {"nodes": spec.nodes, "ranks_per_node": n // spec.nodes, "ranks": None}
    return {"nodes": None, "ranks_per_node": None, "ranks": n}
