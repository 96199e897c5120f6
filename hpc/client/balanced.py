"""Work for whichever engine is free."""

import copy
import functools
import math
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from hpc.client import columns
from hpc.client.asyncresult import AsyncResult
from hpc.client.baseview import View
from hpc.client.bundle import Part, Placement
from hpc.client.calls import digest_of, dump_call
from hpc.client.groupresult import GroupResult
from hpc.client.lazymap import LazyMap
from hpc.client.mapresult import MapResult
from hpc.client.parts import join, split
from hpc.client.referring import sources, submit_columns
from hpc.errors import ranges
from hpc.partition import Distribution
from hpc.wire import messages as m

if TYPE_CHECKING:
    from hpc.client.remote import RemoteController

# Items that a lazy map keeps under way for each engine: enough for bundles to form.
OUTSTANDING_PER_ENGINE = 16


class LoadBalancedView(View):
    """A view that gives tasks to engines as they become free.

    Attributes
    ----------
    targets : list of int or None
        The engines that may be used; None for all, also those that come later.
    retries : int
        How often a task that failed, or whose engine was lost, is tried again.
    expected_s : float
        The seconds that a task takes, 0 if that is not known. It is sent to no engine whose allocation ends earlier.
    ranks : int
        How many ranks run each task together (`with_ranks`); 0 for tasks of one engine.
    """

    def __init__(
        self,
        rc: "RemoteController",
        targets: list[int] | None = None,
        *,
        retries: int = 0,
        expected_s: float = 0.0,
        block: bool = True,
    ) -> None:
        super().__init__(rc, block)
        self._targets = targets
        self._retries = retries
        self._expected_s = _checked_s(expected_s)
        self._ranks, self._everyone = 0, False
        self._placement = Placement(None)
        self._settle()

    def __repr__(self) -> str:
        where = "all engines" if self._targets is None else f"engines {ranges(sorted(self._targets))}"
        retries = f", {self._retries} retries" if self._retries else ""
        ranks = f", {self._ranks} ranks for each task" if self._ranks else ""
        each_s = f", {self._expected_s:g} s each" if self._expected_s else ""
        return f"<LoadBalancedView of {where}{ranks}{retries}{each_s}>"

    def _settle(self) -> None:
        options = None
        if self._retries or self._expected_s or self._ranks:
            options = m.Options(retries=self._retries, expected_s=self._expected_s)
            options.ranks, options.everyone = self._ranks, self._everyone
        self._placement = Placement(None, options, self._targets)

    @property
    def targets(self) -> list[int] | None:
        """The engines that may be used; None for all."""
        return self._targets

    @targets.setter
    def targets(self, targets: int | Iterable[int] | str | None) -> None:
        self._targets = None if targets is None or targets == "all" else self._rc._ids_of(targets)
        self._settle()

    @property
    def retries(self) -> int:
        """How often a task is tried again."""
        return self._retries

    @retries.setter
    def retries(self, retries: int) -> None:
        if retries < 0:
            raise ValueError(f"retries must not be negative: {retries}")
        self._retries = retries
        self._settle()

    @property
    def expected_s(self) -> float:
        """The seconds that a task takes; 0 if that is not known."""
        return self._expected_s

    @expected_s.setter
    def expected_s(self, expected_s: float) -> None:
        self._expected_s = _checked_s(expected_s)
        self._settle()

    @property
    def ranks(self) -> int:
        """How many ranks run each task together; 0 for tasks of one engine."""
        return self._ranks

    def with_ranks(self, n: int, results: str = "root") -> "LoadBalancedView":
        """Return a view each of whose tasks is run by ``n`` ranks of one group together, on one host where possible.

        All of them call the function. Within it `hpc.comm`, and the names ``comm``, ``rank`` and ``size``, mean a
        communicator of just these ranks.

        Parameters
        ----------
        n : int
            A task for which no group is large enough ends with `hpc.errors.NoEngines`.
        results : str
            Whose value is that of the task: ``"root"``, the one of rank 0, or ``"all"``, the list of all, by rank. If
            any rank raises, the task fails.
        """
        if not isinstance(n, int) or isinstance(n, bool) or n < 1:
            raise ValueError(f"a task needs a positive number of ranks, not {n!r}")
        if results not in ("root", "all"):
            raise ValueError(f"results must be 'root' or 'all', not {results!r}")
        view = copy.copy(self)
        view._ranks, view._everyone = n, results == "all"
        view._settle()
        return view

    def __len__(self) -> int:
        n = len(self._rc.ids) if self._targets is None else len(self._targets)
        return n // self._ranks if self._ranks else n

    # ------------------------------------------------------------ calls

    def apply_async(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Call ``f(*args, **kwargs)`` on a free engine; return the result at once."""
        link = self._rc._connected()
        digest, name = digest_of(link, f)
        elsewhere = sources(args, kwargs)
        if elsewhere:
            group = GroupResult(link, name, [-1], itemgetter(0), single=True)
            link.outbox.submit_each(self._placement, digest, dump_call(args, kwargs), Part(group, 1), elsewhere)
            return group
        result = AsyncResult(link, name)
        link.outbox.submit(self._placement, digest, dump_call(args, kwargs), result)
        return result

    def map_async(
        self,
        f: Callable[..., Any],
        /,
        *sequences: Iterable[Any],
        chunksize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        **_: Any,
    ) -> MapResult:
        """Call ``f`` with the items of the sequences; return the result at once.

        Parameters
        ----------
        chunksize : int, optional
            Items that travel together; by default what suits their number and that of the engines.
        ordered : bool
            Whether values are in the order of the items, or in the order in which they come.
        return_exceptions : bool
            Whether exceptions stand among the values; else the first one is raised once all items have ended.
        """
        link = self._link
        pieces = columns.pieces(sequences, max(1, len(self)), chunksize)
        digest, name = digest_of(link, f)
        result = MapResult(link, f"map {name}", ordered=ordered, return_exceptions=return_exceptions)
        base = 0
        for piece in pieces:
            count = columns.length(piece)
            result.expect(count)
            submit_columns(link.outbox, self._placement, digest, piece, Part(result, count, base))
            base += count
        result.complete()
        return result

    def imap(
        self,
        f: Callable[..., Any],
        /,
        *sequences: Iterable[Any],
        ordered: bool = True,
        max_outstanding: int | str | None = "auto",
        return_exceptions: bool = False,
    ) -> LazyMap:
        """Call ``f`` with the items of the sequences, which may be endless; return an iterator of the values.

        Parameters
        ----------
        ordered : bool
            Whether values come in the order of the items, or as they are there.
        max_outstanding : int, "auto" or None
            How many items may be drawn whose values have not been taken; "auto" keeps the engines busy, None (or 0)
            draws all there are.
        return_exceptions : bool
            Whether exceptions are values; else the first one is raised, and ends the map.
        """
        if max_outstanding == "auto":
            max_outstanding = OUTSTANDING_PER_ENGINE * max(1, len(self))
        if not isinstance(max_outstanding, int | None) or (max_outstanding or 0) < 0:
            raise ValueError(f"max_outstanding must be a number, 'auto' or None, not {max_outstanding!r}")
        return LazyMap(
            functools.partial(self.apply_async, f),
            zip(*sequences, strict=False),
            max_outstanding=max_outstanding or 0,
            ordered=ordered,
            return_exceptions=return_exceptions,
        )

    def _apply_parts(
        self, f: Callable[..., Any], sequences: tuple[Any, ...], dist: Distribution = "block", **_: Any
    ) -> AsyncResult:
        link = self._link
        n = max(1, len(self))
        divided = [split(sequence, n, dist, 0, False) for sequence in sequences]
        layout = divided[0][1]
        digest, name = digest_of(link, f)
        result = GroupResult(link, name, list(range(n)), lambda values: join(values, layout))
        for base in range(n):
            body = dump_call(tuple(parts[base] for parts, _ in divided), {})
            link.outbox.submit_each(self._placement, digest, body, Part(result, 1, base))
        return result

    def register_joblib_backend(self, name: str = "hpc", make_default: bool = False) -> None:
        """Have ``joblib.parallel_config(backend=name)`` use the engines of this view."""
        from hpc.client.joblib import register

        register(name, self, make_default)

    # ------------------------------------------------------------ control

    def abort(self, results: AsyncResult | Iterable[AsyncResult] | None = None) -> None:
        """End tasks that no engine has begun: those of the given results, by default all load-balanced ones."""
        self._rc._abort(results, None)


def _checked_s(expected_s: float) -> float:
    if not 0 <= expected_s < math.inf:
        raise ValueError(f"expected_s must be the seconds that a task takes, or 0 if that is not known: {expected_s}")
    return float(expected_s)
