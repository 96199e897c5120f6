"""Real processes: a private place for each test, and the proof that nothing is left of what it started."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .fake_schedulers import FakePbs, FakeScheduler, FakeSlurm

DEADLINE_S = 20.0
IPCLUSTER = (sys.executable, "-m", "hpc.cli.ipcluster")


def wait_until(
    condition: Callable[[], object], what: str, timeout_s: float = DEADLINE_S, pause_s: float = 0.01
) -> object:
    """Return the first true value of a condition; fail, saying what was waited for, after the deadline."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout_s:g} s in vain for {what}")
        time.sleep(pause_s)
    return value


class Processes:
    """The processes and files that belong to one test, recognised by its HPC_DIR in their environment."""

    def __init__(self, home: Path, runtime: Path) -> None:
        self.home, self.runtime = home, runtime
        self._mark = f"HPC_DIR={home}".encode()
        self._spawned: list[subprocess.Popen[str]] = []

    def pids(self) -> dict[int, str]:
        """Return the processes of this test, with their command lines. Zombies are none."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    if self._mark in (entry / "environ").read_bytes().split(b"\0"):
                        command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                        if command:
                            found[int(entry.name)] = f"{(entry / 'comm').read_text().strip()}: {command}"
                except OSError:
                    continue
        return found

    def files(self) -> list[str]:
        """Return files and sockets that stand in the test's directories."""
        return [
            str(path)
            for root in (self.home, self.runtime)
            for path in sorted(root.rglob("*"))
            if not path.is_dir() or path.name.startswith("hpc-")
        ]

    def spawn(self, *command: str, **keywords: object) -> "subprocess.Popen[str]":
        """Start a command of this test; it is killed at the end if it is still there."""
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, **keywords
        )
        self._spawned.append(process)
        return process

    def assert_none_left(self, *, files: bool = True) -> None:
        """Assert that no process, socket or file is left, or will be once what was told to end has ended."""
        wait_until(lambda: not self.pids(), f"the end of {self.pids()}")
        if files:
            assert self.files() == []

    def clean_up(self) -> dict[int, str]:
        """Kill what is left and return it."""
        left = self.pids()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self._spawned:
            process.kill()
            process.wait(5)
            assert process.stdout is not None
            process.stdout.close()
        return left


@pytest.fixture(autouse=True)
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Processes]:
    """Give the test directories of its own, and fail it if a process of its is left at the end."""
    # Short, because the path of a unix socket is limited to some 100 bytes.
    root = Path(tempfile.mkdtemp(prefix="hpc-t-"))
    home, runtime = root / "home", root / "run"
    scratch = root / "tmp"
    for directory in (home, runtime, scratch):
        directory.mkdir(mode=0o700)
    monkeypatch.setenv("HPC_DIR", str(home))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    # An mpirun of Open MPI that was killed leaves a directory with its pid as name: the next one with this pid ends
    # with "The PMIx server's listener thread failed to start".
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.delenv("HPC_CLUSTER", raising=False)
    helper = Processes(home, runtime)
    yield helper
    left = helper.clean_up()
    shutil.rmtree(root)
    assert not left, f"left behind: {left}"


def cli(*arguments: str, check: bool = True, timeout_s: float = DEADLINE_S) -> "subprocess.CompletedProcess[str]":
    """Run ``ipcluster`` with these arguments."""
    done = subprocess.run(
        [*IPCLUSTER, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if check:
        assert done.returncode == 0, f"ipcluster {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def status(*arguments: str) -> dict[str, Any]:
    """Return what ``ipcluster status --json`` says."""
    answer: dict[str, Any] = json.loads(cli("status", "--json", *arguments, check=False).stdout)
    return answer


def engines_of(name: str = "default") -> list[dict[str, Any]]:
    """Return the engines of a cluster as ``ipcluster status --json`` shows them."""
    engines: list[dict[str, Any]] = status("--name", name)["engines"]
    return engines


def address_in(text: str) -> tuple[str, int]:
    """Find the Python lines to connect and return the address in them."""
    found = re.search(r'RemoteController\(\("([^"]+)", (\d+)\)\)', text)
    assert found, text
    return found[1], int(found[2])


def read_until(process: "subprocess.Popen[str]", text: str) -> str:
    """Read a command's output up to the line with this text and return it."""
    seen = ""
    assert process.stdout is not None
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    pytest.fail(f"{text!r} never came:\n{seen}")


# tests/conftest.py skips them where there is no MPI; scripts/test runs them with each of the two.
needs_mpi = pytest.mark.needs_mpi


@pytest.fixture(params=[FakeSlurm, FakePbs], ids=["slurm", "pbs"])
def scheduler(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: Processes
) -> Iterator[FakeScheduler]:
    """Put the commands of a scheduler first on PATH, and work in a directory of the test."""
    fake: FakeScheduler = request.param(tmp_path / "scheduler")
    monkeypatch.setenv("PATH", f"{fake.bin}{os.pathsep}{os.environ['PATH']}")
    for name in [name for name in os.environ if name.startswith(("SLURM_", "PBS_"))]:
        monkeypatch.delenv(name)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield fake
    fake.close()
