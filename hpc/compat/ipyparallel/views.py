"""Views under ipyparallel's names, and with its defaults: nothing waits unless ``block`` is set."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hpc
from hpc.client.baseview import View as HpcView
from hpc.client.parallel import ParallelFunction, RemoteFunction
from hpc.compat.ipyparallel.error import InvalidDependency
from hpc.compat.ipyparallel.functions import Reference, distribution, prepared
from hpc.compat.ipyparallel.results import AsyncMapResult, AsyncResult, adopt
from hpc.errors import DependencyError

if TYPE_CHECKING:
    from hpc.compat.ipyparallel.client import Client


class _Later:
    """A flag of a view that there is no work for yet: it may be empty."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, view: Any, owner: type) -> None:
        return None

    def __set__(self, view: Any, value: Any) -> None:
        if value:
            raise NotImplementedError(f"{self.name!r} of a view is not supported by hpc's controller")


class View(HpcView):
    """What both kinds of views have from ipyparallel.

    Attributes
    ----------
    history : list of str
        The names of all tasks that this view has given out.
    """

    _rc: "Client"
    label = _Later()

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._given_out = array("Q")

    def _took(self, result: hpc.AsyncResult, method: str = "apply") -> AsyncResult:
        """Make a result ipyparallel's, and remember it."""
        taken = adopt(result, method)
        self._rc._remember(taken, self._given_out)
        return taken

    @property
    def history(self) -> list[str]:
        """The names of all tasks that this view has given out."""
        return self._rc._names(self._given_out)

    @property
    def outstanding(self) -> set[str]:
        """The names of those of them that have not ended."""
        return self._rc.outstanding & set(self.history)

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> bool:
        """Wait until tasks have ended: results or their names, by default all that this view has given out."""
        return self._rc.wait(self.history if jobs is None else jobs, timeout)

    def spin(self) -> None:
        """Do nothing: results come in by themselves."""

    def get_result(self, indices_or_msg_ids: Any = None, block: bool | None = None, owner: bool = True) -> Any:
        """Return the result of tasks that this client has given out: by name, by index in `history`, or the last."""
        return self._rc._found(-1 if indices_or_msg_ids is None else indices_or_msg_ids, self.history, block, owner)

    def parallel(  # type: ignore[override]  # in hpc its second argument is the first
        self, dist: str = "b", block: bool | None = None, **options: Any
    ) -> Callable[[Callable[..., Any]], ParallelFunction]:
        """Decorate a function of sequences so that each target calls it with a part of them; ``.map`` goes by item."""
        return lambda f: _documented(ParallelFunction(self, f, False, block, dist=distribution(dist), **options))

    def remote(self, block: bool | None = None, **flags: Any) -> Callable[[Callable[..., Any]], RemoteFunction]:
        """Decorate a function so that calling it calls it on the targets."""
        if flags:
            raise TypeError(f"set {', '.join(flags)} on the view: view.set_flags(...)")
        return lambda f: _documented(RemoteFunction(self, f, block))


