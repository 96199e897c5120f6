"""Imports that happen here and on engines: ``with view.sync_imports(): import numpy``."""

import builtins
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hpc.client.asyncresult import AsyncResult

if TYPE_CHECKING:
    from hpc.client.view import DirectView


@contextmanager
def synchronised(view: "DirectView", local: bool = True, quiet: bool = False) -> Iterator[None]:
    """Have the import statements of a ``with`` block executed on the engines of a view as well.

    Only statements of the block itself count, not what the modules that they name import in their turn.

    Parameters
    ----------
    local : bool
        Whether the modules are imported here, too.
    quiet : bool
        Whether to keep silent about what is imported.

    Raises
    ------
    ImportError, CompositeError
        At the end of the block: an engine cannot import something.
    """
    original = builtins.__import__
    frame = sys._getframe(2)  # that of the block: this generator is run by contextlib, which the block has called
    results: list[AsyncResult] = []

    def import_there(
        name: str,
        names: Mapping[str, Any] | None = None,
        locals_: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        caller = sys._getframe(1)
        if caller.f_code is not frame.f_code or level:
            return original(name, names, locals_, fromlist or (), level)
        statement = f"from {name} import {', '.join(fromlist)}" if fromlist else f"import {name}"
        if not quiet:
            print(f"importing {', '.join(fromlist) + ' from ' if fromlist else ''}{name} on the engines")
        results.append(view.execute(statement, block=False))
        return original(name, names, locals_, fromlist or (), level) if local else _Elsewhere(name)

    builtins.__import__ = import_there  # type: ignore[assignment]  # it may give something that is no module
    try:
        yield
    finally:
        builtins.__import__ = original
    for result in results:
        result.get()


class _Elsewhere:
    """What a name is bound to here when it was imported on the engines only."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __repr__(self) -> str:
        return f"<module {self.__name__!r}, on the engines only>"

    def __getattr__(self, name: str) -> "_Elsewhere":
        return _Elsewhere(f"{self.__name__}.{name}")
