"""Magics for IPython and notebooks: ``%load_ext hpc`` makes ``%px``, ``%autopx``, ``%pxresult``, ``%pxconfig``.

The only place of the client's side that imports IPython.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpc.client.view import DirectView
    from hpc.magics.px import ParallelMagics

__all__ = ["activate", "load_ipython_extension"]


def load_ipython_extension(shell: Any) -> None:
    """Make ``%px`` and the others known; they work on all engines of the newest cluster until a view is activated."""
    activate(None, shell=shell)


def activate(
    view: "DirectView | None", suffix: str = "", *, shell: Any = None, kind: "type[ParallelMagics] | None" = None
) -> "ParallelMagics":
    """Have ``%px``, with a suffix if given (``%pxgpu``), work on a view; ``kind`` may be a class of another manner.

    Raises
    ------
    RuntimeError
        This is no IPython session.
    """
    from IPython.core.getipython import get_ipython

    from hpc.magics.px import ParallelMagics

    shell = shell or get_ipython()
    if shell is None:
        raise RuntimeError("magics are for IPython: start 'ipython' or a notebook, or use view.execute() here")
    magics = (kind or ParallelMagics)(shell, view, suffix)
    magics.register()
    return magics
