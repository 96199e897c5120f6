"""The tutorial does what it says: all of its blocks are executed, in order, against live clusters."""

import ast
import contextlib
import io
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import NamedTuple

import pytest

import hpc

PAGE = Path(hpc.__file__).resolve().parent.parent / "docs" / "tutorial.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    kind: str
    text: str
    line: int


def blocks_of(page):
    """Return the fenced blocks of a page: python (run), text (what the block before prints), console (run), sh."""
    source = page.read_text()
    return [Block(*found.groups(), source.count("\n", 0, found.start()) + 2) for found in FENCE.finditer(source)]


class Prompt:
    """A session that is typed into: shows the value of a block's last expression, as a prompt does."""

    def __init__(self):
        self.main = types.ModuleType("__main__")

    def run(self, block):
        tree = ast.parse("\n" * (block.line - 1) + block.text, PAGE.name)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            exec(compile(tree, PAGE.name, "exec"), self.main.__dict__)
            if last is not None:
                value = eval(compile(ast.Expression(last.value), PAGE.name, "eval"), self.main.__dict__)
                if value is not None:
                    print(repr(value))
        return shown.getvalue()


def type_command(line, environment):
    program, *arguments = line.removeprefix("$ ").split()
    assert program == "ipcluster"
    command = [sys.executable, "-m", "hpc.cli.ipcluster", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """A directory of its own for clusters, which all end with the test."""
    monkeypatch.setenv("HPC_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    environment = dict(os.environ)
    yield environment
    for name in ("default", "ranks"):
        command = [sys.executable, "-m", "hpc.cli.ipcluster", "stop", "--name", name]
        subprocess.run(command, env=environment, capture_output=True, timeout=120)


@pytest.mark.needs_mpi
def test_tutorial(environment, monkeypatch):
    prompt = Prompt()
    monkeypatch.setitem(sys.modules, "__main__", prompt.main)
    shown = ""
    for block in blocks_of(PAGE):
        where = f"{PAGE.name}:{block.line}"
        if block.kind == "console":
            for line in block.text.splitlines():
                type_command(line, environment)
        elif block.kind == "python":
            try:
                shown = prompt.run(block)
            except Exception as error:
                raise AssertionError(f"{where} raised {type(error).__name__}: {error}\n{block.text}") from error
        elif block.kind == "text":
            assert shown == block.text, f"{where}: what is printed is not what the page shows"


def test_every_block_of_output_belongs_to_code():
    kinds = [block.kind for block in blocks_of(PAGE)]
    assert kinds.count("python") > 10
    assert all(before == "python" for before, kind in zip(kinds, kinds[1:], strict=False) if kind == "text")
    assert set(kinds) <= {"python", "text", "console", "sh"}
