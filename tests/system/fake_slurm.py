"""A Slurm of one machine in a hundred lines: sbatch, squeue and scancel on PATH, and a thread that runs the jobs.

The commands leave files in a spool, as people's commands leave requests with slurmctld; the thread is the parent of the
jobs, so that these outlive whoever submitted them.
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

_COMMAND = """#!{python}
import json, os, sys, time
from pathlib import Path
spool = Path({spool!r})
name = os.path.basename(sys.argv[0])
with (spool / "calls").open("a") as calls:
    calls.write(" ".join([name, *sys.argv[1:]]) + "\\n")
if (spool / "down").exists():
    sys.exit(name + ": error: Unable to contact slurm controller (connect failure)")
if name == "sbatch":
    number = len(list(spool.glob("*.job"))) + 1
    draft = spool / "draft"
    draft.write_text(json.dumps({{"script": sys.argv[-1], "cwd": os.getcwd(), "environment": dict(os.environ)}}))
    draft.rename(spool / f"{{number}}.job")
    print(number)
elif name == "squeue":
    for path in sorted(spool.glob("*.state")):
        print(path.stem + "|" + path.read_text())
elif name == "scancel":
    for number in sys.argv[1:]:
        (spool / f"{{number}}.cancel").touch()
"""


class FakeSlurm:
    """The scheduler. ``hold`` keeps jobs pending; ``down`` has every command fail."""

    def __init__(self, directory: Path) -> None:
        self.spool = directory / "spool"
        self.bin = directory / "bin"
        for folder in (self.spool, self.bin):
            folder.mkdir(parents=True)
        for name in ("sbatch", "squeue", "scancel"):
            path = self.bin / name
            path.write_text(_COMMAND.format(python=sys.executable, spool=str(self.spool)))
            path.chmod(0o755)
        self.hold = False
        self._jobs: dict[str, subprocess.Popen[bytes]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def down(self, yes: bool) -> None:
        """Have every command fail, or work again."""
        path = self.spool / "down"
        path.touch() if yes else path.unlink(missing_ok=True)

    def calls(self, name: str) -> int:
        """Count the calls of a command."""
        lines = (self.spool / "calls").read_text().splitlines() if (self.spool / "calls").exists() else []
        return sum(line.split()[0] == name for line in lines)

    def end(self, number: str, state: str) -> None:
        """End a job as Slurm would: ``TIMEOUT``, ``NODE_FAIL``."""
        process = self._jobs[number]
        self._say(number, state, "None")
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
                state = self._state(number)
                if state.startswith("PENDING") or not state:
                    self._start_or_wait(path)
                elif state.startswith("RUNNING"):
                    self._look(number)

    def _state(self, number: str) -> str:
        path = self.spool / f"{number}.state"
        return path.read_text() if path.exists() else ""

    def _start_or_wait(self, path: Path) -> None:
        number = path.stem
        if (self.spool / f"{number}.cancel").exists():
            self._say(number, "CANCELLED", "None")
        elif self.hold:
            self._say(number, "PENDING", "Resources", start_s=time.time() + 7200)
        else:
            job = json.loads(path.read_text())
            script = Path(job["script"])
            output = re.search(r'^#SBATCH --output="?([^"\n]+)', script.read_text(), re.MULTILINE)
            environment = job["environment"] | {
                "SLURM_JOB_ID": number,
                "HYDRA_LAUNCHER": "fork",
                "PRTE_MCA_plm": "ssh",
                "PRTE_MCA_ras": "^slurm",
            }
            with open(output[1] if output else os.devnull, "ab") as file:
                self._jobs[number] = subprocess.Popen(
                    ["/bin/bash", str(script)],
                    cwd=job["cwd"],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                )
            self._say(number, "RUNNING", "None")

    def _look(self, number: str) -> None:
        process = self._jobs[number]
        code = process.poll()
        cancelled = self.spool / f"{number}.cancel"
        if code is not None:
            self._say(number, "CANCELLED" if cancelled.exists() else "FAILED" if code else "COMPLETED", "None")
        elif cancelled.exists() and not (told := self.spool / f"{number}.told").exists():
            told.touch()
            os.killpg(process.pid, signal.SIGTERM)

    def _say(self, number: str, state: str, reason: str, start_s: float | None = None) -> None:
        form = "%Y-%m-%dT%H:%M:%S"
        start = time.strftime(form, time.localtime(start_s or time.time()))
        end = time.strftime(form, time.localtime((start_s or time.time()) + 600))
        draft = self.spool / f".{number}"
        draft.write_text("|".join((state, reason, start, end, "" if state == "PENDING" else "node1")))
        draft.rename(self.spool / f"{number}.state")
