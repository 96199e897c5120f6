"""Work for certain engines."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc import partition, reduction
from hpc.client import columns, placement
from hpc.client.asyncresult import AsyncResult
from hpc.client.balanced import LoadBalancedView
from hpc.client.baseview import View
from hpc.client.bundle import Part
from hpc.client.calls import CELL, EXECUTE, RUN, digest_of, dump_call
from hpc.client.forgetting import forget_names
from hpc.client.groupresult import GroupResult
from hpc.client.importing import synchronised
from hpc.client.lazymap import LazyMap
from hpc.client.mapresult import MapResult
from hpc.client.parts import Layout, join, split
from hpc.client.progress import Transfer
from hpc.client.referring import submit_columns
from hpc.dataplane import chooser
from hpc.errors import ranges
from hpc.partition import Distribution
from hpc.wire import messages as m

if TYPE_CHECKING:
    from hpc.client.remote import RemoteController

_numbers = itertools.count(1)


class DirectView(View):
    """A view of certain engines: everything is done on each of them.

    A view of one engine (``rc[0]``) returns values, others return lists in the order of their targets. Where some
    engines fail, those views raise a `CompositeError`; a view of one engine raises the error itself.

    Parameters
    ----------
    targets : int, list of int, or "all"
        ``"all"`` means the engines that are there when something is done, also those that came later.
    """

    def __init__(self, rc: "RemoteController", targets: int | list[int] | str, block: bool = True) -> None:
        super().__init__(rc, block)
        self._targets = targets
        self._route: str | None = None

    def __repr__(self) -> str:
        if isinstance(self._targets, list):
            return f"<DirectView of engines {ranges(sorted(self._targets)) or 'none'}>"
        return f"<DirectView of {'all engines' if self._targets == 'all' else f'engine {self._targets}'}>"

    @property
    def targets(self) -> int | list[int]:
        """The engine id, or the list of them; of a view of all engines, those that are there now."""
        if isinstance(self._targets, str):
            return self._rc.ids
        return self._targets

    @targets.setter
    def targets(self, targets: int | Iterable[int] | str) -> None:
        self._targets = self._rc._targets_of(targets)

    @property
    def route(self) -> str | None:
        """The way that large data shall take: ``inline``, ``shm``, ``mpi``, ``tcp``, or None for the best one."""
        return self._route

    @route.setter
    def route(self, route: str | None) -> None:
        self._route = chooser.check(route)

    def _choose(self, targets: Any) -> tuple[list[int], bool]:
        """Return the ids to use, all of which are there, and whether one value is meant."""
        chosen = self._targets if targets is None else self._rc._targets_of(targets)
        return self._rc._ids_of(chosen), isinstance(chosen, int)

    def __len__(self) -> int:
        return 1 if isinstance(self._targets, int) else len(self.targets)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator["DirectView"]:
        for target in self._choose(None)[0]:
            view = DirectView(self._rc, target, self.block)
            view.route, view.progress = self._route, self.progress
            yield view

    def _each(self, targets: Any, digest: bytes, args: tuple[Any, ...], kwargs: Mapping[str, Any], name: str) -> Any:
        ids, single = self._choose(targets)
        if single:
            return placement.call_one(self._link, ids[0], digest, (args, kwargs), name, route=self._route)
        return placement.call_each(self._link, ids, digest, (args, kwargs), name, route=self._route)

    # ------------------------------------------------------------ code

    def execute(self, code: str, targets: Any = None, block: bool | None = None) -> AsyncResult:
        """Execute statements in the namespace of each engine.

        Returns the result, which holds what was printed (``stdout``); when blocking, once all engines are through.
        """
        link = self._link
        filename = f"<execute {link.peer.hello.session[:4]}-{next(_numbers)}>"
        result: AsyncResult = self._each(targets, EXECUTE, (code, filename), {}, "execute")
        self._return(result, block)
        return result

    def _cell(self, code: str, targets: Any = None) -> AsyncResult:
        """Execute a cell as IPython does, where it is installed; for the magics."""
        filename = f"<px {self._link.peer.hello.session[:4]}-{next(_numbers)}>"
        result: AsyncResult = self._each(targets, CELL, (code, filename), {}, "px")
        return result

    def activate(self, suffix: str = "") -> None:
        """Have ``%px`` and ``%%px``, with this suffix, work on this view in IPython."""
        from hpc.magics import activate

        activate(self, suffix)

    def sync_imports(self, local: bool = True, quiet: bool = False) -> AbstractContextManager[None]:
        """Have the imports of a ``with`` block happen on the engines, and with ``local`` here, too."""
        return synchronised(self, local, quiet)

    def run(self, path: str | Path, targets: Any = None, block: bool | None = None) -> AsyncResult:
        """Run a script of this machine on each engine, as ``__main__``; returns as `execute` does."""
        text = Path(path).read_text(encoding="utf-8")
        compile(text, str(path), "exec", dont_inherit=True)  # a syntax error is found here, once
        result: AsyncResult = self._each(targets, RUN, (text, str(path)), {}, f"run {path}")
        self._return(result, block)
        return result

    def apply_async(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Call ``f(*args, **kwargs)`` on each target; return the result at once."""
        link, target = self._link, self._targets
        digest, name = digest_of(link, f)
        if type(target) is int and target in link.roster.engines:  # the shortest way for the commonest case
            return placement.call_one(link, target, digest, (args, kwargs), name, route=self._route)
        result: AsyncResult = self._each(None, digest, args, kwargs, name)
        return result

    # ------------------------------------------------------------ names

    def _transfer(self, name: str, block: bool | None, progress: bool | None, *contents: Any) -> Transfer:
        """Return the context of a transfer: a bar shows it while its caller waits."""
        is_shown = (self.block if block is None else block) and (self.progress if progress is None else progress)
        return Transfer(name, sum(getattr(thing, "nbytes", 0) for thing in contents), is_shown=is_shown)

    def _moved(self, result: AsyncResult, block: bool | None, transfer: Transfer, *, nothing: bool = False) -> Any:
        """Return what a transfer gives: its value, or ``nothing``, or when not blocking the result."""
        if not (self.block if block is None else block):
            return result
        transfer.follow(result)
        value = result.get()
        return None if nothing else value

    def push(
        self, names: Mapping[str, Any], targets: Any = None, block: bool | None = None, *, progress: bool | None = None
    ) -> Any:
        """Bind names on each engine to the objects given.

        A `Reference` with an engine stands for an object that is there: it goes from engine to engine, not through this
        process.
        """
        with self._transfer(f"push {', '.join(names)}", block, progress, *names.values()) as transfer:
            result = placement.push(self._link, *self._choose(targets), names, route=self._route)
            return self._moved(result, block, transfer, nothing=True)

    def broadcast(
        self, name: str, obj: Any, targets: Any = None, block: bool | None = None, *, progress: bool | None = None
    ) -> Any:
        """Bind one name on each engine to the object."""
        return self.push({name: obj}, targets, block, progress=progress)

    def pull(
        self,
        names: str | Sequence[str],
        targets: Any = None,
        block: bool | None = None,
        *,
        progress: bool | None = None,
    ) -> Any:
        """Return what a name means on the engines; of several names, the list of values of each engine."""
        ids, single = self._choose(targets)
        wanted = [names] if isinstance(names, str) else list(names)

        def combine(values: list[list[Any]]) -> Any:
            chosen = [value[0] for value in values] if isinstance(names, str) else values
            return chosen[0] if single else chosen

        with self._transfer(f"pull {', '.join(wanted)}", block, progress) as transfer:
            result = placement.pull(self._link, ids, single, wanted, combine, route=self._route)
            return self._moved(result, block, transfer)

    def update(self, names: Mapping[str, Any]) -> Any:
        """Do as `push`."""
        return self.push(names)

    def get(self, names: str | Sequence[str]) -> Any:
        """Return what names mean on the engines, as `pull` does; always waits."""
        return self.pull(names, block=True)

    def clear(self, targets: Any = None, block: bool | None = None) -> AsyncResult:
        """Forget all names on the engines but those that they had at the start; return the result."""
        result: AsyncResult = self._each(targets, digest_of(self._link, forget_names)[0], (), {}, "clear")
        self._return(result, block)
        return result

    def __getitem__(self, name: str) -> Any:
        if not isinstance(name, str):
            raise TypeError(f"a view has names, such as v['x']; engines are chosen with rc[{name!r}]")
        return self.pull(name, block=True)

    def __setitem__(self, name: str, value: Any) -> None:
        self.push({name: value}, block=True)

    def scatter(
        self,
        name: str,
        sequence: Any,
        dist: Distribution = "block",
        flatten: bool = False,
        targets: Any = None,
        *,
        block: bool | None = None,
        axis: int = 0,
        progress: bool | None = None,
    ) -> Any:
        """Divide a sequence among the engines and bind each part to the name.

        Arrays, DataFrames and Series are divided along ``axis``; lists, tuples, strings and bytes stay what they are,
        ranges and iterables become lists. The first ``len % engines`` parts are one longer. With ``flatten`` a part of
        one item becomes that item.
        """
        ids, single = self._choose(targets)
        with self._transfer(f"scatter {name}", block, progress, sequence) as transfer:
            parts, layout = split(sequence, len(ids), dist, axis, flatten)
            self._rc._layouts[name] = layout
            result = placement.push_parts(self._link, ids, single, name, parts, route=self._route)
            return self._moved(result, block, transfer, nothing=True)

    def gather(
        self,
        name: str,
        dist: Distribution | None = None,
        targets: Any = None,
        *,
        block: bool | None = None,
        axis: int | None = None,
        progress: bool | None = None,
    ) -> Any:
        """Fetch the parts that have the name on the engines and put them together.

        How is remembered from `scatter`; arguments override it. Of names that were never scattered, arrays are
        concatenated, and other sequences chained.
        """
        layout = self._rc._layouts.get(name, Layout())
        if dist is not None:
            partition.check(dist)
            layout = layout._replace(dist=dist)
        if axis is not None:
            layout = layout._replace(axis=axis)
        with self._transfer(f"gather {name}", block, progress) as transfer:
            result = placement.gather_into(self._link, *self._choose(targets), name, layout, route=self._route)
            return self._moved(result, block, transfer)

    def reduce(
        self,
        name: str,
        op: reduction.Operation = "sum",
        targets: Any = None,
        *,
        block: bool | None = None,
        progress: bool | None = None,
    ) -> Any:
        """Return what a name means on all engines, combined into one value.

        Parameters
        ----------
        name : str
            The name; where it means arrays they have one shape, and are combined item by item.
        op : str or callable
            ``"sum"``, ``"prod"``, ``"max"``, ``"min"``, ``"land"``, ``"lor"`` (logical and, or), or a function of two
            values, called in the order of the targets.
        """
        reduction.check(op)
        with self._transfer(f"reduce {name}", block, progress) as transfer:
            result = placement.reduce(self._link, *self._choose(targets), name, op, route=self._route)
            return self._moved(result, block, transfer)

    # ------------------------------------------------------------ maps

    def map_async(
        self, f: Callable[..., Any], /, *sequences: Iterable[Any], return_exceptions: bool = False, **_: Any
    ) -> MapResult:
        """Call ``f`` with the items of the sequences, contiguous parts of them on each target; return the result.

        With ``return_exceptions`` exceptions stand among the values; else they are raised once all items have ended.
        """
        ids, single = self._choose(None)
        link = self._link
        cols: list[Any] = next(columns.pieces(tuple(_sized(s) for s in sequences), 1, _WHOLE), [[]])
        digest, name = digest_of(link, f)
        result = MapResult(link, f"map {name}", by_engine=not single, return_exceptions=return_exceptions)
        n = columns.length(cols)
        result.expect(n)
        for target, piece in zip(ids, partition.slices(n, len(ids)), strict=True):
            if piece.start == piece.stop:
                continue
            part = Part(result, piece.stop - piece.start, piece.start)
            place = placement.place(link, target, self._route)
            submit_columns(link.outbox, place, digest, [column[piece] for column in cols], part)
        result.complete()
        return result

    def imap(self, f: Callable[..., Any], /, *sequences: Iterable[Any], **options: Any) -> LazyMap:
        """Do as `LoadBalancedView.imap`: each item goes to the one of these engines that is free."""
        return self._balanced().imap(f, *sequences, **options)

    def _balanced(self) -> LoadBalancedView:
        return LoadBalancedView(self._rc, None if self._targets == "all" else self._choose(None)[0])

    def _apply_parts(
        self, f: Callable[..., Any], sequences: tuple[Any, ...], dist: Distribution = "block", **_: Any
    ) -> AsyncResult:
        ids, _single = self._choose(None)
        link = self._link
        divided = [split(sequence, len(ids), dist, 0, False) for sequence in sequences]
        layout = divided[0][1]
        digest, name = digest_of(link, f)
        result = GroupResult(link, name, ids, lambda values: join(values, layout))
        for base, target in enumerate(ids):
            body = dump_call(tuple(parts[base] for parts, _ in divided), {})
            place = placement.place(link, target, self._route)
            link.outbox.submit_each(place, digest, body, Part(result, 1, base))
        return result

    # ------------------------------------------------------------ control

    def abort(self, results: AsyncResult | Iterable[AsyncResult] | None = None, targets: Any = None) -> None:
        """End tasks that no engine has begun: those of the given results, by default all of this view's engines."""
        self._rc._abort(results, self._choose(targets)[0])

    def interrupt(self, targets: Any = None) -> None:
        """Raise KeyboardInterrupt in what the engines run now."""
        self._link.order(m.Interrupt(self._choose(targets)[0]))

    def queue_status(self, targets: Any = None) -> dict[int, dict[str, int]]:
        """Count the tasks of each engine: queued, sent, completed, failed."""
        return self._rc.queue_status(self._choose(targets)[0])

    def shutdown(self, targets: Any = None) -> None:
        """End the engines."""
        self._rc.shutdown(self._choose(targets)[0])


_WHOLE = 1 << 62


def _sized(sequence: Iterable[Any]) -> Any:
    return sequence if hasattr(sequence, "__len__") else list(sequence)
