"""All checks, in the order in which one failure explains the next."""

import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from hpc.cluster.doctor import machine, mpi, network, scheduler
from hpc.cluster.doctor.finding import Finding, Verdict, failed, skipped
from hpc.cluster.options import SCHEDULERS
from hpc.cluster.shapes import Plan, Programs, make_plan
from hpc.errors import SecurityError
from hpc.security.folders import base_dir, private
from jobscripts import JobScriptError, Profile, Runner, detect


def examine(launcher: str, job: Mapping[str, Any], site: str, *, submit: bool, timeout_s: float) -> Iterator[Finding]:
    """Look at this machine, its MPI, and the scheduler, and yield what was found, line by line.

    Parameters
    ----------
    launcher : str
        A scheduler, ``mpiexec`` or ``local``; "" is the profile's scheduler, or what is found here.
    job : mapping
        Fields of the job to try, as of `jobscripts.JobSpec`.
    site : str
        A profile.
    submit : bool
        Whether a real job may be submitted. It waits ``timeout_s`` for its end.
    """
    profile = None
    if site:
        try:
            profile = Profile.load(site)
        except JobScriptError as error:
            yield failed("site", str(error), "correct the file, or name another profile with --site")
            return
    launcher = launcher or (profile.scheduler if profile is not None else "") or detect().name
    yield from on_this_machine(launcher, profile.interface if profile is not None else "")
    yield from of_mpi(launcher)
    if launcher in SCHEDULERS:
        yield from of_scheduler(launcher, job, site, submit=submit, timeout_s=timeout_s)


def on_this_machine(launcher: str, interface: str) -> Iterator[Finding]:
    """Look at this machine."""
    yield machine.descriptors()
    yield machine.shared_memory()
    yield machine.directory()
    yield machine.clock()
    yield network.interfaces(network.addresses(), interface, nodes=launcher in SCHEDULERS)
    yield network.host_name()
    yield network.port()


def of_mpi(launcher: str) -> Iterator[Finding]:
    """Look at the MPI of this Python."""
    finding, library = mpi.library()
    yield finding
    if not library:
        return
    finding, found = mpi.launcher(library)
    if finding.verdict is Verdict.FAILED and launcher in SCHEDULERS:
        # There is srun, too; the plan for the job says whether it fits.
        finding = skipped("mpirun", f"{finding.text}: {launcher} may start ranks by itself")
    yield finding
    if launcher in SCHEDULERS:
        yield skipped("2 ranks here", "engines run in jobs")
    elif found is not None:
        yield mpi.two_ranks(found)


def of_scheduler(
    launcher: str, job: Mapping[str, Any], site: str, *, submit: bool, timeout_s: float
) -> Iterator[Finding]:
    """Look at the scheduler."""
    try:
        plan = make_plan(launcher, job, site=site, programs=Programs(sys.executable))
    except JobScriptError as error:
        yield failed(
            "job", str(error), "say it with an option (--launch srun:pmix, ...), or in the profile of the site"
        )
        return
    finding = scheduler.programs(plan.scheduler)
    yield finding
    if finding.verdict is Verdict.FAILED:
        return
    finding = scheduler.answers(plan.scheduler)
    yield finding
    if finding.verdict is not Verdict.FAILED:
        yield from _by_jobs(plan, submit=submit, timeout_s=timeout_s)


def _by_jobs(plan: Plan, *, submit: bool, timeout_s: float) -> Iterator[Finding]:
    try:
        directory = private(base_dir() / f"doctor-{uuid.uuid4().hex[:8]}")
    except (OSError, SecurityError) as error:
        yield failed("dry run", f"no place for a script: {error}", "see the line on the directory")
        return
    try:
        runner = Runner(plan.scheduler)
        finding = scheduler.dry_run(plan, runner, directory)
        yield finding
        if not submit:
            yield skipped("2 ranks in a job", "not wanted (--no-job)")
        elif finding.verdict is not Verdict.FAILED:
            interface = plan.profile.interface if plan.profile is not None else ""
            ips = network.reachable(network.addresses(), interface)
            yield from scheduler.real_job(plan, runner, directory, addresses=ips, timeout_s=timeout_s)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
