"""Schedulers of one machine in two hundred lines: their commands on PATH, and a thread that runs the jobs.

The commands leave files in a spool, as people's commands leave requests with a server; the thread is the parent of the
jobs, so that these outlive whoever submitted them. What a job finds is what it would find there: Slurm hands on the
environment and the directory, PBS starts in the home directory with next to nothing.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

# What a job ends as, by our words for it: Slurm's state; PBS's substate and Exit_status.
_COMMAND = """#!{python}
import json, os, sys, time
from pathlib import Path
spool = Path({spool!r})
name = os.path.basename(sys.argv[0])
with (spool / "calls").open("a") as calls:
    calls.write(" ".join([name, *sys.argv[1:]]) + "\\n")
if (spool / "down").exists():
    sys.exit(name + ": cannot connect to server fake (errno=15010), Unable to contact slurm controller")
known = {{path.stem: json.loads(path.read_text()) for path in sorted(spool.glob("*.state"))}}

def at(form, epoch):
    return time.strftime(form, time.localtime(epoch)) if epoch else "N/A"

if name in ("sbatch", "qsub"):
    number = len(list(spool.glob("*.job"))) + 1
    draft = spool / "draft"
    draft.write_text(json.dumps({{"script": sys.argv[-1], "cwd": os.getcwd(), "environment": dict(os.environ)}}))
    draft.rename(spool / f"{{number}}.job")
    print(number if name == "sbatch" else f"{{number}}.fake")
elif name == "squeue":
    iso = "%Y-%m-%dT%H:%M:%S"
    for number, job in known.items():
        node = "node1" if job["state"] != "PENDING" else ""
        print("|".join([number, job["state"], job["reason"], at(iso, job["start"]), at(iso, job["end"]), node]))
elif name == "qstat":
    jobs = {{}}
    for wanted in sys.argv[1:]:
        job = known.get(wanted.removesuffix(".fake"))
        if job is None:
            continue
        state = {{"PENDING": "Q", "RUNNING": "R"}}.get(job["state"], "F")
        fields = {{"job_state": state, "Resource_List": {{"walltime": "00:10:00"}}}}
        if state == "Q":
            fields["comment"] = "Not Running: " + job["reason"]
            fields["estimated"] = {{"start_time": at("%a %b %d %H:%M:%S %Y", job["start"])}}
        else:
            fields |= {{"stime": at("%a %b %d %H:%M:%S %Y", job["start"]), "exec_host": "node1/0*2"}}
        if state == "F":
            ran = job["code"] is not None
            fields |= {{"Exit_status": job["code"]}} if ran else {{}}
            fields |= {{"substate": 91 if job["state"] == "CANCELLED" else 93 if job["code"] else 92}}
        jobs[wanted] = fields
    print(json.dumps({{"pbs_version": "23.06.06", "Jobs": jobs}}))
elif name in ("scancel", "qdel"):
    for number in sys.argv[1:]:
        (spool / f"{{number.removesuffix('.fake')}}.cancel").touch()
