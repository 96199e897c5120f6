"""What goes out: bundles form here by themselves, and leave in the order in which they were submitted.

A task that comes alone is sent by the thread that submits it, at once. When tasks come faster than that they join an
open bundle, which leaves when the background thread gets to it, when it is full, or when somebody begins to wait.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hpc.client.bundle import MAX_NBYTES, MAX_TASKS, Bundle, CallsBundle, Mark, Part, PartBundle, Placement
from hpc.client.calls import BIND
from hpc.client.credit import BUNDLE_NBYTES, TASK_NBYTES, Credit, is_urgent, weight
from hpc.transport.meter import meter
from hpc.wire import codec
from hpc.wire import messages as m
from hpc.wire.session import Frame, Peer

if TYPE_CHECKING:
    from hpc.client.asyncresult import AsyncResult
    from hpc.wire.functions import FunctionBlob

# Tasks that follow the last transmission sooner than this, while others are under way, join a bundle.
BURST_S = 0.0005


class Outbox:
    """Messages that wait to be sent, and the open bundle.

    Parameters
    ----------
    lock : RLock
        The lock of the link; guards everything here but the sending.
    peer : Peer
        The stream that the messages join.
    transmit : callable
        Sends frames over the connection, if there is one. Called with ``sending`` held.
    mend : callable
        Has the connection made anew; the session then repeats what was packed.
    wake : callable
        Makes the background thread call `flush` soon.
    ship : callable
        Puts the large buffers of a body where they travel best, with True if every receiver looks at them once, and
        True if it waits for them before it does; returns the body to send, and its mark.
    credit : Credit
        How much may be under way.
    """

    def __init__(
        self,
        lock: Any,
        peer: Peer,
        bundles: dict[int, Bundle],
        *,
        transmit: Callable[[list[Frame]], None],
        mend: Callable[[], None],
        wake: Callable[[], None],
        ship: Callable[..., tuple[list[Frame], Mark]] = lambda body, *_: (body, Mark()),
        credit: Credit | None = None,
    ) -> None:
        self.sending = threading.Lock()
        self.peer = peer
        self.lock = lock
        self._bundles = bundles
        self._transmit = transmit
        self._mend = mend
        self._wake = wake
        self._ship = ship
        self.credit = credit or Credit()
        self._queue: deque[tuple[m.Message, Sequence[Frame], Mark | None]] = deque()
        self._open: CallsBundle | None = None
        self._defined: set[bytes] = set()
        self._next = 1
        self._last_sent = 0.0
        self.fault: BaseException | None = None  # once it is set nothing is accepted any more

    def __repr__(self) -> str:
        return f"<Outbox next task {self._next}, {len(self._queue)} messages wait, open {self._open!r}>"

    # ------------------------------------------------------------ tasks

    @property
    def next_number(self) -> int:
        """The number of the task that is submitted next."""
        return self._next

    def define(self, blob: "FunctionBlob") -> bytes:
        """Return the digest of a function; its definition goes out before the first task that needs it."""
        if blob.digest not in self._defined:
            with self.lock:
                self._close()
                self._queue.append((m.Define(blob.digest, blob.name), (blob.by_reference, blob.by_value), None))
                self._defined.add(blob.digest)
        return blob.digest

    def submit(self, placement: Placement, digest: bytes, body: list[Frame], result: "AsyncResult") -> None:
        """Submit one task. ``body`` is the pickle of (args, kwargs) and its buffers."""
        if self.credit.used > self.credit.nbytes:
            self.credit.wait()
        mark = None
        if len(body) > 1:
            nbytes = sum(map(len, body[1:]))
            body, mark = self._ship(body, placement, False, False)
            mark.nbytes = nbytes
            meter.expect(nbytes, mark.route)
        with self.lock:
            if self.fault is not None:
                raise self.fault
            number = self._next
            self._next = number + 1
            result._number = number
            bundle = self._open
            if bundle is not None and bundle.placement is placement and len(body) == 1:
                result._submitted = bundle.submitted
                bundle.add(digest, body, result)
                if len(bundle.tasks) < MAX_TASKS and bundle.nbytes < MAX_NBYTES:
                    return
                self._close()
            else:
                if bundle is not None:
                    self._close()
                now = time.time()
                bundle = CallsBundle(number, placement, now)
                result._submitted = now
                bundle.add(digest, body, result)
                if len(body) == 1 and self._bundles and time.monotonic() - self._last_sent < BURST_S:
                    self._open = self._bundles[number] = bundle
                    self._wake()
                    return
                if mark is not None:
                    bundle.frames = body[1:]
                    bundle.mark = result._mark = mark
                self._bundles[number] = self._open = bundle
                self._close()
        self._pump_and_copy(mark)

    def submit_each(
        self, placement: Placement, digest: bytes, body: list[Frame], part: Part, sources: Sequence[m.Source] = ()
    ) -> None:
        """Submit one call, that each of the targets makes. ``body`` is as for `submit`.

        ``sources`` are the engines that have objects which the arguments refer to.
        """
        call = codec.encode_calls([(0, len(body) - 1, bytes(body[0]))])
        kind = m.Kind.CALLS if part.size == 1 else m.Kind.EACH
        self._submit_part(placement, kind, digest, [call, *body[1:]], part, sources=sources)

    def submit_span(self, placement: Placement, digest: bytes, columns: list[Frame], part: Part) -> None:
        """Submit calls, the arguments of which are the items of columns."""
        self._submit_part(placement, m.Kind.SPAN, digest, columns, part)

    def _submit_part(
        self,
        placement: Placement,
        kind: m.Kind,
        digest: bytes,
        body: list[Frame],
        part: Part,
        *,
        sources: Sequence[m.Source] = (),
    ) -> None:
        if self.credit.used > self.credit.nbytes and not is_urgent(digest, body):
            self.credit.wait()
        now = time.time()
        mark = None
        if len(body) > 1:
            nbytes = sum(map(len, body[1:]))
            # A function that an engine lacks makes it ask for the whole message again; operations it never lacks.
            body, mark = self._ship(body, placement, digest[:1] == b"!", digest == BIND)
            mark.nbytes = nbytes
            meter.expect(nbytes, mark.route)
        with self.lock:
            if self.fault is not None:
                raise self.fault
            self._close()
            first = self._next
            self._next += part.size + len(sources)
            part.taker.register(first, part.size, now, mark)
            bundle = self._bundles[first] = PartBundle(first, placement, part)
            self.credit.charge(bundle, BUNDLE_NBYTES + weight(body))
            submit = m.Submit(
                first,
                part.size,
                kind,
                [digest],
                placement.targets,
                now,
                placement.options,
                placement.eligible,
                placement.route or "",
                list(sources),
                [] if mark is None else mark.parcels,
            )
            self._queue.append((submit, body, mark))
        body = []  # frames that nobody here refers to tell whether their receiver is alive
        self._pump_and_copy(mark)

    def _pump_and_copy(self, mark: Mark | None) -> None:
        """Send what is queued, and copy what was announced while it is on its way."""
        if mark is None:
            self.pump()
            return
        try:
            self.pump()
        finally:
            mark.finish()

    def _close(self) -> None:
        """Move the open bundle to the queue. Called under the lock."""
        bundle = self._open
        if bundle is None:
            return
        item = bundle.close()
        frames = item[1]
        self.credit.charge(bundle, BUNDLE_NBYTES + TASK_NBYTES * bundle.count + weight(frames))
        append = self._queue.append
        self._open = None  # no call between this line and the next: see the remark on Ctrl-C in `hpc.client.line`
        append(item)

    # ------------------------------------------------------------ sending

    def put(self, message: m.Message) -> None:
        """Append a message without a body; `flush` sends it."""
        with self.lock:
            self._close()
            self._queue.append((message, (), None))

    def flush(self) -> None:
        """Send everything that waits, the open bundle too."""
        if self._open is not None:
            with self.lock:
                self._close()
        if self._queue:
            self.pump()

    def pump(self) -> None:
        """Send what is queued, in order; messages packed while there is no connection go out when it is resumed."""
        queue, session = self._queue, self.peer.session
        while queue:
            with self.sending:
                if not queue:
                    return
                before = session.sent
                message, frames, mark = queue[0]
                try:
                    packed = self.peer.pack(message, frames)
                    queue.popleft()
                    if mark is not None:
                        mark.seq = session.sent
                    if packed is not None:
                        self._transmit(packed)
                except BaseException:
                    # Ctrl-C between any two calls above: packed is packed, and is repeated over a new connection.
                    self._mend()
                    if session.sent != before and queue and queue[0][0] is message:
                        queue.popleft()
                        if mark is not None:
                            mark.seq = session.sent
                    raise
        self._last_sent = time.monotonic()
