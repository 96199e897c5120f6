"""The doctor's checks, each with a machine or a scheduler that is ill in one way: every remedy names what to do."""

import contextlib
import json
import os
import resource
import socket
import time
from pathlib import Path

import pytest

from hpc.cluster.doctor import machine, mpi, network, scheduler
from hpc.cluster.doctor.finding import Finding, Verdict, failed
from hpc.cluster.mpirun import Mpirun
from hpc.cluster.shapes import make_plan
from hpc.engine import probe
from hpc.errors import SecurityError
from jobscripts import Output, Runner, get_scheduler
from jobscripts.slurm import Slurm

OK, WARNING, FAILED, SKIPPED = Verdict.OK, Verdict.WARNING, Verdict.FAILED, Verdict.SKIPPED
MPICH = {"name": "MPICH 5.0.2", "family": "MPICH", "path": "/env/lib/libmpi.so.12", "mpirun": "/env/bin/mpirun"}
HERE = ("10.0.0.5:4321", "192.168.1.5:4321")


def said(**fields: object) -> str:
    return f"{probe.MARK}{json.dumps(fields)}\n"


def rank(number: int, size: int = 2, **fields: object) -> str:
    known = {"rank": number, "size": size, "sum": size, "name": "MPICH 5.0.2", "host": f"node{number}"}
    return said(**known | {"reached": list(HERE[:1]), "sees_file": True, "clock_s": time.time()} | fields)


def answering(**outputs: Output):
    """Return what runs commands: by the name of the program, whatever its arguments; calls are kept in `calls`."""

    def run(command, *_, **__):
        run.calls.append(list(command))
        return outputs[Path(command[0]).name.replace("-", "_")]

    run.calls = []
    return run


def test_a_finding_that_is_bad_has_a_remedy() -> None:
    with pytest.raises(ValueError, match="nobody says"):
        failed("x", "broken", "")
    assert Finding("x", OK, "fine").remedy == ""


# ---------------------------------------------------------------- this machine


@pytest.mark.parametrize(
    ("limits", "verdict"),
    [((1024, 1048576), OK), ((1024, 1024), WARNING), ((1024, resource.RLIM_INFINITY), OK)],
)
def test_open_files(limits: tuple[int, int], verdict: Verdict) -> None:
    found = machine.descriptors(limits)
    assert found.verdict is verdict
    assert verdict is OK or "65536" in found.remedy


def test_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "mount" in machine.shared_memory(str(tmp_path / "none")).remedy
    real = os.statvfs(tmp_path)

    def filesystem(total_mib: int, free_mib: int):
        sizes = {"f_frsize": 1024**2, "f_blocks": total_mib, "f_bavail": free_mib}
        return type("Statvfs", (), {name: sizes.get(name, getattr(real, name)) for name in dir(real) if "f_" in name})

    for total, free, words in ((64, 60, "--shm-size"), (1024, 3, "mpich_shm_"), (1024, 1000, "")):
        monkeypatch.setattr(os, "statvfs", lambda _, total=total, free=free: filesystem(total, free))
        found = machine.shared_memory(str(tmp_path))
        assert (found.verdict, words in found.remedy) == (WARNING if words else OK, True)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "chmod" in machine.shared_memory(str(tmp_path)).remedy


def test_the_directory(tmp_path: Path) -> None:
    assert machine.directory(lambda: tmp_path).verdict is OK
    assert "HPC_DIR" in machine.directory(lambda: tmp_path / "none").remedy

    def unsafe() -> Path:
        raise SecurityError("others may write to it: chmod 700")

    assert machine.directory(unsafe).remedy == "others may write to it: chmod 700"


@pytest.mark.parametrize(("ahead_s", "words"), [(0, ""), (3600, "3600 s behind"), (-3600, "3600 s ahead")])
def test_the_clock(tmp_path: Path, ahead_s: float, words: str) -> None:
    found = machine.clock(lambda: tmp_path, lambda: time.time() + ahead_s)
    assert found.verdict is (WARNING if words else OK)
    assert words in found.text.replace("3599", "3600")


