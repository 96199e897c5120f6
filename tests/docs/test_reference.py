"""The examples of the reference are executed, page by page, against one live cluster; every public name has one."""

import doctest
import re
import sys
import types
from pathlib import Path

import pytest

import hpc
from hpc.client.executor import ViewExecutor
from hpc.errors import CompositeError, RemoteError

DOCS = Path(hpc.__file__).resolve().parent.parent / "docs"
PAGES = sorted((DOCS / "reference").glob("*.md"))
CONSOLE = re.compile(r"^```pycon\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
DOCUMENTED = (
    hpc.RemoteController,
    hpc.DirectView,
    hpc.LoadBalancedView,
    hpc.AsyncResult,
    hpc.Group,
    hpc.Cluster,
    hpc.Executor,
    ViewExecutor,
    CompositeError,
    RemoteError,
)
# What is public by its name only: the library's futures and the receiver call it.
NOT_FOR_USERS = {
    "set_result",
    "set_exception",
    "set_running_or_notify_cancel",
    "stall",
    "hear",
    "heard",
    "add_note",
    "args",
}


def examples_of(page):
    """Return the examples of a page as one session, with the lines where they stand."""
    source = page.read_text()
    parser, examples = doctest.DocTestParser(), []
    for block in CONSOLE.finditer(source):
        line = source.count("\n", 0, block.start()) + 1
        for example in parser.get_examples(block.group(1), page.name):
            example.lineno += line
            examples.append(example)
    return examples


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPC_DIR", str(tmp_path_factory.mktemp("home")))
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        with hpc.Cluster(n=4, name="reference", launcher="mpiexec") as rc:
            yield rc


@pytest.fixture
def no_shell_left():
    """End the shell of IPython that a page has made, and its history with it."""
    yield
    if "IPython" in sys.modules:
        from IPython.core.interactiveshell import InteractiveShell

        if InteractiveShell.initialized():
            InteractiveShell.instance().history_manager.end_session()
            InteractiveShell.clear_instance()


@pytest.mark.needs_mpi
@pytest.mark.usefixtures("no_shell_left")
@pytest.mark.parametrize("page", [page for page in PAGES if examples_of(page)], ids=lambda page: page.stem)
def test_page(page, cluster, monkeypatch, tmp_path, capsys):
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.chdir(tmp_path)
    cluster[:].clear()
    session = doctest.DocTest(examples_of(page), {}, page.name, str(page), 0, None)
    session.globs = main.__dict__  # not a copy: functions of the session are those of __main__
    told = []
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    runner.run(session, out=told.append, clear_globs=False)
    assert not runner.failures, "".join(told)


def public_names(kind):
    """Return the names that a person may use of a class."""
    return {name for name in dir(kind) if not name.startswith("_")} - NOT_FOR_USERS - set(dir(Exception()))


@pytest.mark.parametrize("kind", DOCUMENTED, ids=lambda kind: kind.__name__)
def test_every_public_name_has_an_example(kind):
    code = "\n".join(
        block
        for page in sorted(DOCS.rglob("*.md"))
        for block in re.findall(r"^```(?:pycon|python)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    )
    missing = {name for name in public_names(kind) if not re.search(rf"\b{name}\b", code)}
    assert not missing, f"give {', '.join(sorted(missing))} of {kind.__name__} an example on docs/reference/"
