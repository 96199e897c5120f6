"""IPython's shell for functions that look for one, to display something: it is made when the first of them asks.

`IPython.display.display` and `get_ipython` ask ``InteractiveShell.initialized()``. In an engine the answer is always
yes, and the question makes the shell. IPython itself is never imported here: what is done waits for user code to do it.
"""

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

_MODULE: Final = "IPython.core.interactiveshell"


@contextmanager
def offered(make: Callable[[], object]) -> Iterator[None]:
    """Have ``make`` called when code asks, within the ``with`` block, whether there is a shell and there is none."""
    watcher = _Watcher(make)
    if _MODULE in sys.modules:
        watcher.change(sys.modules[_MODULE])
    else:
        sys.meta_path.insert(0, watcher)
    try:
        yield
    finally:
        watcher.withdraw()


class _Watcher(importlib.abc.MetaPathFinder):
    """Sees the module being imported, once, and changes its class when it is there."""

    def __init__(self, make: Callable[[], object]) -> None:
        self._make = make
        self._kind: Any = None
        self._making = False

    def __repr__(self) -> str:
        return f"<_Watcher of {_MODULE}, {'seen' if self._kind is not None else 'waits'}>"

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_change(module: ModuleType) -> None:
                execute(module)
                self.change(module)

            spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]
        return spec

    def change(self, module: ModuleType) -> None:
        self._kind = module.InteractiveShell
        self._kind.initialized = classmethod(self._initialized)

    def _initialized(self, kind: Any) -> bool:
        if getattr(kind, "_instance", None) is None and not self._making:
            self._making = True  # what makes the shell asks, too
            try:
                self._make()
            finally:
                self._making = False
        return getattr(kind, "_instance", None) is not None

    def withdraw(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        if self._kind is not None and "initialized" in vars(self._kind):
            del self._kind.initialized  # that of its base class counts again
