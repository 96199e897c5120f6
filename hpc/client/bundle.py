"""Bundles that are under way: what a run of tasks that travels as one unit hands its results to.

A bundle is registered before it is sent. ``deliver`` is called under the lock of the link and may be called twice for
the same tasks (after an interrupted receive the controller sends again): the second time changes nothing.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from hpc.client.outcome import Loss, Reply
from hpc.wire import codec
from hpc.wire import messages as m
from hpc.wire.session import Frame

if TYPE_CHECKING:
    from hpc.client.asyncresult import AsyncResult
    from hpc.dataplane.handover import HandOver
    from hpc.transport.parcels import Lent

# A bundle of single tasks is full at so many, so that the controller may send its body to several engines cheaply.
MAX_TASKS = 128
MAX_NBYTES = 128 * 1024


class Placement:
    """Where the tasks of a view may run. One object for each setting of a view: bundles form where it is the same."""

    __slots__ = ("eligible", "options", "route", "targets")

    def __init__(
        self,
        targets: list[int] | None,
        options: m.Options | None = None,
        eligible: list[int] | None = None,
        route: str | None = None,
    ) -> None:
        self.targets = targets
        self.options = options
        self.eligible = eligible
        self.route = route

    def __repr__(self) -> str:
        where = "load-balanced" if self.targets is None else f"on {self.targets}"
        return f"<Placement {where}, {self.options}, eligible {self.eligible}>"

    def concerns(self, targets: list[int] | None) -> bool:
        """Say whether its tasks belong to a view of these targets (None: load-balanced)."""
        if self.targets is None or targets is None:
            return self.targets is None and targets is None
        return not set(self.targets).isdisjoint(targets)


class Mark:
    """When the message of a bundle has number ``seq``, its memory is the user's again once that is acknowledged.

    What was ``lent`` besides has to be released, too. With ``copied`` it is the user's again once `finish` has
    returned. ``route`` is the way that the data takes, all ``nbytes`` of it.
    """

    __slots__ = ("_hand_over", "copied", "lent", "nbytes", "route", "seq")

    def __init__(self, route: str = "inline", copied: bool = False, hand_over: "HandOver | None" = None) -> None:
        self.seq = self.nbytes = 0
        self.route, self.copied, self._hand_over = route, copied, hand_over
        self.lent: Lent | None = None

    @property
    def parcels(self) -> list[m.Label]:
        """What the message says of the frames that stay here."""
        return [] if self.lent is None else self.lent.table

    def finish(self) -> None:
        """Do the copying that was put off until the message is on its way."""
        hand_over, self._hand_over = self._hand_over, None
        if hand_over is not None:
            hand_over.finish()

    def is_free(self, acknowledged: int) -> bool:
        """Say whether the memory is the user's again, when so much has been acknowledged."""
        return self.copied or (0 < self.seq <= acknowledged and not (self.lent and self.lent.left))


class Taker(Protocol):
    """What takes the results of several tasks."""

    def register(self, first: int, count: int, when: float, mark: Mark | None) -> None:
        """Note tasks of it that are about to be sent."""
        ...

    def take(self, start: int, stop: int, outcome: Reply | Loss, index: int) -> int:
        """Take tasks [start, stop), which ended as ``outcome``, from its index on; return how many are new."""
        ...

    def hear(self, task: int, number: int, stream: str, text: str) -> None:
        """Take a piece of output."""
        ...

    def heard(self, task: int) -> int:
        """Return how many pieces of output came."""
        ...

    def stall(self, error: BaseException | None) -> None:
        """Take note that tasks of it cannot end by themselves, or, with None, that they can after all."""
        ...


class Bundle(ABC):
    """Base of both: tasks ``first`` to ``first + count - 1``, of which ``left`` have not ended."""

    __slots__ = ("count", "first", "forced", "left", "placement", "weight")

    def __init__(self, first: int, count: int, placement: Placement) -> None:
        self.first, self.count, self.left, self.placement = first, count, count, placement
        self.forced: frozenset[int] = frozenset()  # which tasks are to end, whatever they do
        self.weight = 0  # of the client's credit; see `hpc.client.credit`

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.first}+{self.count}, {self.left} left>"

    @abstractmethod
    def deliver(self, start: int, stop: int, outcome: Reply | Loss, index: int) -> None:
        """Hand over how tasks [start, stop) ended."""

    @abstractmethod
    def hear(self, offset: int, number: int, stream: str, text: str) -> None:
        """Hand over a piece of output."""

    @abstractmethod
    def heard(self, offset: int) -> int:
        """Return how many pieces of output of a task came."""

    def stall(self, error: BaseException | None) -> None:  # noqa: B027 - not everybody has somebody to tell
        """Hand over why tasks cannot end by themselves."""


