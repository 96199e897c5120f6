"""The house rules that a machine can check: who imports whom, what is never loaded by accident, how long a file gets.

`docs/architecture.md` explains them. A rule that is in the way is changed here and there, with a reason.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import hpc

ROOT = Path(hpc.__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "hpc").rglob("*.py"))

# Part of the house -> the parts that it may import. `hpc/__init__.py` is the part "".
MAY_IMPORT = {
    "errors": set(),
    "partition": set(),
    "reduction": set(),
    "wire": {"errors"},
    "transport": {"wire", "errors"},
    "security": {"errors"},
    "mpi": {"wire", "partition", "reduction", "errors"},
    "dataplane": {"wire", "transport", "partition", "errors"},
    "controller": {"wire", "transport", "security", "partition", "errors"},
    "engine": {"wire", "transport", "security", "partition", "reduction", "errors", "mpi", "dataplane"},
    # The magics stand above the client, which imports them only where a person asks a view for them: `view.activate()`.
    "client": {"wire", "transport", "security", "partition", "reduction", "errors", "dataplane", "magics"},
    "cluster": {"wire", "transport", "security", "partition", "errors", "controller", "engine", "client", "dataplane"},
    "cli": {"wire", "transport", "security", "partition", "errors", "controller", "engine", "client", "cluster"},
    "magics": {"wire", "errors", "client"},
    "compat": {"", "wire", "errors", "client", "magics"},
    "": {"wire", "security", "errors", "client", "cluster", "engine", "magics"},
}
# Foreign package -> the only parts that may import it at all.
ONLY_IN = {
    "zmq": {"transport"},
    "mpi4py": {"mpi"},
    "click": {"cli"},
    "sqlite3": {"controller"},
    "jobscripts": {"cluster", "cli"},
}
# Foreign packages that no module loads when it is imported: only a function that needs one does.
NEVER_AT_IMPORT = {"numpy", "IPython", "rich", "tqdm", "matplotlib", "psutil", "pandas", "mpi4py", "scipy"}
# Modules that are there for a foreign package, and are imported by a function that knows that it is there.
BRIDGES = {"engine/ipython.py": "IPython", "magics/px.py": "IPython"}

STARTS_PROCESSES = {
    "os": {"fork", "forkpty", "system", "popen", "posix_spawn", "posix_spawnp"},
    "pty": {"fork", "spawn"},
    "asyncio": {"create_subprocess_exec", "create_subprocess_shell"},
}
MODULES_THAT_START_PROCESSES = {"subprocess", "multiprocessing", "concurrent.futures.process", "pty"}


def part_of(path):
    relative = path.relative_to(ROOT / "hpc").with_suffix("")
    return "" if relative.parts == ("__init__",) else relative.parts[0]


def imports(path):
    """Yield (module, line, at import time?) for each import of a file; names that are modules count as such."""
    tree = ast.parse(path.read_text(), path)
    late = set()
    for node in ast.walk(tree):
        deferred = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if deferred or typing_only:
            late.update(ast.walk(node))
    package = ["hpc", *path.relative_to(ROOT / "hpc").parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield name, node.lineno, node not in late


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_downward(path):
    part = part_of(path)
    assert part in MAY_IMPORT, f"{part} is a new part of the house: say here what it may import"
    for name, line, _ in imports(path):
        if name == "hpc" or name.startswith("hpc."):
            other = (name.split(".") + [""])[1]
            is_part = other in MAY_IMPORT and other != ""
            allowed = (other in MAY_IMPORT[part] or other == part) if is_part else part not in ("wire", "errors")
            assert allowed, f"{name_of(path)}:{line}: {part or 'hpc'} must not import {name}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_foreign_packages_stay_where_they_belong(path):
    part = part_of(path)
    for name, line, at_import in imports(path):
        package = name.partition(".")[0]
        assert part in ONLY_IN.get(package, {part}), (
            f"{name_of(path)}:{line}: only {ONLY_IN[package]} imports {package}"
        )
        bridge = BRIDGES.get(path.relative_to(ROOT / "hpc").as_posix()) == package
        assert not (at_import and package in NEVER_AT_IMPORT and not bridge), (
            f"{name_of(path)}:{line}: {package} is imported too early"
        )


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_only_the_cluster_starts_processes(path):
    if part_of(path) == "cluster":
        return
    for name, line, _ in imports(path):
        culprit = name in MODULES_THAT_START_PROCESSES or name.rpartition(".")[0] in MODULES_THAT_START_PROCESSES
        assert not culprit, f"{name_of(path)}:{line}: only hpc/cluster starts processes"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found = node.attr in STARTS_PROCESSES.get(node.value.id, ())
            assert not found, f"{name_of(path)}:{node.lineno}: only hpc/cluster starts processes"


def test_the_job_script_generator_knows_nothing_of_the_runtime():
    for path in (ROOT / "jobscripts").rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert not any(n.partition(".")[0] == "hpc" for n in names), path


def loaded_by(statement):
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(json.loads(done.stdout))


def test_import_hpc_is_light():
    unwanted = {"numpy", "mpi4py", "click", "zmq", "asyncio", "cloudpickle", "msgspec", "psutil", "IPython", "rich"}
    assert not unwanted & loaded_by("import hpc")


@pytest.mark.parametrize(
    "modules",
    ["hpc.controller.server, hpc.engine.start", "hpc.client, hpc.transport, hpc.security", "hpc.wire.functions"],
)
def test_what_many_processes_import_stays_small(modules):
    assert not (NEVER_AT_IMPORT | {"click", "asyncio"}) & loaded_by(f"import {modules}")


def lines_with(path, *words):
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if any(word in line for word in words):
            yield f"{name_of(path)}:{number}: {line.strip()}"


ALL = sorted(p for part in ("hpc", "jobscripts", "tests", "benchmarks", "docs") for p in (ROOT / part).rglob("*.py"))


def test_a_file_is_one_concept():
    assert not [name_of(p) for p in ALL if p.stem in ("utils", "util", "helpers", "misc", "common")]
    long = {name_of(p): n for p in ALL if (n := len(p.read_text().splitlines())) > 400}
    assert not long, "two concepts each, by their length"


def test_no_error_is_swallowed_without_a_word():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ExceptHandler) or [type(n) for n in node.body] != [ast.Pass]:
                continue
            caught = ast.unparse(node.type) if node.type else ""
            assert caught not in ("", "Exception", "BaseException"), f"{name_of(path)}:{node.lineno}"


def test_nothing_is_left_for_later():
    marks = "TO" + "DO", "FIX" + "ME", "XX" + "X"
    assert not [hit for path in ALL for hit in lines_with(path, *marks)]