@pytest.mark.parametrize(
    ("found", "wanted", "nodes", "words"),
    [
        ({"lo": ["127.0.0.1"], "eth0": ["10.0.0.5"]}, "", True, ""),
        ({"lo": ["127.0.0.1"]}, "", False, ""),
        ({"lo": ["127.0.0.1"]}, "", True, "only this machine"),
        ({"eth0": ["10.0.0.5"]}, "ib0", True, "no interface ib0"),
        ({"lo": ["127.0.0.1"], "eth0": ["10.0.0.5"]}, "lo", True, "only this machine"),
    ],
)
def test_interfaces(found: dict[str, list[str]], wanted: str, nodes: bool, words: str) -> None:
    finding = network.interfaces(found, wanted, nodes=nodes)
    assert finding.verdict is (FAILED if words else OK)
    assert words in finding.text


def test_host_name_and_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise OSError(-2, "Name or service not known")

    assert "/etc/hosts" in network.host_name(unknown).remedy
    assert network.host_name(lambda name: "10.0.0.5").verdict is OK
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    monkeypatch.setattr(network, "DEFAULT_PORT", free)
    assert f"{free} is free" in network.port(lambda ip: (free, ""), "127.0.0.1").text
    assert "others are free" in network.port(lambda ip: (0, "taken")).text
    assert network.port(lambda ip: (0, ""), "192.0.2.77").verdict is FAILED


def test_this_machine_has_addresses() -> None:
    assert any("127.0.0.1" in ips for ips in network.addresses().values())


# ---------------------------------------------------------------- MPI


def test_the_library() -> None:
    finding, library = mpi.library(lambda *_: Output(0, said(**MPICH)))
    assert (finding.verdict, library["family"]) == (OK, "MPICH")
    missing = said(error="--mpi asks for MPI, but mpi4py is not installed.\n  remedy  x")
    assert mpi.library(lambda *_: Output(0, missing))[0].verdict is SKIPPED
    broken = said(error="mpi4py cannot load an MPI library.\n  remedy  pip install mpich")
    finding, library = mpi.library(lambda *_: Output(0, broken))
    assert (finding.verdict, library) == (FAILED, {})
    assert "pip install mpich" in finding.remedy
    assert "Segmentation" in mpi.library(lambda *_: Output(-11, "", "Segmentation fault"))[0].text


@pytest.mark.parametrize(("flavour", "verdict"), [("MPICH", OK), ("Open MPI", FAILED), ("MPI", WARNING), ("", FAILED)])
def test_the_launcher_belongs_to_the_library(flavour: str, verdict: Verdict) -> None:
    def find() -> Mpirun:
        if not flavour:
            raise FileNotFoundError("no mpirun")
        return Mpirun("/usr/bin/mpirun", flavour, f"{flavour} 4.1")

    finding, found = mpi.launcher(MPICH, find)
    assert finding.verdict is verdict
    assert (found is None) == (not flavour)
    assert verdict is not FAILED or "export PATH=/env/bin:$PATH" in finding.remedy
    assert mpi.launcher(MPICH | {"mpirun": ""}, find)[0].verdict is verdict


def test_two_ranks() -> None:
    assert mpi.judge("ranks", Output(0, f"noise\n{rank(1)}{rank(0)}")).verdict is OK
    alone = mpi.judge("ranks", Output(0, said(rank=0, error="size 2, COMM_WORLD says 1\n  remedy    use srun") * 2))
    assert (alone.verdict, alone.remedy) == (FAILED, "use srun")
    one = mpi.judge("ranks", Output(1, rank(0, 1), "mpirun: not enough slots"))
    assert one.verdict is FAILED
    assert "not enough slots" in one.text
    root = mpi.judge("ranks", Output(1, "\nmpirun has detected an attempt to run as root.\n", "7 failed"))
    assert "as root" in root.text
    assert "7 failed" in root.text
    assert "0 of 2" in mpi.judge("ranks", Output(-1)).text


def test_a_command_that_hangs_is_ended(tmp_path: Path) -> None:
    begun = time.monotonic()
    answer = mpi.run(["sh", "-c", "echo began; sleep 60 & sleep 60"], os.environ, 0.5)
    assert (answer.code, answer.stdout) == (-1, "began\n")
    assert "0.5 s" in answer.stderr
    assert time.monotonic() - begun < 10
    assert "No such file" in mpi.run([str(tmp_path / "none")], os.environ).stderr


# ---------------------------------------------------------------- the scheduler


def test_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("slurm", "pbs"):
        assert "module" in scheduler.programs(get_scheduler(name)).remedy


