"""Keys stand in connection files and nowhere else; what a key is good for can be taken back while work goes on."""

import json
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

import hpc

from .conftest import Processes, cli, read_until, wait_until

ROLES = ("client", "engine", "monitor", "controller")
needs_unshare = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare: hosts of another name"
)
# A host of another name takes the connection to be one over the network.
ELSEWHERE = ("unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"')


def connection_files(processes: Processes, name: str = "default") -> dict[str, dict[str, Any]]:
    directory = processes.home / "clusters" / name
    return {role: json.loads((directory / f"{role}.json").read_text()) for role in ROLES}


def forms(secret: str) -> list[bytes]:
    """Return how a key might be written: as text, and as the bytes that it stands for."""
    from zmq.utils import z85

    raw = z85.decode(secret)
    return [secret.encode(), raw, raw.hex().encode(), repr(raw).encode()]


def holding(secrets: dict[str, str], texts: dict[str, bytes]) -> list[str]:
    return [
        f"the secret of {role} in {where}"
        for role, secret in secrets.items()
        for where, text in texts.items()
        if any(form in text for form in forms(secret))
    ]


@needs_unshare
def test_keys_are_nowhere_else(processes: Processes, tmp_path: Path) -> None:
    cli("start", "-n", "2", "--ip", "*", "--port", "0", "--log-level", "debug")
    engine = processes.spawn(*ELSEWHERE, "faraway", sys.executable, "-m", "hpc.cli.ipengine", "--log-level", "debug")
    with hpc.connect() as rc:
        rc.wait_for_engines(3, timeout=60)
        view = rc[:]
        view.push({"a": 1})
        assert view.apply_sync(abs, -1) == [1] * 3
        engine_limits = view.apply_sync(_core_limit)
        told = [repr(rc), repr(view), repr(rc.queue_status()), str(view.apply_sync(_environment))]
    files = connection_files(processes)
    secrets = {role: info["secret_key"] for role, info in files.items()}
    assert len(set(secrets.values())) == len(ROLES)

    texts = {f"what Python shows, {i}": text.encode() for i, text in enumerate(told)}
    for arguments in (
        ("status",),
        ("status", "--json"),
        ("list", "--json"),
        ("keys",),
        ("logs",),
        ("script", "slurm", "--nodes", "2", "--ranks-per-node", "2", "--walltime", "0:10:00"),
        ("script", "pbs", "--nodes", "2", "--ranks-per-node", "2", "--walltime", "0:10:00"),
    ):
        shown = cli(*arguments)
        texts[f"ipcluster {' '.join(arguments)}"] = (shown.stdout + shown.stderr).encode()
    for pid, command in processes.pids().items():
        for kind in ("cmdline", "environ"):
            texts[f"{kind} of {command}"] = Path(f"/proc/{pid}/{kind}").read_bytes()
    own = {f"{role}.json" for role in ROLES}
    logs = 0
    for root in (processes.home, processes.runtime):
        for path in root.rglob("*"):
            mode = path.lstat().st_mode
            if path.is_dir() or path.is_symlink():
                continue
            assert stat.S_IMODE(mode) & 0o077 == 0 or path.suffix == ".log", f"{path} has mode {mode:o}"
            if stat.S_ISREG(mode) and path.name not in own:
                texts[str(path)] = path.read_bytes()
                logs += "log" in str(path)
    assert logs, "there are logs to look at"
    assert any("environ of" in where and b"HPC_DIR" in text for where, text in texts.items())
    assert holding(secrets, texts) == []
    # The search is able to find: the files themselves have them.
    directory = processes.home / "clusters" / "default"
    assert len(holding(secrets, {role: (directory / f"{role}.json").read_bytes() for role in ROLES})) == len(ROLES)

    assert engine_limits == [0] * 3, "engines write no core file with the key in it"
    limits = Path(f"/proc/{files['client']['pid']}/limits").read_text()
    assert [line.split()[4] for line in limits.splitlines() if line.startswith("Max core file size")] == ["0"]
    cli("stop")
    engine.wait(20)


def _core_limit() -> int:
    import resource

    return resource.getrlimit(resource.RLIMIT_CORE)[0]


def _environment() -> dict[str, str]:
    return dict(os.environ)


@needs_unshare
def test_a_new_key_while_an_engine_works(processes: Processes, tmp_path: Path) -> None:
    """The file is read again: the engine comes back and keeps its work, a copy of the old file is good for nothing."""
    cli("start", "-n", "1", "--ip", "*", "--port", "0")
    directory = processes.home / "clusters" / "default"
    copy = tmp_path / "stolen.json"
    processes.spawn(*ELSEWHERE, "faraway", sys.executable, "-m", "hpc.cli.ipengine", "--name", "default")
    with hpc.connect() as rc:
        rc.wait_for_engines(2, timeout=60)
        shutil.copy(directory / "engine.json", copy)
        far = rc[1]
        far["x"] = 17
        working = far.apply_async(_sleep, 2.0)
        cli("keys", "renew", "engine")
        assert working.get(timeout=60) == "slept"
        assert far["x"] == 17
        thief = processes.spawn(
            *ELSEWHERE, "elsewhere", sys.executable, "-m", "hpc.cli.ipengine", "--connection-file", str(copy)
        )
        read_until(thief, "revoked or renewed")
        thief.kill()
        assert rc.ids == [0, 1]
    cli("stop")


def _sleep(seconds: float) -> str:
    import time

    time.sleep(seconds)
    return "slept"


def test_a_key_for_somebody_to_look(processes: Processes, tmp_path: Path) -> None:
    cli("start", "-n", "1", "--ip", "127.0.0.1", "--port", "0")
    wall = tmp_path / "wall.json"
    issued = cli("keys", "issue", "monitor", "--label", "wall", "-o", str(wall)).stdout
    name = issued.split("the key ")[1].split(":")[0]
    assert stat.S_IMODE(wall.stat().st_mode) == 0o600
    assert f"{name}  monitor" in cli("keys").stdout
    assert json.loads(wall.read_text())["secret_key"] not in cli("keys").stdout
    with pytest.raises(hpc.errors.ConnectError, match="monitor, not client"):
        hpc.connect(wall)
    assert name in cli("keys", "revoke", name).stdout
    assert name not in cli("keys").stdout
    wrong = cli("keys", "revoke", name, check=False)
    assert (wrong.returncode, "no key begins" in wrong.stderr) == (1, True)
    wait_until(lambda: "revoke" in cli("logs").stdout, "a line in the log")
    cli("stop")
