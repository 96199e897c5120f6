"""The scripts in slurm/ and pbs/ are what the commands in their READMEs print."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from hpc.cli.commands.script import command

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `([\w.]+)` \| [^|]+ \| `ipcluster script (.+)` \|$", re.MULTILINE)


def ready():
    for folder in ("slurm", "pbs"):
        for name, words in ROW.findall((ROOT / folder / "README.md").read_text()):
            yield f"{folder}/{name}", words.replace(r"\|", "|")


READY = list(ready())


@pytest.mark.parametrize(("path", "words"), READY, ids=[path for path, _ in READY])
def test_a_ready_script_is_what_its_command_prints(path, words):
    printed = CliRunner().invoke(command, shlex.split(words))
    assert printed.exit_code == 0, printed.output
    assert (ROOT / path).read_text() == printed.output, f"ipcluster script {words} >{path}"


def test_every_ready_script_is_explained():
    files = {f"{path.parent.name}/{path.name}" for suffix in ("sbatch", "pbs") for path in ROOT.glob(f"*/*.{suffix}")}
    assert files == {path for path, _ in READY}
    assert len(files) == 12


@pytest.mark.parametrize("path", [path for path, _ in READY])
def test_bash_can_read_it(path):
    subprocess.run(["bash", "-n", ROOT / path], check=True)