class DirectView(View, hpc.DirectView):
    """A view of certain engines."""

    @property  # type: ignore[override]
    def targets(self) -> int | list[int] | str:
        """The engine id, the list of them, or ``"all"``."""
        return self._targets

    @targets.setter
    def targets(self, targets: int | Iterable[int] | str) -> None:
        self._targets = self._rc._targets_of(targets)

    def __len__(self) -> int:
        return len(self._choose(None)[0])

    def __iter__(self) -> Iterator["DirectView"]:
        for target in self._choose(None)[0]:
            yield DirectView(self._rc, target, self.block)

    def activate(self, suffix: str = "") -> None:
        """Have ``%px`` and the others, with that suffix, work on this view."""
        from hpc.compat.ipyparallel.magics import activate

        activate(self, suffix)

    @property
    def importer(self) -> Any:
        """What `sync_imports` returns: ``with view.importer: import numpy``."""
        return self.sync_imports(True)

    # ------------------------------------------------------------ calls

    def _each(self, targets: Any, digest: bytes, args: tuple[Any, ...], kwargs: Mapping[str, Any], name: str) -> Any:
        return self._took(super()._each(targets, digest, args, kwargs, name))

    def apply_async(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Call ``f(*args, **kwargs)`` on each target; return the result at once."""
        return self._took(super().apply_async(prepared(f, args, kwargs), *args, **kwargs))

    def map_async(  # type: ignore[override]
        self,
        f: Callable[..., Any],
        /,
        *sequences: Iterable[Any],
        return_exceptions: bool = False,
        track: bool = False,
    ) -> AsyncMapResult:
        """Call ``f`` with the items of the sequences, contiguous parts of them on each target; return the result."""
        f = _with_references(f, sequences)
        result = super().map_async(f, *sequences, return_exceptions=return_exceptions)
        return self._took(result, "map")  # type: ignore[return-value]

    def _apply_parts(  # type: ignore[override]
        self, f: Callable[..., Any], sequences: tuple[Any, ...], **options: Any
    ) -> AsyncResult:
        return self._took(super()._apply_parts(f, sequences, **options))

    # ------------------------------------------------------------ code

    def execute(  # type: ignore[override]
        self, code: str, silent: bool = True, targets: Any = None, block: bool | None = None
    ) -> AsyncResult:
        """Execute a cell, as IPython does where it is installed; the values of the result are `ExecuteReply`."""
        result = adopt(super()._cell(code, targets))
        result._name = result._method = "execute"
        result._silent = silent
        self._return(result, block)
        return result

    def run(self, filename: str | Path, targets: Any = None, block: bool | None = None) -> AsyncResult:
        """Run a script of this machine on each engine, as ``__main__``."""
        return adopt(super().run(filename, targets, block))

    def clear(self, targets: Any = None, block: bool | None = None) -> Any:
        """Forget all names on the engines but those that they had at the start."""
        return self._return(super().clear(targets, False), block)

    # ------------------------------------------------------------ names

    def _moved(self, result: hpc.AsyncResult, *arguments: Any, **keywords: Any) -> Any:
        return super()._moved(self._took(result), *arguments, **keywords)

    def push(  # type: ignore[override]
        self, ns: Mapping[str, Any], targets: Any = None, block: bool | None = None, track: bool | None = None
    ) -> Any:
        """Bind names on each engine to the objects given."""
        names = {
            name: hpc.Reference(value.name) if isinstance(value, Reference) else value for name, value in ns.items()
        }
        return super().push(names, targets, block)

    def scatter(  # type: ignore[override]  # noqa: PLR0917 - positions as there
        self,
        key: str,
        seq: Any,
        dist: str = "b",
        flatten: bool = False,
        targets: Any = None,
        block: bool | None = None,
        track: bool | None = None,
    ) -> Any:
        """Divide a sequence among the engines: contiguous parts (``"b"``), or dealt out (``"r"``)."""
        return super().scatter(key, seq, distribution(dist), flatten, targets, block=block)

    def gather(  # type: ignore[override]
        self, key: str, dist: str | None = None, targets: Any = None, block: bool | None = None
    ) -> Any:
        """Fetch the parts that have the name on the engines and put them together, by default as they were divided."""
        return super().gather(key, None if dist is None else distribution(dist), targets, block=block)

    # ------------------------------------------------------------ control

    def abort(self, jobs: Any = None, targets: Any = None, block: bool | None = None) -> None:
        """End tasks that no engine has begun: results or their names, by default all of this view's engines."""
        super().abort(None if jobs is None else self._rc._results_of(jobs), targets)

    def queue_status(self, targets: Any = None, verbose: bool = False) -> Any:
        """Count the tasks of each engine."""
        return self._rc.queue_status(self._choose(targets)[0], verbose)

    def shutdown(
        self, targets: Any = None, restart: bool = False, hub: bool = False, block: bool | None = None
    ) -> None:
        """End the engines, and with ``hub`` the controller."""
        self._rc.shutdown(self._choose(targets)[0], restart, hub, block)

    kill = shutdown


class LoadBalancedView(View, hpc.LoadBalancedView):
    """A view that gives tasks to engines as they become free."""

    label = hpc.LoadBalancedView.label

    def _placed(self, link: Any, f: Callable[..., Any]) -> Any:
        try:
            return super()._placed(link, f)
        except DependencyError as error:
            raise InvalidDependency(error) from None

    def apply_async(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Call ``f(*args, **kwargs)`` on a free engine; return the result at once."""
        return self._took(super().apply_async(prepared(f, args, kwargs), *args, **kwargs))

    def map_async(  # type: ignore[override]
        self,
        f: Callable[..., Any],
        /,
        *sequences: Iterable[Any],
        chunksize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        track: bool = False,
    ) -> AsyncMapResult:
        """Call ``f`` with the items of the sequences; return the result at once."""
        f = _with_references(f, sequences)
        options = {"chunksize": chunksize, "ordered": ordered, "return_exceptions": return_exceptions}
        return self._took(super().map_async(f, *sequences, **options), "map")  # type: ignore[arg-type, return-value]

    def _apply_parts(  # type: ignore[override]
        self, f: Callable[..., Any], sequences: tuple[Any, ...], **options: Any
    ) -> AsyncResult:
        return self._took(super()._apply_parts(f, sequences, **options))

    def abort(self, jobs: Any = None, targets: Any = None, block: bool | None = None) -> None:
        """End tasks that no engine has begun: results or their names, by default all load-balanced ones."""
        super().abort(None if jobs is None else self._rc._results_of(jobs))

    def register_joblib_backend(self, name: str = "ipyparallel", make_default: bool = False) -> None:
        """Have ``joblib.parallel_config(backend=name)`` use the engines of this view."""
        super().register_joblib_backend(name, make_default)


def _documented(function: Any) -> Any:
    """Have help say that a function runs elsewhere, as it does there."""
    function.__doc__ = f"{type(function).__name__} on {function.view!r}:\n{function.func.__doc__ or ''}"
    return function


def _with_references(f: Any, sequences: tuple[Any, ...]) -> Any:
    """Return what to map in the place of a function over items some of which may be references."""
    return prepared(f, [item for items in sequences if isinstance(items, list | tuple) for item in items])
