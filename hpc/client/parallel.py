"""Functions that run on the targets of a view when they are called."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpc.client.baseview import View


class RemoteFunction:
    """A function that runs on the targets of a view: what ``view.remote()`` makes."""

    def __init__(self, view: "View", f: Callable[..., Any], block: bool | None = None) -> None:
        self.view = view
        self.func = f
        self.block = block
        functools.update_wrapper(self, f)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {getattr(self.func, '__qualname__', self.func)} on {self.view!r}>"

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function on the targets."""
        return self.view._return(self.view.apply_async(self.func, *args, **kwargs), self.block)


class ParallelFunction(RemoteFunction):
    """A function of sequences that are divided among the targets of a view.

    Parameters
    ----------
    by_item : bool
        Whether the function takes items (``view.parallelize(f)``), or parts of the sequences (``@view.parallel()``).
    """

    def __init__(
        self, view: "View", f: Callable[..., Any], by_item: bool, block: bool | None = None, **options: Any
    ) -> None:
        super().__init__(view, f, block)
        self.by_item = by_item
        self.options = options

    def __call__(self, /, *sequences: Any, **kwargs: Any) -> Any:
        """Divide the sequences among the targets; return what comes back, joined."""
        if kwargs:
            raise TypeError("the arguments are divided among the targets: give sequences, by position")
        if not sequences:
            raise TypeError("there is nothing to divide among the targets: give at least one sequence")
        if self.by_item:
            return self.map(*sequences)
        return self.view._return(self.view._apply_parts(self.func, sequences, **self.options), self.block)

    def map(self, /, *sequences: Any) -> Any:
        """Call the function for every item."""
        return self.view._return(self.view.map_async(self.func, *sequences), self.block)