class CallsBundle(Bundle):
    """Single tasks that are sent together; each has its own result. It grows until `close`."""

    __slots__ = ("frames", "functions", "mark", "nbytes", "results", "submitted", "tasks")

    def __init__(self, first: int, placement: Placement, submitted: float) -> None:
        super().__init__(first, 0, placement)
        self.submitted = submitted
        self.functions: list[bytes] = []
        self.tasks: list[tuple[tuple[int, int, Any], AsyncResult]] = []
        self.results: list[AsyncResult] = []
        self.frames: list[Frame] = []
        self.nbytes = 0
        self.mark: Mark | None = None

    def add(self, digest: bytes, body: list[Frame], result: "AsyncResult") -> None:
        """Append a task."""
        functions = self.functions
        try:
            index = functions.index(digest)
        except ValueError:
            index = len(functions)
            functions.append(digest)
        payload = body[0]
        self.nbytes += len(payload)
        # One call: a signal cannot leave a call without its result behind, which would shift all that follow.
        self.tasks.append(((index, len(body) - 1, payload), result))

    def close(self) -> tuple[m.Submit, list[Frame], Mark | None]:
        """Return the message and its body; no task may be added any more. May be called again."""
        place = self.placement
        self.results = [result for _, result in self.tasks]
        self.count = self.left = len(self.tasks)
        submit = m.Submit(
            self.first,
            self.count,
            m.Kind.CALLS,
            self.functions,
            place.targets,
            self.submitted,
            place.options,
            place.eligible,
            place.route or "",
            parcels=[] if self.mark is None else self.mark.parcels,
        )
        body = codec.encode_calls([call for call, _ in self.tasks])
        return submit, [body, *self.frames], self.mark

    def deliver(self, start: int, stop: int, outcome: Reply | Loss, index: int) -> None:
        """Hand over how tasks [start, stop) ended."""
        for result in self.results[start:stop]:
            result._settle(outcome, index)
            index += 1
        if stop - start == len(self.results):
            self.left = 0
        else:
            self.left -= stop - start
            if self.left <= 0 or stop > len(self.results):  # some may have come twice
                self.left = sum(not result.done() for result in self.results)
        if not self.left:
            self.tasks = []

    def hear(self, offset: int, number: int, stream: str, text: str) -> None:
        """Hand over a piece of output."""
        self.results[offset].hear(0, number, stream, text)

    def heard(self, offset: int) -> int:
        """Return how many pieces of output of a task came."""
        return self.results[offset].heard(0)

    def stall(self, error: BaseException | None) -> None:
        """Hand over why tasks cannot end by themselves."""
        for result in self.results:
            result.stall(error)


class Part(NamedTuple):
    """Which tasks of a result a bundle is about: ``size`` of them, from ``base`` on."""

    taker: Taker
    size: int
    base: int = 0


class PartBundle(Bundle):
    """Tasks that are part of one result."""

    __slots__ = ("base", "taker")

    def __init__(self, first: int, placement: Placement, part: Part) -> None:
        super().__init__(first, part.size, placement)
        self.taker, self.base = part.taker, part.base

    def deliver(self, start: int, stop: int, outcome: Reply | Loss, index: int) -> None:
        """Hand over how tasks [start, stop) ended."""
        self.left -= self.taker.take(self.base + start, self.base + stop, outcome, index)

    def hear(self, offset: int, number: int, stream: str, text: str) -> None:
        """Hand over a piece of output."""
        self.taker.hear(self.base + offset, number, stream, text)

    def heard(self, offset: int) -> int:
        """Return how many pieces of output of a task came."""
        return self.taker.heard(self.base + offset)

    def stall(self, error: BaseException | None) -> None:
        """Hand over why tasks cannot end by themselves."""
        self.taker.stall(error)
