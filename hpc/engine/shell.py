"""Code as a person types it: the last expression is shown, and IPython's ``?``, ``!`` and ``%`` work where it is there.

Code that is plain Python runs plainly; IPython is imported when something needs it, which takes it half a second.
"""

import ast
import importlib.util
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

from hpc.engine.capture import Capture
from hpc.engine.lateshell import offered
from hpc.engine.namespace import Namespace
from hpc.wire.display import Outputs, result_of

_SPECIAL: Final = ("%", "!", "?")


class Shell:
    """Runs code in the engine's namespace."""

    def __init__(self, namespace: Namespace, capture: Capture) -> None:
        self._namespace = namespace
        self._capture = capture
        self._ipython: Any = None
        self.builtins: Mapping[bytes, Callable[..., Any]] = {b"!execute": self.execute, b"!cell": self.cell}

    def __repr__(self) -> str:
        return f"<Shell of {self._namespace.identity}{', IPython' if self._ipython is not None else ''}>"

    def execute(self, code: str, filename: str) -> Outputs | None:
        """Execute statements; return what they displayed. ``filename`` is what tracebacks show."""
        if self._ipython is not None:
            return self._run_cell(code, filename)
        try:
            tree = compile(code, filename, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
        except SyntaxError:
            if not any(sign in code for sign in _SPECIAL):
                raise
            return self.cell(code, filename)
        assert isinstance(tree, ast.Module)  # noqa: S101 - for the type checker
        return self._run_plain(tree, code, filename)

    def cell(self, code: str, filename: str) -> Outputs | None:
        """Execute a cell as IPython does, if it is installed; as `execute` does if not."""
        if self._ipython is None and importlib.util.find_spec("IPython") is not None:
            self._start_ipython()
        if self._ipython is not None:
            return self._run_cell(code, filename)
        try:
            tree = compile(code, filename, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
        except SyntaxError as error:
            if any(line.lstrip().startswith(_SPECIAL) or line.rstrip().endswith("?") for line in code.splitlines()):
                error.add_note("if this is meant for IPython: it is not installed where this engine runs")
            raise
        assert isinstance(tree, ast.Module)  # noqa: S101 - for the type checker
        return self._run_plain(tree, code, filename)

    def offered(self) -> AbstractContextManager[None]:
        """Return a context in which functions that look for IPython's shell, to display something, find one."""
        return offered(self._start_ipython)

    def _start_ipython(self) -> None:
        from hpc.engine.ipython import new_shell

        self._ipython = new_shell(self._namespace, self._capture)

    def _run_cell(self, code: str, filename: str) -> Outputs | None:
        return self._ipython.run(code, filename) or None

    def _run_plain(self, tree: ast.Module, code: str, filename: str) -> Outputs | None:
        self._namespace.remember(code, filename)
        names, last = self._namespace.names, tree.body[-1] if tree.body else None
        if not isinstance(last, ast.Expr) or code.rstrip().endswith(";"):
            exec(compile(tree, filename, "exec", dont_inherit=True), names)  # noqa: S102 - what an engine is for
            return None
        if len(tree.body) > 1:
            before = ast.Module(tree.body[:-1], tree.type_ignores)
            exec(compile(before, filename, "exec", dont_inherit=True), names)  # noqa: S102
        value = eval(compile(ast.Expression(last.value), filename, "eval", dont_inherit=True), names)  # noqa: S307
        return None if value is None else Outputs([result_of(value)])