"""


class FakeScheduler:
    """A scheduler. ``hold`` keeps jobs pending."""

    name = ""
    programs: tuple[str, ...] = ()

    def __init__(self, directory: Path) -> None:
        self.spool = directory / "spool"
        self.bin = directory / "bin"
        for folder in (self.spool, self.bin):
            folder.mkdir(parents=True)
        for name in self.programs:
            path = self.bin / name
            path.write_text(_COMMAND.format(python=sys.executable, spool=str(self.spool)))
            path.chmod(0o755)
        self.hold = False
        self._jobs: dict[str, subprocess.Popen[bytes]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def environment(self, job: dict[str, Any], number: str) -> dict[str, str]:
        """Return the environment of a job."""
        raise NotImplementedError

    def start_directory(self, job: dict[str, Any]) -> str:
        """Return where a job starts."""
        raise NotImplementedError

    def output(self, script: str) -> str:
        """Return where the directives of a script send its output."""
        raise NotImplementedError

    def down(self, yes: bool) -> None:
        """Have every command fail, or work again."""
        path = self.spool / "down"
        path.touch() if yes else path.unlink(missing_ok=True)

    def calls(self, name: str) -> int:
        """Count the calls of a command."""
        lines = (self.spool / "calls").read_text().splitlines() if (self.spool / "calls").exists() else []
        return sum(line.split()[0] == name for line in lines)

    def state(self, number: str) -> str:
        """Return the state of a job, in Slurm's words."""
        path = self.spool / f"{number.partition('.')[0]}.state"
        return str(json.loads(path.read_text())["state"]) if path.exists() else ""

    def time_is_over(self, number: str) -> None:
        """End a job as if its walltime had come."""
        process = self._jobs[number]
        self._say(number, "TIMEOUT", code=-29)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End all jobs and the thread."""
        self._over.set()
        self._thread.join(10)
        for process in self._jobs.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)

    def _serve(self) -> None:
        while not self._over.wait(0.02):
            for path in self.spool.glob("*.job"):
                number = path.stem
                state = self.state(number)
                if state in ("", "PENDING"):
                    self._start_or_wait(path)
                elif state == "RUNNING":
                    self._look(number)

    def _start_or_wait(self, path: Path) -> None:
        number = path.stem
        if (self.spool / f"{number}.cancel").exists():
            self._say(number, "CANCELLED")
        elif self.hold:
            self._say(number, "PENDING", reason="Resources", start_s=time.time() + 7200)
        else:
            job = json.loads(path.read_text())
            script = Path(job["script"])
            with open(self.output(script.read_text()), "ab") as file:
                self._jobs[number] = subprocess.Popen(
                    ["/bin/bash", str(script)],
                    cwd=self.start_directory(job),
                    env=self.environment(job, number),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                )
            self._say(number, "RUNNING")

    def _look(self, number: str) -> None:
        process = self._jobs[number]
        code = process.poll()
        cancelled = self.spool / f"{number}.cancel"
        if code is not None:
            self._say(number, "CANCELLED" if cancelled.exists() else "FAILED" if code else "COMPLETED", code=code)
        elif cancelled.exists() and not (told := self.spool / f"{number}.told").exists():
            told.touch()
            os.killpg(process.pid, signal.SIGTERM)

    def _say(
        self, number: str, state: str, *, reason: str = "None", start_s: float = 0.0, code: int | None = None
    ) -> None:
        start_s = start_s or time.time()
        draft = self.spool / f".{number}"
        said = {"state": state, "reason": reason, "start": start_s, "end": start_s + 600, "code": code}
        draft.write_text(json.dumps(said))
        draft.rename(self.spool / f"{number}.state")


class FakeSlurm(FakeScheduler):
    """Hands on the environment and the directory."""

    name = "slurm"
    programs = ("sbatch", "squeue", "scancel")

    def environment(self, job: dict[str, Any], number: str) -> dict[str, str]:
        """Return what was there at submission; mpirun shall not look for the daemons of a real Slurm."""
        hydra = {"HYDRA_LAUNCHER": "fork", "PRTE_MCA_plm": "ssh", "PRTE_MCA_ras": "^slurm"}
        return {**job["environment"], **hydra, "SLURM_JOB_ID": number}

    def start_directory(self, job: dict[str, Any]) -> str:
        """Return the directory of submission."""
        return str(job["cwd"])

    def output(self, script: str) -> str:
        """Read sbatch's option."""
        found = re.search(r'^#SBATCH --output="?([^"\n]+)', script, re.MULTILINE)
        return found[1] if found else os.devnull


class FakePbs(FakeScheduler):
    """Starts jobs at home, with an environment of its own."""

    name = "pbs"
    programs = ("qsub", "qstat", "qdel")
    # What is no part of a login there: this checkout, and what Open MPI wants of a root that tests.
    _HANDED_ON = re.compile(r"PYTHONPATH|OMPI_ALLOW_\w+|PRTE_MCA_\w+|HYDRA_LAUNCHER")

    def environment(self, job: dict[str, Any], number: str) -> dict[str, str]:
        """Return what a login has, and what PBS adds."""
        handed_on = {name: value for name, value in job["environment"].items() if self._HANDED_ON.fullmatch(name)}
        return {
            "HOME": str(Path.home()),
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PBS_JOBID": f"{number}.fake",
            "PBS_O_WORKDIR": job["cwd"],
            **handed_on,
        }

    def start_directory(self, job: dict[str, Any]) -> str:
        """Return the home directory."""
        return str(Path.home())

    def output(self, script: str) -> str:
        """Read qsub's option."""
        found = re.search(r"^#PBS -o '?([^'\n]+)", script, re.MULTILINE)
        return found[1].rpartition(":")[2] if found else os.devnull
