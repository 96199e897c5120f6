"""``%px`` as it is in ipyparallel: how it lays out what engines show, and that an interrupt is no error."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from hpc.compat.ipyparallel.showing import display
from hpc.magics import activate as activate_any
from hpc.magics.px import ParallelMagics as HpcMagics

if TYPE_CHECKING:
    from hpc.client.asyncresult import AsyncResult
    from hpc.client.view import DirectView


class ParallelMagics(HpcMagics):
    """The magics of one view."""

    def _say_interrupted(self, options: argparse.Namespace) -> None:
        print(
            f"Received Keyboard Interrupt. Sending signal {options.signal_on_interrupt} to engines...", file=sys.stderr
        )

    def _show(self, result: "AsyncResult", options: argparse.Namespace, streamed: bool) -> None:
        display(result, options.groupby, text=not streamed)

    def _raise(self, result: "AsyncResult", interrupted: bool) -> None:
        if not interrupted:
            result.get()


def activate(view: "DirectView | None", suffix: str = "", *, shell: Any = None) -> ParallelMagics:
    """Have ``%px``, with a suffix if given, work on a view, by default on all engines of the newest cluster."""
    return activate_any(view, suffix, shell=shell, kind=ParallelMagics)  # type: ignore[return-value]
