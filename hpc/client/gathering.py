"""Gathering arrays into one buffer: the engines say what they have, then all write to their places in it at once."""

import pickle
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from hpc import partition
from hpc.client.bundle import Part, Placement
from hpc.client.calls import PULL, dump_call
from hpc.client.groupresult import GroupResult
from hpc.client.outcome import Loss
from hpc.client.parts import Layout
from hpc.client.roster import log
from hpc.dataplane import chooser
from hpc.dataplane.segments import NoSegmentError
from hpc.transport.shared import SharedFrame

if TYPE_CHECKING:
    from hpc.client.link import Link

DESCRIBE, DEPOSIT = b"!describe", b"!deposit"


class Plan(NamedTuple):
    """An array to be put together: what it is, and the index of each part in it."""

    dtype: Any
    shape: tuple[int, ...]
    order: Any  # C or F
    indexes: list[tuple[slice, ...]]


def plan(descriptions: list[Any], layout: Layout) -> Plan | None:
    """Return how parts that were described are put together; None if there is more to it than writing them down."""
    if layout.kind not in ("", "array") or layout.flatten or any(layout.flat):
        return None
    dtype, first, _ = descriptions[0]
    ndim = len(first)
    axis = layout.axis + ndim if layout.axis < 0 else layout.axis
    if not 0 <= axis < ndim:
        return None
    lengths = [shape[axis] for _, shape, _ in descriptions if len(shape) == ndim]
    others = {(*shape[:axis], *shape[axis + 1 :]) for _, shape, _ in descriptions}
    if len(lengths) < len(descriptions) or len(others) > 1 or any(each[0] != dtype for each in descriptions):
        return None
    n = sum(lengths)
    if layout.dist == "cyclic":
        if lengths != partition.counts(n, len(lengths)):
            return None
        pieces = partition.slices(n, len(lengths), "cyclic")
    else:
        stops = [sum(lengths[: i + 1]) for i in range(len(lengths))]
        pieces = [slice(stop - length, stop) for stop, length in zip(stops, lengths, strict=True)]
    order = "F" if all(fortran for _, _, fortran in descriptions) else "C"
    indexes = [partition.along(axis, ndim, piece) for piece in pieces]
    return Plan(dtype, (*first[:axis], n, *first[axis + 1 :]), order, indexes)


class GatherResult(GroupResult):
    """The parts of a name, put together.

    Large arrays are first described by the engines, then written by them into one segment of shared memory, which is
    the array that `get` returns. Anything else is fetched and handed to ``join``.
    """

    def __init__(
        self,
        link: "Link",
        targets: list[int],
        single: bool,
        *,
        name: str,
        layout: Layout,
        join: Callable[[list[Any]], Any],
        route: str | None = None,
    ) -> None:
        super().__init__(link, f"gather {name}", targets, self._assemble, single)
        self._name_there, self._layout, self._join = name, layout, join
        self._placement = Placement(targets, route=route)
        self._unpack: Callable[[Any], Any] = lambda value: value[1]
        self._plan: Plan | None = None
        self._whole: Any = None
        self._survey = GroupResult(link, f"describe {name}", targets)
        self._survey._hooks = [self._surveyed]
        body = dump_call((name, chooser.SHARED_NBYTES), {})
        link.outbox.submit_each(self._placement, DESCRIBE, body, Part(self._survey, len(targets)))
        if not self._firsts:
            self._firsts, self._submitted = self._survey._firsts, self._survey._submitted

    def _surveyed(self, survey: Any) -> None:
        """Go on when all engines have said what they have."""
        try:
            self._go_on(survey)
        except Exception as error:  # somebody waits for this result: it must end
            log.debug("gathering failed", exc_info=True)
            failure, loss = error, Loss(lambda: failure, -1, "failed", 0.0)
            with self._link.lock:
                self.take(0, len(self.targets), loss, 0)

    def _go_on(self, survey: GroupResult) -> None:
        outcomes = list(filter(None, survey._outcomes))
        failed = any(outcome.failed(index) for outcome, index in outcomes)
        answers = [] if failed else [outcome.value(index) for outcome, index in outcomes]
        if not any(ticket for ticket, _ in answers):  # errors, or the values themselves
            with self._link.lock:
                for task, (outcome, index) in enumerate(outcomes):
                    self.take(task, task + 1, outcome, index)
            return
        self._firsts = []
        if all(ticket for ticket, _ in answers) and self._may_share():
            self._plan = plan([description for _, description in answers], self._layout)
        if self._plan is not None and self._deposit(self._plan, [ticket for ticket, _ in answers]):
            return
        self._plan, self._unpack = None, lambda value: value[0]
        body = dump_call(([self._name_there],), {})
        self._link.outbox.submit_each(self._placement, PULL, body, Part(self, len(self.targets)))

    def _may_share(self) -> bool:
        forced = self._placement.route or self._link.freight.forced
        return self._link.route == "unix" and forced not in ("inline", "tcp")

    def _deposit(self, plan: Plan, tickets: list[int]) -> bool:
        """Have the engines write to one buffer; False if there is none to be had."""
        import numpy

        nbytes = plan.dtype.itemsize
        for length in plan.shape:
            nbytes *= length
        try:
            loan = self._link.freight.outgoing.pool.lend(nbytes)
        except NoSegmentError as error:
            log.warning("gathered data goes through the controller instead of shared memory: %s", error)
            return False
        raw = numpy.frombuffer(loan.view, numpy.uint8)
        handle = loan.handle(writable=True)
        # The segment is lent for as long as an array stands in it.
        weakref.finalize(raw, _let_go, loan.handle()).atexit = False
        self._whole = numpy.ndarray(plan.shape, plan.dtype, buffer=raw, order=plan.order)
        places = dict(zip(self.targets, zip(tickets, plan.indexes, strict=True), strict=True))
        target = pickle.PickleBuffer(loan.view)
        args = (target, plan.dtype, plan.shape, plan.order, places)
        payload = pickle.dumps((args, {}), 5, buffer_callback=lambda _: None)
        body: list[Any] = [payload, SharedFrame(handle, 0, nbytes)]
        self._link.outbox.submit_each(self._placement, DEPOSIT, body, Part(self, len(self.targets)))
        return True

    def _assemble(self, values: list[Any]) -> Any:
        self._combine = None  # a cycle would keep the memory until the collector comes by
        if self._plan is None:
            return self._join([self._unpack(value) for value in values])
        whole, self._whole = self._whole, None
        for index, part in zip(self._plan.indexes, values, strict=True):
            if part is not None:  # from an engine on another host
                whole[index] = part
        return whole


def _let_go(_: object) -> None:
    """Do nothing: what matters is that the argument is referred to no longer."""
