"""A person's script, run as a client of a cluster that was started for it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeAlias

CLUSTER_VARIABLE: Final = "HPC_CLUSTER"
Script: TypeAlias = "subprocess.Popen[bytes]"


def program(script: Sequence[str]) -> list[str]:
    """Return the command line that runs a script: a file NAME.py or ``-m MODULE`` by this Python, else a program.

    Raises
    ------
    FileNotFoundError
        There is no such file or program.
    """
    first = script[0]
    if first == "-m":
        return [sys.executable, *script]
    if first.endswith(".py"):
        if not Path(first).is_file():
            raise FileNotFoundError(f"there is no file {first}")
        return [sys.executable, *script]
    found = shutil.which(first)
    if found is None:
        raise FileNotFoundError(f"{first} is neither a Python script (NAME.py, or -m MODULE) nor a program on PATH")
    return [found, *script[1:]]


def start(command: Sequence[str], cluster: str) -> Script:
    """Start a program for which ``hpc.connect()`` means this cluster. `OSError` if it cannot be started."""
    return subprocess.Popen(command, env={**os.environ, CLUSTER_VARIABLE: cluster})
