"""`slurm/dev-cluster` itself: nodes, several side by side, for root and others, a killed node, nothing left."""

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import DEV_CLUSTER, NODES, Slurm, directory, wait_until


def processes_of(place: Path) -> list[str]:
    """Return the command lines of the processes that have to do with a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                texts = ((entry / name).read_bytes() for name in ("cmdline", "environ"))
                if any(str(place).encode() in text for text in texts):
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
    return found


def test_each_node_runs_its_part(slurm: Slurm) -> None:
    assert slurm.said == f". {slurm.directory}/env.sh"
    said = subprocess.run(["sh", "-c", f"{slurm.said}; echo $SLURM_CONF"], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == slurm.configuration
    names = slurm.run("srun", "-N4", "sh", "-c", "echo $SLURMD_NODENAME").split()
    assert sorted(names) == list(NODES)


def test_the_last_node_has_two_gpus(slurm: Slurm) -> None:
    said = slurm.run(
        "srun", "--gpus-per-node=2", "-C", "gpu", "sh", "-c", "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES"
    )
    assert said == f"{NODES[-1]} 0,1"


def test_two_side_by_side_and_nothing_left_of_the_second(slurm: Slurm, tmp_path: Path) -> None:
    second = Slurm(directory(), nodes=1)
    try:
        script = tmp_path / "job"
        script.write_text("#!/bin/sh\ntouch began; sleep 600 & sleep 600\n")
        second.run("sbatch", "-o", "out", str(script), cwd=tmp_path)
        wait_until((tmp_path / "began").exists, "the job to begin")
        assert second.jobs() == ["1"]
        assert slurm.jobs() == []
    finally:
        second.down()
    assert not second.directory.exists()
    assert processes_of(second.directory) == []
    assert slurm.idle() == set(NODES)
    second.down()  # there is nothing to end, which is no error


@pytest.mark.skipif(os.geteuid() != 0, reason="all tests run as a plain user already")
def test_a_plain_user_needs_nothing_more(tmp_path: Path) -> None:
    nobody, place = pwd.getpwnam("nobody"), directory()
    os.chown(place, nobody.pw_uid, nobody.pw_gid)
    environment = {"PATH": f"{os.defpath}:/usr/sbin"}

    def as_nobody(*command: str) -> str:
        # From stdin, because a plain user may not reach this checkout.
        with DEV_CLUSTER.open() as script:
            done = subprocess.run(
                command, stdin=script, capture_output=True, text=True, user=nobody.pw_uid, group=nobody.pw_gid,
                extra_groups=[], cwd="/", env=environment, timeout=120, check=False,
            )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    python = shutil.which("python3", path=environment["PATH"]) or os.path.realpath(sys.executable)
    try:
        assert as_nobody(python, "-", "up", "2", "--directory", str(place)) == f". {place}/env.sh"
        environment["SLURM_CONF"] = f"{place}/slurm.conf"
        assert as_nobody("srun", "-N2", "id", "-un").split() == ["nobody", "nobody"]
    finally:
        as_nobody(python, "-", "down", "--directory", str(place))
    assert not place.exists()
    assert processes_of(place) == []


def test_a_killed_node_is_noticed_and_comes_back(slurm: Slurm) -> None:
    slurm.dev_cluster("kill", "n2")
    assert slurm.dev_cluster("kill", "n2", check=False).returncode == 1
    wait_until(lambda: slurm.run("sinfo", "-h", "-n", "n2", "-p", "debug", "-o", "%t") == "down*", "n2 to be down")
    slurm.dev_cluster("revive", "n2")
    assert slurm.dev_cluster("revive", "n2", check=False).returncode == 1
    wait_until(lambda: slurm.idle() == set(NODES), "n2 to be back")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/tmp/" + 60 * "x", "at most 60 characters"),
        ("/tmp/with a blank", "without spaces"),
        (str(Path(__file__).parent), "holds no Slurm of mine"),
    ],
)
def test_what_cannot_be_is_refused(path: str, words: str) -> None:
    done = subprocess.run([str(DEV_CLUSTER), "up", "--directory", path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
