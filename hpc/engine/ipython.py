"""IPython's shell inside an engine. The only place of the engine that imports IPython."""

import atexit
import os
import shutil
import tempfile
from types import TracebackType
from typing import Any

import IPython
from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.profiledir import ProfileDir
from traitlets import Type
from traitlets.config import Config

from hpc.engine.capture import Capture
from hpc.engine.namespace import Namespace
from hpc.wire.display import Outputs

_PACKAGE = os.path.dirname(IPython.__file__) + os.sep


class _Publisher(DisplayPublisher):  # type: ignore[misc]  # IPython is not typed
    """Keeps what `IPython.display.display` is given."""

    def publish(self, data: Any, metadata: Any = None, *_: Any, **__: Any) -> None:
        self.shell.show({"output_type": "display_data", "data": data, "metadata": metadata or {}})

    def clear_output(self, wait: bool = False) -> None:
        self.shell.forget_shown()


class _Hook(DisplayHook):  # type: ignore[misc]
    """Keeps the value of the last expression."""

    def write_output_prompt(self) -> None:
        """Write nothing: whoever shows the value numbers it."""

    def write_format_data(self, format_dict: Any, md_dict: Any = None) -> None:
        output = {"output_type": "execute_result", "data": format_dict, "metadata": md_dict or {}}
        self.shell.show({**output, "execution_count": self.prompt_count})

    def finish_displayhook(self) -> None:
        """End the display."""
        self._is_active = False


class _Compiler(CachingCompiler):  # type: ignore[misc]
    """Calls a cell what the client calls it: the same on all engines, so that equal tracebacks are equal."""

    name = ""

    def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> str:
        return self.name or str(super().get_code_name(raw_code, transformed_code, number))


class EngineShell(InteractiveShell):  # type: ignore[misc]
    """An IPython shell without a terminal: errors are raised, and what is displayed is kept for the client.

    What a cell displays is its value, in order; what a function displays, or a cell that fails, goes with its entry.
    """

    display_pub_class = Type(_Publisher)
    displayhook_class = Type(_Hook)
    compiler_class = Type(_Compiler)

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self._outputs: Outputs | None = None  # of the cell that runs
        self.capture: Capture | None = None
        super().__init__(*arguments, **keywords)

    def run(self, code: str, filename: str) -> Outputs:
        """Run a cell; return what it displayed, or raise what it raised. ``filename`` is what tracebacks show."""
        shown = self._outputs = Outputs()
        self.compile.name = filename
        try:
            done = self.run_cell(code, store_history=True)
        finally:
            self._outputs = None
        error = done.error_before_exec or done.error_in_exec
        if error is not None:
            for output in shown:
                self.show(output)
            raise error.with_traceback(_own_frames(error.__traceback__))
        return shown

    def show(self, output: dict[str, Any]) -> None:
        """Keep something that is displayed."""
        if self._outputs is not None:
            self._outputs.append(output)
        elif self.capture is not None:
            self.capture.display(output)

    def forget_shown(self) -> None:
        """Forget what the cell, or the function, has displayed so far."""
        if self._outputs is not None:
            self._outputs.clear()
        elif self.capture is not None:
            self.capture.clear_displayed()

    def showtraceback(self, *_: Any, **__: Any) -> None:
        """Show nothing: the client does."""

    def showsyntaxerror(self, *_: Any, **__: Any) -> None:
        """Show nothing: the client does."""

    def enable_gui(self, gui: Any = None) -> None:
        """Do nothing: there is no event loop to run."""


def _own_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback without IPython's frames at its top."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        trace = trace.tb_next
    return trace


def new_shell(namespace: Namespace, capture: Capture) -> EngineShell:
    """Return this process's IPython shell, whose names are those of the namespace."""
    # Not the person's profile: engines of many hosts would all write their histories there.
    directory = tempfile.mkdtemp(prefix="hpc-ipython-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    # Figures are shown where the person is, at the end of the cell that has made them.
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    shell = EngineShell.instance(
        config=config,
        ipython_dir=directory,
        profile_dir=ProfileDir.create_profile_dir(directory),
        user_module=namespace.module,
        user_ns=namespace.names,
    )
    assert isinstance(shell, EngineShell)  # noqa: S101 - there is no other one in an engine
    shell.capture = capture
    return shell
