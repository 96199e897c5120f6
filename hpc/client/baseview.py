"""What direct and load-balanced views have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from hpc.client.asyncresult import AsyncResult
from hpc.client.parallel import ParallelFunction, RemoteFunction

if TYPE_CHECKING:
    from hpc.client.executor import ViewExecutor
    from hpc.client.link import Link
    from hpc.client.remote import RemoteController


class View(ABC):
    """A set of targets with a way to use them.

    Attributes
    ----------
    block : bool
        Whether ``apply``, ``map`` and so on wait and return values. ``*_async`` never waits, ``*_sync`` always does.
    progress : bool
        Whether transfers that take more than a second show a bar while their caller waits.
    """

    def __init__(self, rc: "RemoteController", block: bool = True) -> None:
        self._rc = rc
        self.block = block
        self.progress = True

    @property
    def client(self) -> "RemoteController":
        """The client that this is a view of."""
        return self._rc

    @property
    def _link(self) -> "Link":
        return self._rc._connected()

    def set_flags(self, **flags: Any) -> Self:
        """Set attributes of the view, and return it."""
        for name, value in flags.items():
            if name.startswith("_") or not hasattr(self, name):
                raise TypeError(f"{type(self).__name__} has no flag {name!r}")
            setattr(self, name, value)
        return self

    @contextmanager
    def temp_flags(self, **flags: Any) -> Iterator[None]:
        """Set attributes of the view for the time of a ``with`` block: ``with view.temp_flags(block=False): ...``."""
        before = {}
        try:
            for name, value in flags.items():
                if name.startswith("_") or not hasattr(self, name):
                    raise TypeError(f"{type(self).__name__} has no flag {name!r}")
                before[name] = getattr(self, name)
                setattr(self, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)

    def _return(self, result: AsyncResult, block: bool | None = None) -> Any:
        return result.get() if (self.block if block is None else block) else result

    # ------------------------------------------------------------ calls

    @abstractmethod
    def apply_async(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Call ``f(*args, **kwargs)`` on the targets; return the result at once."""

    def apply(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call ``f(*args, **kwargs)`` on the targets; return what it returns, or with ``block`` False the result."""
        return self._return(self.apply_async(f, *args, **kwargs))

    def apply_sync(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call ``f(*args, **kwargs)`` on the targets; return what it returns."""
        return self.apply_async(f, *args, **kwargs).get()

    @property
    def executor(self) -> "ViewExecutor":
        """An executor of `concurrent.futures` whose workers are the engines of this view."""
        from hpc.client.executor import ViewExecutor

        return ViewExecutor(self)  # type: ignore[arg-type]  # there are no views but those two

    # ------------------------------------------------------------ maps

    @abstractmethod
    def map_async(self, f: Callable[..., Any], /, *sequences: Iterable[Any], **options: Any) -> AsyncResult:
        """Call ``f`` with the items of the sequences, as the built-in ``map`` does; return the result at once."""

    def map(
        self, f: Callable[..., Any], /, *sequences: Iterable[Any], block: bool | None = None, **options: Any
    ) -> Any:
        """Call ``f`` with the items of the sequences; return the list of values, or with ``block`` False the result."""
        return self._return(self.map_async(f, *sequences, **options), block)

    def map_sync(self, f: Callable[..., Any], /, *sequences: Iterable[Any], **options: Any) -> list[Any]:
        """Call ``f`` with the items of the sequences; return the list of values."""
        values: list[Any] = self.map_async(f, *sequences, **options).get()
        return values

    # ------------------------------------------------------------ functions that run on the targets

    def parallelize(self, f: Callable[..., Any]) -> ParallelFunction:
        """Return ``f`` as a function of sequences that calls it for every item, on the targets."""
        return ParallelFunction(self, f, by_item=True)

    def remote(self, block: bool | None = None) -> Callable[[Callable[..., Any]], RemoteFunction]:
        """Decorate a function so that calling it calls it on the targets."""
        return lambda f: RemoteFunction(self, f, block)

    def parallel(self, block: bool | None = None, **options: Any) -> Callable[[Callable[..., Any]], ParallelFunction]:
        """Decorate a function of sequences so that each target calls it with a part of them; ``.map`` goes by item."""
        return lambda f: ParallelFunction(self, f, by_item=False, block=block, **options)

    @abstractmethod
    def _apply_parts(self, f: Callable[..., Any], sequences: tuple[Any, ...], **options: Any) -> AsyncResult:
        """Divide the sequences among the targets and call ``f`` once on each with its parts; results are joined."""
