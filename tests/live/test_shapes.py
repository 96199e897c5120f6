"""Every shape of a cluster in jobs, submitted to a real Slurm and worked with."""

import os
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from system.conftest import IPCLUSTER, Processes, cli, engines_of, read_until, status

import hpc
from hpc.cluster.probe import mpi_library
from hpc.errors import EngineLost

from .conftest import Slurm, wait_until
from .test_mpi import ENVIRONMENT, FITTING

pytestmark = pytest.mark.needs_mpi

START_S = 120.0
SCRIPT = """
import hpc, sys
rc = hpc.connect(timeout=60)
rc.wait_for_engines(int(sys.argv[1]), timeout=60)
rc[:].execute("import os; node = os.environ['SLURMD_NODENAME']; total = comm.allreduce(rank)")
print("sizes", rc[:]["size"], "totals", rc[:]["total"], "nodes", sorted(set(rc[:]["node"])), flush=True)
sys.exit(7)
"""


@pytest.fixture(autouse=True)
def place(slurm: Slurm, processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a directory of the test, with an MPI that is content with this machine, and leave no job behind."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    cli("stop", "--all", check=False, timeout_s=START_S)  # of a test that has failed
    wait_until(lambda: not slurm.jobs(), "the end of the jobs")


def nodes_of(rc: hpc.RemoteController) -> list[str]:
    rc[:].execute("import os; node = os.environ['SLURMD_NODENAME']")
    return sorted(set(rc[:]["node"]))


def test_engines_in_a_job_controller_here(slurm: Slurm, processes: Processes) -> None:
    cluster = hpc.Cluster(launcher="slurm", nodes=2, ranks_per_node=2, walltime="5m", timeout=START_S)
    with cluster as rc:
        assert rc.ids == [0, 1, 2, 3]
        assert rc[:]["size"] == [4, 4, 4, 4]
        assert rc[:]["rank"] == [0, 1, 2, 3]
        assert nodes_of(rc) == ["n1", "n2"]
        # The engines say that they are there before the queue is asked again, and tells their nodes.
        wait_until(lambda: cluster.groups[0].nodes, "the nodes of the job")
        (group,) = cluster.groups
        assert (group.state, group.nodes) == ("running", ("n1", "n2"))
        assert slurm.jobs() == [group.job]
        cluster.scale(6, timeout=START_S)
        assert [group.size for group in rc.groups] == [4, 2]
        rc[:].execute("total = comm.allreduce(1)")
        assert rc[:]["total"] == [4, 4, 4, 4, 2, 2]
        cluster.scale(4, timeout=START_S)
        assert len(rc.ids) == 4
    wait_until(lambda: not slurm.jobs(), "the end of the jobs")
    processes.assert_none_left(files=False)


def test_controller_and_engines_in_one_job(slurm: Slurm, processes: Processes) -> None:
    started = cli(
        *("start", "--launcher", "slurm", "--controller", "first-node", "--name", "heat", "--timeout", str(START_S)),
        *("--nodes", "2", "--ranks-per-node", "2", "--walltime", "5m"),
        timeout_s=START_S,
    )
    assert "hpc.connect('heat')" in started.stdout
    (job,) = slurm.jobs()
    rc = hpc.connect("heat")
    assert rc[:]["size"] == [4, 4, 4, 4]
    assert nodes_of(rc) == ["n1", "n2"]
    rc.close()
    assert job in cli("list").stdout
    cli("stop", "--name", "heat", timeout_s=START_S)
    wait_until(lambda: not slurm.jobs(), "the end of the job")
    processes.assert_none_left(files=False)


def test_the_controller_in_a_job_of_its_own(slurm: Slurm, processes: Processes) -> None:
    cli(
        *("start", "--launcher", "slurm", "--controller", "job", "--name", "heat", "--timeout", str(START_S)),
        *("-n", "2", "--walltime", "5m"),
        timeout_s=START_S,
    )
    assert len(slurm.jobs()) == 2
    rc = hpc.connect("heat")
    assert rc[:]["size"] == [2, 2]
    rc.close()
    cli("stop", "--name", "heat", timeout_s=START_S)
    wait_until(lambda: not slurm.jobs(), "the end of the jobs")
    processes.assert_none_left(files=False)


def test_a_batch_run_keeps_output_and_exit_status(slurm: Slurm, processes: Processes, place: Path) -> None:
    script = place / "a script.py"
    script.write_text(SCRIPT)
    done = cli(
        *("submit", "slurm", "batch", "--nodes", "2", "--ranks-per-node", "2", "--walltime", "5m", "--wait"),
        *("--stdout", str(place / "output"), "--", str(script), "4"),
        check=False,
        timeout_s=START_S,
    )
    output = (place / "output").read_text()
    assert done.returncode == 7, f"{done.stderr}\n{output}"
    assert "sizes [4, 4, 4, 4] totals [6, 6, 6, 6] nodes ['n1', 'n2']" in output
    processes.assert_none_left(files=False)


def test_an_array_of_engines_comes_and_goes(slurm: Slurm, processes: Processes) -> None:
    cli("start", "-n", "0", "--ip", "*", "--port", "0", "--name", "heat")
    rc = hpc.connect("heat")
    submitted = cli(
        *("submit", "slurm", "engines", "--name", "heat", "--array", "0-2", "-n", "2", "--walltime", "5m"),
    )
    array = submitted.stdout.strip()
    rc.wait_for_engines(6, timeout=START_S)
    assert [group.size for group in rc.groups] == [2, 2, 2]
    rc[:].execute("total = comm.allreduce(1)")
    assert rc[:]["total"] == [2] * 6
    slurm.run("scancel", f"{array}_1")
    wait_until(lambda: len(rc.ids) == 4, "two engines to leave")
    assert sum(rc.load_balanced_view().map(lambda x: x, range(100))) == 4950
    rc.close()
    cli("stop", "--name", "heat", timeout_s=START_S)
    wait_until(lambda: not slurm.jobs(), "the end of the array")
    processes.assert_none_left(files=False)


def test_cpus_and_gpus_in_one_job(slurm: Slurm, processes: Processes) -> None:
    # mpirun sees the first part of a heterogeneous job only.
    cli(
        *("start", "--launcher", "slurm", "--controller", "first-node", "--name", "heat", "--timeout", str(START_S)),
        *("--component", "nodes=2,ranks-per-node=1,constraint=cpu"),
        *("--component", "nodes=1,ranks-per-node=2,gpus-per-node=2,constraint=gpu"),
        *("--launch", f"srun:{FITTING[mpi_library()]}", "--walltime", "5m"),
        timeout_s=START_S,
    )
    rc = hpc.connect("heat")
    rc[:].execute("import os; gpus = os.environ.get('CUDA_VISIBLE_DEVICES', '')")
    assert sorted(group.size for group in rc.groups) == [2, 2]
    by_group = {tuple(group.view["gpus"]) for group in rc.groups}
    assert by_group == {("", ""), ("0,1", "0,1")}
    rc.close()
    cli("stop", "--name", "heat", timeout_s=START_S)
    wait_until(lambda: not slurm.jobs(), "the end of the job")
    processes.assert_none_left(files=False)


def test_waiting_for_a_job_shows_why(slurm: Slurm, processes: Processes) -> None:
    blocker = slurm.run("sbatch", "--parsable", "-o", "/dev/null", "-N4", "--exclusive", "-t5", "--wrap", "sleep 600")
    wait_until(lambda: not slurm.idle(), "all nodes to be busy")
    command = processes.spawn(*IPCLUSTER, "start", "-n", "2", "--launcher", "slurm", "--walltime", "5m")
    seen = read_until(command, "expected to start at")
    assert "pending, Resources" in seen
    assert status()["jobs"][0]["state"] == "pending"
    slurm.run("scancel", blocker)
    read_until(command, "End it")
    assert command.wait(10) == 0
    assert len(engines_of()) == 2
    cli("stop", timeout_s=START_S)
    processes.assert_none_left()


def test_the_walltime_is_no_crash_and_is_followed_by_another_job(
    slurm: Slurm, processes: Processes, place: Path
) -> None:
    cli(
        *("start", "-n", "1", "--launcher", "slurm", "--walltime", "1m", "--notice", "20", "--keep"),
        *("--name", "heat", "--timeout", str(START_S)),
        timeout_s=START_S,
    )
    rc = hpc.connect("heat")
    (first,) = slurm.jobs()
    rc[0].execute(f"import hpc\n@hpc.on_walltime\ndef save(): open({str(place / 'saved')!r}, 'w').write('all')")
    cut_short = rc[0].apply_async(time.sleep, 600)
    wait_until(lambda: first not in slurm.jobs() and len(slurm.jobs()) == 1, "another job", START_S)
    wait_until(lambda: rc.ids not in ([], [0]), "the new engine, and the end of the old one")
    assert rc[:].apply_sync(lambda: 42) == [42]
    assert (place / "saved").read_text() == "all"
    with pytest.raises(EngineLost, match="end of its allocation"):
        cut_short.get(timeout=START_S)
    rc.close()
    cli("stop", "--name", "heat", timeout_s=START_S)
    processes.assert_none_left(files=False)


def test_a_killed_node_takes_its_engines_along(slurm: Slurm, processes: Processes, place: Path) -> None:
    with hpc.Cluster(launcher="slurm", n=1, walltime="5m", requeue=False, timeout=START_S, constraint="cpu") as rc:
        node = nodes_of(rc)[0]
        task = rc[0].apply_async(lambda path: (path.touch(), time.sleep(600)), place / "began")
        wait_until((place / "began").exists, "the task to begin")
        slurm.dev_cluster("kill", node)
        try:
            with pytest.raises(EngineLost):
                task.get(timeout=START_S)
            wait_until(lambda: not slurm.jobs(), "slurmctld to notice", START_S)
        finally:
            slurm.dev_cluster("revive", node)


def test_by_hand_in_a_batch_script(slurm: Slurm, processes: Processes, place: Path) -> None:
    (place / "analysis.py").write_text(SCRIPT)
    job = place / "job"
    python = shlex.join([sys.executable, "-m", "hpc.cli.ipcluster"])
    job.write_text(f"#!/bin/bash\n{python} run -n 4 --mpi --ip '*' --port 0 -- analysis.py 4\necho exit $?\n")
    slurm.run("sbatch", "-N2", "--ntasks-per-node=2", "-o", "output", str(job))
    output = place / "output"
    wait_until(lambda: output.exists() and "exit" in output.read_text(), "the script")
    assert "sizes [4, 4, 4, 4] totals [6, 6, 6, 6] nodes ['n1', 'n2']" in output.read_text()
    assert "exit 7" in output.read_text()
    processes.assert_none_left(files=False)


def test_a_requeued_job_brings_its_engines_back(slurm: Slurm, processes: Processes) -> None:
    cli("start", "-n", "0", "--ip", "*", "--port", "0", "--name", "heat")
    rc = hpc.connect("heat")
    job = cli(
        *("submit", "slurm", "engines", "--name", "heat", "-n", "2", "--walltime", "5m", "--requeue")
    ).stdout.strip()
    rc.wait_for_engines(2, timeout=START_S)
    before = set(rc[:].apply_sync(os.getpid))
    slurm.run("scontrol", "requeue", job)
    wait_until(lambda: not rc.ids, "the engines to leave")
    rc.wait_for_engines(2, timeout=START_S)
    rc[:].execute("total = comm.allreduce(1)")
    assert rc[:]["total"] == [2, 2]
    assert not before & set(rc[:].apply_sync(os.getpid))
    rc.close()
    cli("stop", "--name", "heat", timeout_s=START_S)
    processes.assert_none_left(files=False)
