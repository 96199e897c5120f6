"""A shell is made when code asks for one, and IPython is left as it was."""

import subprocess
import sys

import pytest

from hpc.engine.lateshell import offered

pytest.importorskip("IPython")


def test_the_question_makes_the_shell_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.setattr(InteractiveShell, "_instance", None)
    before = InteractiveShell.initialized
    made = []

    def make() -> None:
        assert not InteractiveShell.initialized(), "what makes it may ask as well"
        made.append(1)
        InteractiveShell._instance = object()  # type: ignore[assignment]

    with offered(make):
        assert InteractiveShell.initialized()
        assert InteractiveShell.initialized()
    assert made == [1]
    assert InteractiveShell.initialized == before


def test_ipython_that_is_imported_later() -> None:
    code = """if True:
        import sys
        from hpc.engine.lateshell import offered
        made = []
        with offered(lambda: made.append(1)):
            assert "IPython" not in sys.modules and len(sys.meta_path) == 4
            import json.tool
            import IPython
            assert IPython.get_ipython() is None and made == [1], made
        assert "initialized" not in vars(IPython.core.interactiveshell.InteractiveShell)
        with offered(lambda: made.append(2)):
            pass
        assert len(sys.meta_path) == 3
        """
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}\n{code}"],
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
