"""``%px`` and its relatives: in a shell of this process, in a terminal, in a notebook."""

import os
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

import hpc
from hpc.errors import CompositeError

from .conftest import Processes, wait_until

pytest.importorskip("IPython", reason="the magics are for IPython, which is not installed")

from IPython.core.interactiveshell import InteractiveShell  # noqa: E402


@pytest.fixture
def rc() -> "Iterator[hpc.RemoteController]":
    with hpc.Cluster(n=3) as rc:
        yield rc


@pytest.fixture
def shell(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(colors="nocolor")
    shell.history_manager.enabled = False
    shell.run_line_magic("load_ext", "hpc")
    yield shell
    shell.history_manager.end_session()
    InteractiveShell.clear_instance()


def test_px_shows_values_output_and_errors(
    rc: "hpc.RemoteController", shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    rc[1]._cell("%time None").get()  # the engines have not all run as many cells
    shell.run_line_magic("px", "a = id")
    assert rc[:]["a"] == [0, 1, 2]
    assert capsys.readouterr().out == ""
    shell.run_line_magic("px", "a * 0")
    assert capsys.readouterr().out == "Out[0-2]: 0\n"
    shell.run_line_magic("px", "a")
    assert capsys.readouterr().out == "Out[0]: 0\nOut[1]: 1\nOut[2]: 2\n"
    shell.run_line_magic("px", "print('x', a)")
    assert sorted(capsys.readouterr().out.splitlines()) == [f"[stdout:{i}] x {i}" for i in range(3)]
    with pytest.raises(CompositeError) as alike:
        shell.run_line_magic("px", "1 / 0")
    assert "[engines 0-2" in str(alike.value)
    assert "1 / 0" in str(alike.value), "the source is shown"
    with pytest.raises(CompositeError):
        shell.run_line_magic("px", "1 / (a - 1)")
    assert "Out[0]" in capsys.readouterr().out, "what the others gave is shown, too"
    shell.run_line_magic("px", "%time None")
    assert "Wall time" in capsys.readouterr().out


def test_cells_and_their_options(rc: "hpc.RemoteController", shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run_cell_magic("px", "--targets 1: -o got --no-stream --group-outputs engine", "x = 3\nprint(id)\nx + 1")
    shown = capsys.readouterr().out
    assert shown == "[stdout:1] 1\n[stdout:2] 2\nOut[1-2]: 4\n"
    assert shell.user_ns["got"].get() is not None
    result = shell.run_cell_magic("px", "--noblock", "id")
    assert isinstance(result, hpc.AsyncResult)
    assert capsys.readouterr().out == ""
    shell.run_line_magic("pxresult", "")
    assert capsys.readouterr().out == "Out[0]: 0\nOut[1]: 1\nOut[2]: 2\n"
    shell.run_cell_magic("px", "--local --verbose -t 0", "z = 26")
    assert shell.user_ns["z"] == 26
    assert "engine(s): 0" in capsys.readouterr().out
    with pytest.raises(Exception, match="unrecognized arguments: --nothing"):
        shell.run_cell_magic("px", "--nothing", "1")
    with pytest.raises(Exception, match="not as 'some'"):
        shell.run_cell_magic("px", "-t some", "1")
    shell.run_line_magic("px", "--help")
    assert "--group-outputs" in capsys.readouterr().out


def test_pxconfig_and_views_with_suffixes(
    rc: "hpc.RemoteController", shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_line_magic("pxconfig", "--targets 2")
    shell.run_line_magic("px", "id")
    assert capsys.readouterr().out == "Out[2]: 2\n"
    rc[1].activate("one")
    shell.run_line_magic("pxone", "id")
    assert capsys.readouterr().out == "Out[1]: 1\n"
    shell.run_line_magic("pxconfigone", "--noblock")
    assert shell.run_line_magic("pxone", "id").get() is not None
    shell.run_line_magic("pxconfigone", "")
    assert "block = False" in capsys.readouterr().out


def test_a_view_that_does_not_wait(rc: "hpc.RemoteController", shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    rc.direct_view([0, 1], block=False).activate("slow")
    result = shell.run_line_magic("pxslow", "7")
    assert isinstance(result, hpc.AsyncResult)
    assert capsys.readouterr().out == ""
    shell.run_cell_magic("pxslow", "--block --signal-on-interrupt 2", "8")
    assert capsys.readouterr().out == "Out[0-1]: 8\n"
    shell.run_line_magic("pxconfigslow", "--block")
    shell.run_line_magic("pxslow", "9")
    assert capsys.readouterr().out == "Out[0-1]: 9\n"


def test_autopx(rc: "hpc.RemoteController", shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run_cell("%autopx")
    shell.run_cell("def f():\n    return id + 1\n\nf()")
    shell.run_cell("%autopx")
    assert "Out[0]: 1\nOut[1]: 2\nOut[2]: 3\n" in capsys.readouterr().out
    assert "f" not in shell.user_ns
    shell.run_cell("here = 1")
    assert shell.user_ns["here"] == 1


def test_pictures_come_to_where_the_person_is(rc: "hpc.RemoteController") -> None:
    pytest.importorskip("matplotlib")
    result = rc[0]._cell("import matplotlib.pyplot as plt\nplt.plot([1, 3, 2]);")
    result.get(60)
    (output,) = result.outputs
    assert output["output_type"] == "display_data"
    assert output["data"]["image/png"]


def test_without_ipython_on_the_engine(rc: "hpc.RemoteController") -> None:
    rc[0].execute("import sys; sys.modules['IPython'] = None; sys.path[:] = [p for p in sys.path if 'site' not in p]")
    result = rc[0]._cell("x = 2\nx * 21")
    assert result.get(20) is not None
    assert result.outputs[0]["data"] == {"text/plain": "42"}
    with pytest.raises(SyntaxError) as caught:
        rc[0]._cell("%time 1").get(20)
    assert "IPython" in str(caught.value)


def test_in_a_terminal(processes: Processes, tmp_path: Any) -> None:
    pexpect = pytest.importorskip("pexpect")
    environment = {**os.environ, "IPYTHONDIR": str(tmp_path), "TERM": "dumb"}
    command = ["-m", "IPython", "--simple-prompt", "--colors=nocolor", "--no-banner", "--no-confirm-exit"]
    terminal = pexpect.spawn(sys.executable, command, encoding="utf8", timeout=30, env=environment)

    def run(line: str) -> str:
        terminal.sendline(line)
        terminal.expect(r"In \[\d+\]: ")
        return str(terminal.before).replace("\r\n", "\n")

    terminal.expect(r"In \[\d+\]: ")
    run("import hpc; cluster = hpc.Cluster(n=2).start()")
    run("%load_ext hpc")
    assert "Out[0]: 0\nOut[1]: 1\n" in run("%px id")
    failed = run("%px 1 / 0")
    assert "[engines 0-1" in failed
    assert failed.count("division by zero") == 2, "once above, once below one traceback"
    terminal.sendline("%px import time; open(f'{__import__(\"os\").environ[\"HPC_DIR\"]}/{id}', 'w'); time.sleep(60)")
    wait_until(lambda: (processes.home / "1").exists() and (processes.home / "0").exists(), "the engines to sleep")
    time.sleep(0.1)  # until both are in sleep(): an interrupt a moment earlier would do as well
    terminal.sendintr()
    terminal.expect(r"In \[\d+\]: ")
    assert "KeyboardInterrupt" in terminal.before
    assert "Out[0-1]: 2" in run("%px 1 + 1"), "the engines go on"
    run("cluster.stop()")
    for name in ("0", "1"):
        (processes.home / name).unlink()
    terminal.sendline("exit")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


def test_in_a_notebook(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    import nbformat

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    cells = [
        "import hpc\ncluster = hpc.Cluster(n=2).start()\n%load_ext hpc",
        "%px import numpy as np, matplotlib.pyplot as plt",
        "%%px\nplt.plot(np.arange(4) * id);",
        "%px id",
        "%px 1 / id",
        "cluster.stop()",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = nbclient.NotebookClient(book, timeout=60, kernel_name="python3", allow_errors=True)
    client.execute()
    done = [cell["outputs"] for cell in book.cells]
    assert sum("image/png" in output.get("data", {}) for output in done[2]) == 2
    assert "Out[0]: 0\nOut[1]: 1" in "".join(output.get("text", "") for output in done[3])
    (error,) = [output for output in done[4] if output["output_type"] == "error"]
    assert error["ename"] == "CompositeError"
    assert re.search(r"engine 0.*ZeroDivisionError", "\n".join(error["traceback"]))
    assert done[5] == []
