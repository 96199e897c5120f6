"""``%px`` and its relatives."""

import argparse
import shlex
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import no_var_expand

from hpc.client.displaying import show
from hpc.client.showing import display
from hpc.errors import ranges
from hpc.magics.options import engines_of, new_parser

if TYPE_CHECKING:
    from hpc.client.asyncresult import AsyncResult
    from hpc.client.view import DirectView

# What holds until %pxconfig says something else.
_DEFAULTS = {
    "targets": "",  # as the view has them
    "block": None,  # the same
    "stream": None,
    "out": "",
    "groupby": "type",
    "local": False,
    "verbose": False,
    "progress_after": 2.0,
    "signal_on_interrupt": "SIGINT",
}
# How long engines may take to come back from an interrupt before the prompt does.
INTERRUPT_S = 5.0


class ParallelMagics:
    """The magics of one view; with a suffix there may be several."""

    def __init__(self, shell: Any, view: "DirectView | None", suffix: str = "") -> None:
        self.shell = shell
        self._view, self._suffix = view, suffix
        self._settings: dict[str, Any] = dict(_DEFAULTS)
        self._last: AsyncResult | None = None
        self._run_here: Any = None  # what the shell ran cells with before %autopx

    def __repr__(self) -> str:
        return f"<ParallelMagics %px{self._suffix} of {self._view!r}>"

    @property
    def view(self) -> "DirectView":
        """The view that is used; if none was activated, that of all engines of the newest cluster."""
        if self._view is None:
            from hpc.client.remote import connect

            self._view = connect()[:]
            self._view.targets = "all"
        return self._view

    def register(self) -> None:
        """Make the magics known to IPython, in place of earlier ones of the same names."""
        for magic in (self.px, self.autopx, self.pxconfig, self.pxresult):
            self.shell.register_magic_function(magic, "line", magic.__name__ + self._suffix)
        self.shell.register_magic_function(self.cell_px, "cell", f"px{self._suffix}")

    # ------------------------------------------------------------ the magics

    @no_var_expand  # type: ignore[untyped-decorator]  # braces and dollars are the engines' business
    def px(self, line: str = "") -> Any:
        """Execute one line on the engines: ``%px import numpy``; ``%px --help`` shows the options of ``%%px``."""
        if line.strip() in ("-h", "--help"):
            print(new_parser(f"%%px{self._suffix}").format_help())
            return None
        return self._execute(line, self._with({}))

    def cell_px(self, line: str = "", cell: str = "") -> Any:
        """Execute a cell on the engines; ``%px --help`` shows the options."""
        options = self._parse("%%px", line)
        if options.local:
            done = self.shell.run_cell(cell)
            done.raise_error()
        return self._execute(cell, options)

    def autopx(self, line: str = "") -> None:
        """Switch to and fro: from now on every cell runs on the engines, or here again."""
        if self._run_here is None:
            self._run_here = self.shell.run_cell
            self.shell.run_cell = self._run_there
        else:
            self.shell.run_cell, self._run_here = self._run_here, None
        print(f"%autopx{self._suffix} {'disabled' if self._run_here is None else 'enabled'}")

    def pxconfig(self, line: str = "") -> None:
        """Set what ``%px`` does when it gets no options, targets and block on the view itself; without any, show it."""
        parser = new_parser(f"%pxconfig{self._suffix}")
        given = vars(parser.parse_args(shlex.split(line)))
        if "targets" in given:
            self.view.targets = self._targets(given.pop("targets"))
        if "block" in given:
            self.view.block = given.pop("block")
        self._settings.update(given)
        if not line.strip():
            for name, value in {**self._settings, "targets": self.view.targets, "block": self.view.block}.items():
                print(f"{name} = {value!r}")

    def pxresult(self, line: str = "") -> Any:
        """Show what came of the last ``%px``; waits for it."""
        if self._last is None:
            raise UsageError(f"there is no result yet: nothing was run with %px{self._suffix}")
        options = self._parse("%pxresult", line)
        return self._finish(self._last, options, stream=False)

    # ------------------------------------------------------------ how

    def _parse(self, name: str, line: str) -> argparse.Namespace:
        return self._with(vars(new_parser(f"{name}{self._suffix}").parse_args(shlex.split(line))))

    def _with(self, given: dict[str, Any]) -> argparse.Namespace:
        return argparse.Namespace(**{**self._settings, **given})

    def _targets(self, text: str) -> Any:
        """Return what a view takes for engines written on a line."""
        chosen = engines_of(text)
        return self.view.client.ids[chosen] if isinstance(chosen, slice) else chosen

    def _view_of(self, text: str) -> "DirectView":
        try:
            return self.view.client.direct_view(self._targets(text))
        except IndexError as error:
            raise UsageError(str(error)) from None

    def _run_there(self, raw_cell: str, *arguments: Any, **keywords: Any) -> Any:
        """Stand in for the shell's `run_cell`; what has to do with magics of ours, or of cells, still runs here."""
        if raw_cell.strip() and not raw_cell.lstrip().startswith(("%%", "%px", "%autopx")):
            raw_cell = f"%%px{self._suffix}\n{raw_cell}"
        return self._run_here(raw_cell, *arguments, **keywords)

    def _execute(self, code: str, options: argparse.Namespace) -> Any:
        view = self.view
        if options.block is None:
            options.block = view.block
        if options.targets:
            view = self._view_of(options.targets)
        if options.verbose:
            kind = "Parallel" if options.block else "Async parallel"
            where = options.targets if options.targets == "all" else ranges(sorted(view._choose(None)[0]))
            print(f"{kind} execution on engine(s): {where}")
        result = view._cell(code)
        self._last = result
        if options.out:
            self.shell.user_ns[options.out] = result
        if not options.block:
            return None if options.out else result
        return self._finish(result, options, stream=options.stream is not False)

    def _finish(self, result: "AsyncResult", options: argparse.Namespace, stream: bool) -> None:
        interrupted = False
        try:
            with result.stream_output() if stream else nullcontext():
                self._wait(result, options)
        except KeyboardInterrupt:
            if options.signal_on_interrupt == "0":
                raise
            interrupted = True
            self._say_interrupted(options)
            self.view.client[getattr(result, "targets", None) or [result.engine_id]].interrupt()
            if not result.wait(INTERRUPT_S):
                print(f"not all engines have come back within {INTERRUPT_S:g} s: Python cannot leave what they are in")
                raise
        self._show(result, options, stream)
        self._raise(result, interrupted)

    def _say_interrupted(self, options: argparse.Namespace) -> None:
        print("interrupting the engines ...")

    def _show(self, result: "AsyncResult", options: argparse.Namespace, streamed: bool) -> None:
        """Show what the engines printed, unless that was done as it came, and what they displayed."""
        if not streamed:
            display(result, options.groupby)
        show(result)

    def _raise(self, result: "AsyncResult", interrupted: bool) -> None:
        """Raise what the engines have raised."""
        result.get()

    def _wait(self, result: "AsyncResult", options: argparse.Namespace) -> None:
        began = time.monotonic()
        if options.progress_after < 0 or len(result) == 1:
            result.wait()
        elif not result.wait(max(0.0, began + options.progress_after - time.monotonic())):
            result.wait_interactive()
