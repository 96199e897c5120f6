"""What people typed in 2006."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import hpc
import hpc.compat.ipython1 as kernel


@pytest.fixture
def rc() -> "Iterator[kernel.RemoteController]":
    with hpc.Cluster(n=4) as new:
        rc = kernel.RemoteController(("127.0.0.1", int(new.status()["controller"]["addresses"][0].rpartition(":")[2])))
        assert not rc.isConnected()
        yield rc
        rc.disconnect()


def test_the_session_of_the_readme(rc: "kernel.RemoteController", capsys: pytest.CaptureFixture[str]) -> None:
    assert rc.getIDs() == [0, 1, 2, 3]
    assert len(rc) == 4
    assert rc.executeAll("import math")
    capsys.readouterr()
    assert rc.execute(0, "print(math.sqrt(16))")
    assert "Out[1]: 4.0" in capsys.readouterr().out
    assert rc.getResult(0)[:3] == (0, 1, "print(math.sqrt(16))")
    assert rc.getResult(0)[3] == "4.0\n"
    assert rc.getResult(0, 0)[2] == "import math"
    rc.execute([1, 2], "1/1", block=False)
    with pytest.raises(ZeroDivisionError):
        rc.execute(3, "1/0")
    assert "[ZeroDiv" not in capsys.readouterr().out


def test_moving_objects(rc: "kernel.RemoteController") -> None:
    here = np.arange(3)
    assert rc.pushAll("here", a=10, b=[1, 2])
    assert rc.pull(0, "a") == 10
    assert rc.pull(0, "a", "b") == [10, [1, 2]]
    assert rc.pullAll("a") == (10,) * 4
    assert rc.pull([0, 1], "a", "b") == [(10, 10), ([1, 2], [1, 2])]
    assert repr(rc.pull(1, "nothing")) == "NotDefined: nothing"
    assert np.array_equal(rc.pull(2, "here"), here)
    assert rc.pullNamespace(0, "a", "b") == {"a": 10, "b": [1, 2]}
    assert rc.pullNamespaceAll("a") == [{"a": 10}] * 4
    rc["c"] = 5
    assert rc["c"] == (5, 5, 5, 5)
    rc[0]["d"] = 3
    assert rc[0]["d"] == 3
    assert rc[0:2].pull("c") == (5, 5)
    assert rc.resetAll()
    assert isinstance(rc.pull(0, "a"), kernel.NotDefined)
    with pytest.raises(NameError, match="nowhere"):
        rc.pushAll("nowhere")


def test_map_and_parallelize(rc: "kernel.RemoteController") -> None:
    assert rc.scatterAll("x", range(10))
    assert rc.pull(0, "x") == [0, 1, 2]
    assert rc.gatherAll("x") == list(range(10))
    assert rc.mapAll("lambda x: x ** 2", range(10)) == [x**2 for x in range(10)]
    assert rc.map([0, 2], "lambda x: -x", [1, 2, 3]) == [-1, -2, -3]
    rc.executeAll("def cube(x): return x ** 3", block=False)
    assert rc.parallelizeAll("cube")(range(5)) == [0, 1, 8, 27, 64]
    with pytest.raises(ValueError, match="basic"):
        rc.scatterAll("x", [1], style="fancy")
    with pytest.raises(AttributeError, match="nothingAll"):
        rc.nothingAll()


def test_magics_and_what_they_remember(
    rc: "kernel.RemoteController", tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("IPython")
    from IPython.core.error import UsageError
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(colors="nocolor")
    shell.history_manager.enabled = False
    try:
        rc.activate()
        with pytest.raises(UsageError, match="no engine has run"):
            shell.run_line_magic("result", "")
        shell.run_line_magic("px", "a = id")
        shell.run_line_magic("pn", "2 a + 1")
        assert re.search(r"\[\S+:2\] In \[1\]: a \+ 1\n\[\S+:2\] Out\[1\]: 3\n", capsys.readouterr().out)
        shell.run_line_magic("result", "0")
        assert re.findall(r":(\d)\] In \[0\]: a = id", capsys.readouterr().out) == ["0", "1", "2", "3"]
        shell.run_line_magic("result", "1")
        assert re.findall(r":(\d)\] Out\[1\]: 3", capsys.readouterr().out) == ["2"]
        for line in ("9 a", "x"):
            with pytest.raises(UsageError, match="there is no engine"):
                shell.run_line_magic("pn", line)
        with pytest.raises(UsageError, match="there is no engine 9"):
            shell.run_cell_magic("px", "-t 9", "a")
    finally:
        shell.history_manager.end_session()
        InteractiveShell.clear_instance()


def test_run_status_and_kill(rc: "kernel.RemoteController", tmp_path: Any) -> None:
    script = tmp_path / "script.py"
    script.write_text("ran = __file__ if '__file__' in globals() else 'here'")
    rc.runAll(str(script))
    assert len(rc.pullAll("ran")) == 4
    assert set(rc.statusAll()) == {0, 1, 2, 3}
    script.write_text("a b")
    with pytest.raises(SyntaxError):
        rc.runAll(str(script))
    rc.kill(3)
    assert rc.getIDs() == [0, 1, 2]
