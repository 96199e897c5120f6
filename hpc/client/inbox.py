"""What comes in, sorted: results to their bundles, engines to the roster, answers to who asked.

No I/O and no locks of its own: the thread that receives calls it under the lock of the link.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hpc.client.bundle import Bundle
from hpc.client.credit import Credit
from hpc.client.outcome import (
    Loss,
    Outcome,
    Reply,
    broken_off,
    cancelled_while_running,
    loss_of,
    lost_engine,
    malformed,
    stall_of,
    was_forced,
)
from hpc.client.roster import Roster, log
from hpc.errors import ConnectError, ProtocolError
from hpc.wire import messages as m
from hpc.wire.session import Frame
from hpc.wire.stacks import Stacks

# Output that has not come by then, after the result, does not hold the result up any longer.
HOLD_S = 1.0


class Request:
    """A question to the controller, and its answer."""

    __slots__ = ("done", "error", "number", "value")

    def __init__(self, number: int) -> None:
        self.number = number
        self.done = False
        self.value: Any = None
        self.error = ""

    def __repr__(self) -> str:
        return f"<Request {self.number} {'done' if self.done else 'waits'}>"


class _Held(NamedTuple):
    """Tasks that have ended while pieces of their output, which come by another way, are still to come."""

    bundle: Bundle
    start: int
    stop: int
    reply: Reply

    def is_complete(self) -> bool:
        """Say whether all of the output is there."""
        due = sum(entry.n_outputs for entry in self.reply.entries)
        return due <= sum(self.bundle.heard(offset) for offset in range(self.start, self.stop))


class Inbox:
    """Who waits for what.

    Attributes
    ----------
    bundles : dict of int to Bundle
        Bundles with unfinished tasks, by the number of their first task.
    calls : deque
        Callbacks to be run, by whoever has just received, outside of the lock.
    """

    def __init__(self, roster: Roster) -> None:
        self.roster = roster
        self.bundles: dict[int, Bundle] = {}
        self.credit = Credit()
        self.requests: dict[int, Request] = {}
        self.calls: deque[Callable[[], object]] = deque()
        self.held: list[_Held] = []
        self.farewell: ConnectError | None = None

    def __repr__(self) -> str:
        return f"<Inbox {len(self.bundles)} bundles, {len(self.held)} tasks held, {len(self.requests)} requests>"

    def lone(self) -> bool:
        """Say whether a single task is all that is under way: somebody waits for a quick answer, perhaps."""
        if len(self.bundles) != 1:
            return False
        return all(bundle.left == 1 for bundle in tuple(self.bundles.values()))  # a copy: other threads add some

    def handle(self, message: m.Message, frames: Sequence[Frame]) -> None:
        """Take in a message that is not of the connection itself."""
        if isinstance(message, m.Delivery):
            self._delivery(message, frames)
        elif isinstance(message, m.Ended):
            self._ended(message)
        elif isinstance(message, m.Engines):
            self._engines(message)
        elif isinstance(message, m.Stalled):
            self._stalled(message)
        elif isinstance(message, m.Output):
            self._output(message)
        elif isinstance(message, m.Answer):
            request = self.requests.get(message.request)
            if request is not None:
                request.value, request.error, request.done = message.value, message.error, True
                self.requests.pop(message.request, None)
        elif isinstance(message, m.Credit):
            self.credit.nbytes = message.nbytes
        elif isinstance(message, m.Goodbye):
            self.farewell = ConnectError(
                f"the cluster was ended ({message.reason})" if message.reason else "the cluster was ended"
            )

    def _delivery(self, message: m.Delivery, frames: Sequence[Frame]) -> None:
        now = time.time()
        position = 1
        for item in message.items:
            body = frames[position : position + item.n_frames]
            position += item.n_frames
            bundle = self.bundles.get(item.first)
            if bundle is None:
                continue
            outcome: Outcome
            try:
                outcome = Reply(self.roster, item.engine, item.packed, body, now)
                if not outcome.covers(item.stop - item.start):
                    raise ProtocolError(f"{item.stop - item.start} results were announced")
            except (ProtocolError, IndexError) as error:
                outcome = malformed(item.engine, error, now)
            if isinstance(outcome, Reply) and outcome.talked():
                held = _Held(bundle, item.start, item.stop, outcome)
                if not held.is_complete() and item.engine in self.roster.engines:
                    self.held.append(held)
                    continue
            self._deliver(bundle, item.start, item.stop, outcome)

    def _deliver(self, bundle: Bundle, start: int, stop: int, outcome: Outcome) -> None:
        if bundle.forced:
            for offset in range(start, stop):
                forced = offset in bundle.forced and was_forced(outcome, offset - start)
                one = cancelled_while_running(outcome) if forced else outcome
                bundle.deliver(offset, offset + 1, one, 0 if forced else offset - start)
        else:
            bundle.deliver(start, stop, outcome, 0)
        self._forget_if_done(bundle)

    def _output(self, message: m.Output) -> None:
        bundle = self.bundles.get(message.first)
        if bundle is None or not 0 <= message.offset < bundle.count:
            return
        bundle.hear(message.offset, message.number, message.stream, message.text)
        if self.held:
            self.release(lambda held: held.bundle is bundle and held.is_complete())

    def _stalled(self, message: m.Stalled) -> None:
        bundle = self.bundles.get(message.first)
        if bundle is not None:
            error = stall_of(message)
            if error is not None:
                what = Stacks(message.rows).summary
                self.calls.append(lambda: log.warning("a collective operation cannot complete: %s", what))
            bundle.stall(error)

    def release(self, due: "Callable[[_Held], bool]") -> None:
        """Deliver what was held for the sake of its output."""
        for held in self.held[:]:
            if due(held):
                self._deliver(held.bundle, held.start, held.stop, held.reply)
                self.held.remove(held)

    def release_old(self) -> None:
        """Deliver what was held too long: its output got lost on the way."""
        before = time.time() - HOLD_S
        self.release(lambda held: held.reply.received < before)

    def _ended(self, message: m.Ended) -> None:
        bundle = self.bundles.get(message.first)
        if bundle is None:
            return
        self._deliver(bundle, message.start, message.stop, loss_of(message, time.time()))

    def _engines(self, message: m.Engines) -> None:
        for end in self.roster.update(message):
            error = lost_engine(end)
            self.calls.append(lambda error=error: log.warning("%s", error))  # type: ignore[misc]
            for callback in self.roster.on_lost:
                self.calls.append(lambda callback=callback, end=end: callback(end))  # type: ignore[misc]
        self.release(lambda held: held.reply.engine not in self.roster.engines)  # no more output will come

    def _forget_if_done(self, bundle: Bundle) -> None:
        if bundle.left <= 0:
            self.bundles.pop(bundle.first, None)
            self.credit.charge(bundle, 0)

    def end_all(self, error: BaseException) -> None:
        """End everything that is under way, because the connection is over for good."""
        self.release(lambda _: True)
        loss: Loss = broken_off(error, time.time())
        for bundle in list(self.bundles.values()):
            bundle.deliver(0, bundle.count, loss, 0)
        self.bundles.clear()
        self.credit.used = 0
        for request in self.requests.values():
            request.error, request.done = str(error), True
        self.requests.clear()

    def run_calls(self) -> None:
        """Run the callbacks that became due; an exception in one is logged. Call it outside of the lock."""
        while self.calls:
            try:
                call = self.calls.popleft()
            except IndexError:
                return
            try:
                call()
            except Exception:  # whoever waits for another result must not get this, nor may the receiver end of it
                log.exception("a callback raised")
