"""The scheduler: its programs, whether it answers, what it says of a job, and a real one of two ranks."""

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from hpc.cluster.doctor.finding import Finding, failed, ok, warning
from hpc.cluster.doctor.mpi import PROBE, RANKS, heard, judge
from hpc.cluster.shapes import Plan
from jobscripts import Job, JobScriptError, JobSpec, JobStatus, Output, Runner, Scheduler, State
from jobscripts.runner import Run, run_command

SLOW_S: Final = 5.0
CLOCK_S: Final = 2.0
WALLTIME: Final = "5m"
# Output of a job may come later than the news of its end, on network file systems.
OUTPUT_S: Final = 10.0


def programs(scheduler: Scheduler) -> Finding:
    """Look for the scheduler's programs."""
    missing = scheduler.missing()
    if not missing:
        return ok(scheduler.name, f"{', '.join(scheduler.programs)} are on PATH")
    return failed(
        scheduler.name,
        f"{', '.join(missing)} not on PATH",
        "load the scheduler's module, go to a login node, or choose another one with --launcher",
    )


def answers(scheduler: Scheduler, run: Run = run_command) -> Finding:
    """Ask the scheduler about a job that there is not."""
    command = scheduler.status_command(["0"])
    begun = time.monotonic()
    try:
        scheduler.parse_status(run(command), ["0"])
    except JobScriptError as error:
        return failed(
            command[0],
            str(error),
            "see whether the scheduler is up, and whether this machine is set up for it (SLURM_CONF, /etc/pbs.conf)",
        )
    took_s = time.monotonic() - begun
    if took_s < SLOW_S:
        return ok(command[0], f"answers within {took_s:.2g} s")
    return warning(command[0], f"took {took_s:.0f} s to answer", "expect clusters to hear of their jobs late")


def job_of(plan: Plan, *, addresses: Sequence[str] = (), file: str = "") -> JobSpec:
    """Return the job: two ranks of the probe, as a cluster's engines would be started."""
    command = [*PROBE, *(f"--address={address}" for address in addresses), *([f"--file={file}"] if file else [])]
    spec = plan.resized(RANKS).resources
    spec = spec.replace(command=tuple(command), launch=plan.launch, name=spec.name or "hpc-doctor")
    if plan.profile is not None:
        spec = replace(plan.profile, launch=None).apply(spec)
    return spec if spec.walltime else spec.replace(walltime=WALLTIME)


def dry_run(plan: Plan, runner: Runner, directory: Path) -> Finding:
    """Ask whether such a job would be accepted, and when it would start."""
    check = "dry run"
    remedy = "say what is missing or wrong with an option (--account, --queue, ...), or in the profile of the site"
    try:
        answer = runner.dry_run(job_of(plan), directory)
    except JobScriptError as error:
        return failed(check, str(error), remedy)
    if not answer.accepted:
        return failed(check, answer.message, remedy)
    start = "" if answer.start_s is None else f", would start {time.strftime('%H:%M', time.localtime(answer.start_s))}"
    return ok(check, f"a job of {RANKS} ranks would be accepted{start}")


def real_job(
    plan: Plan, runner: Runner, directory: Path, *, addresses: Sequence[str], timeout_s: float
) -> Iterator[Finding]:
    """Run a job of two ranks and tell what they found: each other, this machine, its files, its clock."""
    check = f"{RANKS} ranks in a job"
    file = directory / "seen-from-here"
    file.touch()
    with listening(addresses) as known:
        begun_s = time.time()
        try:
            job = runner.submit(job_of(plan, addresses=known, file=str(file)), directory)
        except JobScriptError as error:
            yield failed(check, str(error), "see the dry run")
            return
        status = followed(runner, job, timeout_s)
        if not status.state.final:
            yield warning(
                check,
                f"{status} after {timeout_s:g} s, and cancelled: nothing is known of what it would have found",
                "wait for longer (--timeout), or choose a queue for short jobs (--queue)",
            )
            return
        output = output_of(job, status)
    yield judge(check, output)
    said = heard(output.stdout)
    if not said:
        if not output.stdout:
            yield failed(
                "files", f"the job has ended ({status}), its output is not here", "see the remedy for `files`: HPC_DIR"
            )
        return
    yield way_back(said, known)
    yield shared_files(said, directory)
    yield clocks(said, begun_s, time.time())


def followed(runner: Runner, job: Job, timeout_s: float) -> JobStatus:
    """Wait for the end of the job; one that has not ended by then is cancelled."""
    try:
        return runner.wait([job], timeout_s=timeout_s)[job.id]
    except TimeoutError:
        status = runner.poll([job])[job.id]
        runner.cancel([job])
        with contextlib.suppress(TimeoutError):
            runner.wait([job], timeout_s=timeout_s)
        return status


def output_of(job: Job, status: JobStatus) -> Output:
    """Return what the job has printed, once it is there."""
    deadline = time.monotonic() + OUTPUT_S
    text = ""
    while time.monotonic() < deadline and len(heard(text)) < RANKS:
        with contextlib.suppress(OSError):
            text = Path(job.stdout).read_text(errors="replace")
        if status.state is not State.COMPLETED and text:
            break
        time.sleep(0.1)
    return Output(status.exit_code or 0, text, str(status))


@contextlib.contextmanager
def listening(ips: Sequence[str]) -> Iterator[list[str]]:
    """Listen at a port of all interfaces, and give the addresses to try. The kernel answers; nobody accepts."""
    with socket.create_server(("", 0), backlog=4 * RANKS) as server:
        port = server.getsockname()[1]
        yield [f"{ip}:{port}" for ip in ips]


def way_back(said: Sequence[dict[str, Any]], addresses: Sequence[str]) -> Finding:
    """Say whether engines in jobs reach a controller here."""
    check = "way back"
    reached = [address for address in addresses if all(address in entry["reached"] for entry in said)]
    if reached:
        return ok(check, f"jobs reach this machine at {', '.join(address.rpartition(':')[0] for address in reached)}")
    return failed(
        check,
        f"jobs do not reach this machine at {', '.join(addresses) or 'any address'}",
        "run the controller in the job (ipcluster start --controller first-node, ipcluster submit), or name the"
        " interface that nodes reach in the profile of the site (interface = ...)",
    )


def shared_files(said: Sequence[dict[str, Any]], directory: Path) -> Finding:
    """Say whether jobs see what a cluster writes down."""
    if all(entry["sees_file"] for entry in said):
        return ok("files", f"jobs see {directory.parent}")
    return failed("files", f"jobs do not see {directory.parent}", "set HPC_DIR to a directory that the nodes share")


def clocks(said: Sequence[dict[str, Any]], begun_s: float, ended_s: float) -> Finding:
    """Say whether the clocks of the nodes agree with this one's."""
    off_s = max((max(begun_s - entry["clock_s"], entry["clock_s"] - ended_s) for entry in said), default=0.0)
    if off_s <= CLOCK_S:
        return ok("clocks", "those of the nodes agree with this machine's")
    return warning(
        "clocks",
        f"a node's is at least {off_s:.0f} s off this machine's: walltimes seem to end too early or too late",
        "have the time synchronised on both: chronyc tracking, timedatectl",
    )
