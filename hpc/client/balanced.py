"""Work for whichever engine is free."""

import copy
import functools
import math
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from hpc.client import columns, flags
from hpc.client.asyncresult import AsyncResult
from hpc.client.baseview import View
from hpc.client.bundle import Part, Placement
from hpc.client.calls import digest_of, dump_call
from hpc.client.flags import Flag
from hpc.client.groupresult import GroupResult
from hpc.client.lazymap import LazyMap
from hpc.client.mapresult import MapResult
from hpc.client.parts import join, split
from hpc.client.referring import sources, submit_columns
from hpc.errors import ranges
from hpc.partition import Distribution
from hpc.wire import messages as m
from hpc.wire.conditions import Conditional

if TYPE_CHECKING:
    from hpc.client.link import Link
    from hpc.client.remote import RemoteController

# Items that a lazy map keeps under way for each engine: enough for bundles to form.
OUTSTANDING_PER_ENGINE = 16


class LoadBalancedView(View):
    """A view that gives tasks to engines as they become free.

    Attributes
    ----------
    targets : list of int or None
        The engines that may be used; None for all, also those that come later.
    priority : float
        Tasks of higher priority go first among those of this client; 0 by default.
    share : float
        How much of the engines' time this client gets while its tasks of this view are next and other clients wait
        too, compared with 1 of each of those; from 0.01 to 100, 1 by default.
    retries : int
        How often a task that failed, or whose engine was lost, is tried again; on another engine if one is idle.
    timeout : float or None
        Seconds that a task may wait for what it depends on: for ``after`` and ``follow``, and for an engine that has
        what it asks for. Then it ends as `TaskTimeout`. Its turn among other tasks it awaits for as long as it takes.
    run_timeout : float or None
        Seconds that a task may run, until it is interrupted and ends as `TaskTimeout`.
    after, follow : Dependency or None
        Tasks wait until the results, or the tasks with the names, that are given here have ended; with ``follow`` they
        run where these ran. They end as `DependencyError` when that cannot be any more, as one failed for example.
    labels : tuple of str
        Only engines that have all of them are used: ``ipengine --labels fast``.
    resources : dict of str to float
        Only engines that have as much are used: ``{"gpu": 1, "memory_gb": 10}``.
    expected_s : float
        The seconds that a task takes, 0 if that is not known. It is sent to no engine whose allocation ends earlier.
    label : str
        What tasks are called in records.
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
        self._flags: dict[str, Any] = {}
        self._placements: dict[bytes, Placement] = {}
        self._ranks, self._everyone = 0, False
        self.retries, self.expected_s = retries, expected_s

    def __repr__(self) -> str:
        where = "all engines" if self._targets is None else f"engines {ranges(sorted(self._targets))}"
        where += f", {self._ranks} ranks for each task" if self._ranks else ""
        return f"<LoadBalancedView of {where}{''.join(f', {name} {value}' for name, value in self._flags.items())}>"

    retries = Flag(0, flags.count, "How often a task is tried again.")
    expected_s = Flag(0.0, flags.seconds, "The seconds that a task takes; 0 if that is not known.")
    priority = Flag(0.0, flags.number, "Tasks of higher priority go first among those of this client.")
    share = Flag(1.0, flags.share, "This client's part of the engines' time, compared with 1 of others that wait.")
    timeout = Flag(None, flags.limit, "Seconds that a task may wait for what it depends on; None for ever.")
    run_timeout = Flag(None, flags.limit, "Seconds that a task may run; None for ever.")
    labels = Flag((), flags.names, "Only engines that have all of these labels are used.")
    resources = Flag({}, flags.amounts, "Only engines that have as much of these resources are used.")
    label = Flag("", flags.text, "What tasks are called in records.")
    after = Flag(None, flags.dependency, "What has to end before a task begins.")
    follow = Flag(None, flags.dependency, "A task runs where these ran.")

    def _settle(self) -> None:
        self._placements = {}

    def _placed(self, link: "Link", f: Callable[..., Any]) -> tuple[Callable[..., Any], Placement]:
        """Return a function without its conditions, and where it may run under them."""
        condition = b""
        if isinstance(f, Conditional):
            condition, _ = digest_of(link, f.conditions)
            f = f.f
        placement = self._placements.get(condition)
        if placement is None or self.after is not None or self.follow is not None:
            placement = self._placements[condition] = Placement(None, self._options(link, condition), self._targets)
        return f, placement

    def _options(self, link: "Link", condition: bytes) -> m.Options | None:
        given = self._flags
        if not given and not condition and not self._ranks:
            return None
        if condition and self._ranks:
            raise ValueError("a function with conditions (depend, require) cannot be run by several ranks together")
        timeout, run_timeout, after, follow = self.timeout, self.run_timeout, self.after, self.follow
        return m.Options(
            self.retries,
            self.label,
            self.expected_s,
            self.priority,
            -1.0 if timeout is None else timeout,
            0.0 if run_timeout in (None, math.inf) else run_timeout,
            condition,
            self.resources,
            list(self.labels),
            None if after is None else after.to_message(link),
            None if follow is None else follow.to_message(link),
            self._ranks,
            self._everyone,
            self.share,
        )

    @property
    def targets(self) -> list[int] | None:
        """The engines that may be used; None for all."""
        return self._targets

    @targets.setter
    def targets(self, targets: int | Iterable[int] | str | None) -> None:
        self._targets = None if targets is None or targets == "all" else self._rc._ids_of(targets)
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
        view._flags = dict(self._flags)
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
        f, placement = self._placed(link, f)
        digest, name = digest_of(link, f)
        elsewhere = sources(args, kwargs)
        if elsewhere:
            group = GroupResult(link, name, [-1], itemgetter(0), single=True)
            link.outbox.submit_each(placement, digest, dump_call(args, kwargs), Part(group, 1), elsewhere)
            return group
        result = AsyncResult(link, name)
        link.outbox.submit(placement, digest, dump_call(args, kwargs), result)
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
        f, placement = self._placed(link, f)
        digest, name = digest_of(link, f)
        result = MapResult(link, f"map {name}", ordered=ordered, return_exceptions=return_exceptions)
        base = 0
        for piece in pieces:
            count = columns.length(piece)
            result.expect(count)
            submit_columns(link.outbox, placement, digest, piece, Part(result, count, base))
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
        f, placement = self._placed(link, f)
        digest, name = digest_of(link, f)
        result = GroupResult(link, name, list(range(n)), lambda values: join(values, layout))
        for base in range(n):
            body = dump_call(tuple(parts[base] for parts, _ in divided), {})
            link.outbox.submit_each(placement, digest, body, Part(result, 1, base))
        return result

    def register_joblib_backend(self, name: str = "hpc", make_default: bool = False) -> None:
        """Have ``joblib.parallel_config(backend=name)`` use the engines of this view."""
        from hpc.client.joblib import register

        register(name, self, make_default)

    # ------------------------------------------------------------ control

    def abort(self, results: AsyncResult | Iterable[AsyncResult] | None = None) -> None:
        """End tasks that no engine has begun: those of the given results, by default all load-balanced ones."""
        self._rc._abort(results, None)
