"""The house rules for `jobscripts`: on its own, on the standard library, and one place that starts processes."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import jobscripts
from jobscripts.__main__ import main

ROOT = Path(jobscripts.__file__).resolve().parent
SOURCES = sorted(ROOT.rglob("*.py"))


def modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_only_the_standard_library(path):
    packages = {name.partition(".")[0] for name in modules(path)}
    assert packages <= {"jobscripts"} | sys.stdlib_module_names


def test_only_the_runner_starts_processes():
    starters = {path.stem for path in SOURCES if {"subprocess", "multiprocessing", "pty"} & set(modules(path))}
    assert starters == {"runner"}
    for path in SOURCES:
        assert not {"system", "popen", "fork", "posix_spawn"} & {
            node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)
        }


def test_importable_alone_and_quickly(tmp_path):
    code = "import sys, jobscripts; print(sorted(m for m in sys.modules if m.split('.')[0] in ('hpc', 'numpy', 'zmq')))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_files_are_short():
    assert not [path.name for path in SOURCES if len(path.read_text().splitlines()) > 400]


def test_the_command_prints_what_python_prints(capsys):
    options = ["--nodes", "2", "--ranks-per-node", "4", "--walltime", "1h", "--launch", "srun", "--mpi", "pmi2"]
    assert main(["slurm", *options, "--environment", "A=b=c", "--extra=--x", "--exclusive", "--", "./prog", "-v"]) == 0
    spec = jobscripts.JobSpec(
        command=("./prog", "-v"),
        nodes=2,
        ranks_per_node=4,
        walltime="1h",
        exclusive=True,
        environment={"A": "b=c"},
        extra=("--x",),
        launch=jobscripts.Launch("srun", "pmi2"),
    )
    assert capsys.readouterr().out == jobscripts.get_scheduler("slurm").script(spec)


def test_the_command_says_what_is_wrong(capsys):
    assert main(["pbs", "--qos", "high", "--", "x"]) == 2
    assert capsys.readouterr().err.startswith("qos: ")
    assert main(["slurm", "--site", "nowhere", "--", "x"]) == 2
    assert "there is no profile" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["slurm", "--node", "3", "--", "x"])