def test_whether_it_answers() -> None:
    assert scheduler.answers(Slurm(), answering(squeue=Output(0))).verdict is OK
    away = Output(1, "", "slurm_load_jobs error: Unable to contact slurm controller")
    assert "SLURM_CONF" in scheduler.answers(Slurm(), answering(squeue=away)).remedy


@pytest.fixture
def plan():
    return make_plan("slurm", {"queue": "short", "launch": "srun:pmi2"})


def test_dry_run(plan, tmp_path: Path) -> None:
    fine = Output(0, "", "sbatch: Job 18 to start at 2026-11-27T07:44:23 using 4 processors on nodes n1 in partition d")
    found = scheduler.dry_run(plan, Runner(plan.scheduler, run=answering(sbatch=fine)), tmp_path)
    assert (found.verdict, "would start 07:44" in found.text) == (OK, True)
    bad = Output(1, "", "sbatch: error: Batch job submission failed: Invalid partition name specified")
    found = scheduler.dry_run(plan, Runner(plan.scheduler, run=answering(sbatch=bad)), tmp_path)
    assert found.verdict is FAILED
    assert "sinfo -s" in found.text
    assert "--queue" in found.remedy
    assert list(tmp_path.iterdir()) == []


class Queue:
    """An sbatch whose job prints something and is at once in a state."""

    def __init__(self, output: str | None, state: str = "COMPLETED") -> None:
        self.output, self.state, self.cancelled = output, state, False

    def __call__(self, command, **_):
        if command[0] == "sbatch":
            (self.script,) = Path(command[-1]).parent.glob("*.sbatch")
            text = self.script.read_text()
            if self.output is not None:
                Path(text.partition("--output=")[2].splitlines()[0]).write_text(self.output)
            return Output(0, "7\n")
        if command[0] == "scancel":
            self.cancelled = True
            return Output(0)
        state = "CANCELLED" if self.cancelled else self.state
        return Output(0, FORMAT.format(state=state))


FORMAT = "7|{state}|None|2026-11-22T13:37:31|2026-11-22T13:37:31|n1"


def in_a_job(plan, queue: Queue, tmp_path: Path, **keywords: float) -> dict[str, Finding]:
    directory = tmp_path / "doctor"
    directory.mkdir()
    found = scheduler.real_job(
        plan, Runner(plan.scheduler, run=queue), directory, addresses=["10.0.0.5"], **{"timeout_s": 10, **keywords}
    )
    return {finding.check: finding for finding in found}


def test_a_job_that_is_well(plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def listening(ips):
        yield list(HERE)

    monkeypatch.setattr(scheduler, "listening", listening)
    found = in_a_job(plan, Queue(rank(0) + rank(1)), tmp_path)
    assert {check: finding.verdict for check, finding in found.items()} == dict.fromkeys(
        ("2 ranks in a job", "way back", "files", "clocks"), OK
    )


def test_a_job_that_is_ill(plan, tmp_path: Path) -> None:
    ill = {"reached": [], "sees_file": False, "clock_s": time.time() - 600}
    queue = Queue(rank(0, **ill) + rank(1, **ill))
    found = in_a_job(plan, queue, tmp_path)
    assert found["2 ranks in a job"].verdict is OK
    assert "--controller first-node" in found["way back"].remedy
    assert "HPC_DIR" in found["files"].remedy
    assert found["clocks"].verdict is WARNING
    assert "600 s off" in found["clocks"].text or "599 s off" in found["clocks"].text
    text = queue.script.read_text()
    assert "srun" in text
    assert "--mpi=pmi2" in text
    assert "--partition=short" in text
    assert "--time=00:05:00" in text


def test_a_job_that_does_not_start(plan, tmp_path: Path) -> None:
    queue = Queue(None, "PENDING")
    found = in_a_job(plan, queue, tmp_path, timeout_s=0.2)
    assert found["2 ranks in a job"].verdict is WARNING
    assert "--timeout" in found["2 ranks in a job"].remedy
    assert queue.cancelled


def test_a_job_whose_output_is_not_here(plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "OUTPUT_S", 0.2)
    found = in_a_job(plan, Queue(None), tmp_path)
    assert found["2 ranks in a job"].verdict is FAILED
    assert "HPC_DIR" in found["files"].remedy


def test_the_probe_reaches_who_listens() -> None:
    with scheduler.listening(["127.0.0.1"]) as (address,):
        assert probe.reaches(address)
    assert not probe.reaches(address)
