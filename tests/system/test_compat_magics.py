"""``%px`` as code that was written for ipyparallel knows it."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hpc
import hpc.compat.ipyparallel as ipp

# A cell that prints, displays and has a value.
CELL = "from IPython.display import display, Math\nprint('a')\ndisplay(Math('b'))\n2"
SHOWN = "<IPython.core.display.Math object>\n"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    interactiveshell = pytest.importorskip("IPython.core.interactiveshell")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    interactiveshell.InteractiveShell.clear_instance()
    shell = interactiveshell.InteractiveShell.instance(colors="nocolor")
    shell.history_manager.enabled = False
    shell.run_line_magic("load_ext", "hpc.compat.ipyparallel")
    yield shell
    shell.history_manager.end_session()
    interactiveshell.InteractiveShell.clear_instance()


@pytest.fixture
def rc(shell: Any) -> "Iterator[ipp.Client]":
    """Give a client, which is what ``%px`` works on from then on."""
    with hpc.Cluster(n=3) as cluster, ipp.Client(cluster_id=cluster.status()["controller"]["name"]) as rc:
        yield rc


def uncounted(text: str) -> str:
    """Return what was shown without the numbers of the engines' cells."""
    return re.sub(r"Out\[(\d+):\d+\]", r"Out[\1:n]", text)


@pytest.mark.usefixtures("rc")
def test_what_engines_show_is_laid_out_as_there(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run_line_magic("px", "3 * 4")
    assert uncounted(capsys.readouterr().out) == "".join(f"Out[{i}:n]: 12\n" for i in range(3))
    with pytest.raises(ipp.CompositeError):
        shell.run_line_magic("px", "1/0")
    capsys.readouterr()
    head, foot = "[stdout:0] a\n[stdout:2] a\n", "Out[0:n]: 2\nOut[2:n]: 2\n"
    for group in ("order", "type"):
        shell.run_cell_magic("px", f"--no-stream --group-outputs={group} -t 0,2", CELL)
        assert uncounted(capsys.readouterr().out) == f"{head}[output:0]\n{SHOWN}[output:2]\n{SHOWN}{foot}"
    shell.run_cell_magic("px", "--no-stream --group-outputs=engine -t 0,2", CELL)
    assert uncounted(capsys.readouterr().out) == "".join(
        f"[stdout:{i}] a\n[output:{i}]\n{SHOWN}Out[{i}:n]: 2\n" for i in (0, 2)
    )


@pytest.mark.usefixtures("rc")
def test_an_interrupt_is_no_error_there(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        shell.run_cell_magic("px", "", "import time\ntime.sleep(30)")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert "Received Keyboard Interrupt. Sending signal SIGINT to engines..." in capsys.readouterr().err


def test_several_views_have_suffixes(rc: "ipp.Client", shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    view = rc.activate([0, 2], "_some")
    shell.run_cell_magic("px_some", "--verbose -o name", "5 * 5")
    assert "engine(s): 0,2" in capsys.readouterr().out
    assert isinstance(shell.user_ns["name"], ipp.AsyncResult)
    assert view.get_result().msg_ids == shell.user_ns["name"].msg_ids[-1:]
