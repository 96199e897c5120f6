"""The engine's second thread: responsive while user code runs in the main one."""

import logging
import math
import os
import select
import signal
import threading
import time
from typing import Final

from hpc.engine.channel import Channel, RefusedError
from hpc.engine.departure import Departure, Step
from hpc.engine.interrupts import REPEAT_S, Bell
from hpc.engine.results import own, pack_value, transmission
from hpc.engine.workplace import Workplace
from hpc.errors import ConnectError, ProtocolError
from hpc.transport import Disconnected
from hpc.wire.messages import Goodbye, Hold, Interrupt, Look, Message, Notice, Output, Revoke, Stop, Welcome

# Results of quick tasks that wait behind a slow one leave after this many times the time that they are held anyway.
FLUSH_FACTOR: Final = 2.0
# Text of a task is sent while the task runs if it takes longer than this, and then this often.
STREAM_S: Final = 0.05
LONGEST_LOOK_S: Final = 0.1
# poll() cannot wait for months, and the clock may be set meanwhile.
LONGEST_REST_S: Final = 60.0
# After the last activity the thread looks once more before it sleeps without a time-out: the next bundle is spared a
# wake-up while bundles keep coming.
LINGER_S: Final = 0.002
# User code has this long to unwind before the process ends under it.
GRACE_S: Final = 2.0
# So much that the controller has not acknowledged may be under way; it acknowledges at least every 4 MiB.
OUTPUT_NBYTES: Final = 8 * 1024 * 1024
NUDGE_S: Final = 0.1
# Results that were not fetched yet may delay the end by this.
FETCH_S: Final = 2.0

log = logging.getLogger("hpc.engine")


class Control(threading.Thread):
    """Owns the control channel: revokes, interrupts, stops, output; sends results that a slow task delays."""

    def __init__(
        self, channel: Channel, work: Channel, place: Workplace, bell: Bell, *, departure: Departure, lease_s: float
    ) -> None:
        super().__init__(name="hpc-control", daemon=True)
        self.refusal: RefusedError | None = None
        self._channel = channel
        self._work = work
        self._place = place
        self._bell = bell
        self._departure = departure
        self._lease_s = lease_s
        self._alone_since = 0.0  # monotonic; 0 while the controller is there
        self._retry_at = 0.0
        self._streamed_at = 0.0
        self._runs = 0
        self._goodbye_at = 0.0
        self._released = False
        self._fetched_by = 0.0
        self._kept_back: set[int] = set()  # clients that do not take what is printed for them

    def __repr__(self) -> str:
        return f"<Control {self._channel!r}>"

    def release(self, timeout_s: float, farewell_said: bool = False) -> None:
        """Let the thread end; it says goodbye first if that is still to be done. For the main thread."""
        if farewell_said:
            self._goodbye_at = self._goodbye_at or time.monotonic()
        self._released = True
        self._bell.ring()
        self.join(timeout_s)

    def run(self) -> None:
        """Serve until released; the process ends if the main thread does not get there in time."""
        try:
            self._serve()
        except RefusedError as error:
            self.refusal = error
            self._place.interrupts.leave(str(error))
        except Exception as error:
            log.exception("the control thread fails")
            self._place.interrupts.leave(f"the control thread failed: {error!r}")
        while not self._done():
            self._leave()
            self._wait(NUDGE_S)
        self._channel.drop()

    def _serve(self) -> None:
        interrupts, departure = self._place.interrupts, self._departure
        if departure.of_scheduler:
            interrupts.notices = (*interrupts.notices, signal.SIGTERM)
        elif self._place.namespace.identity.size > 1 and not departure.of_script:
            interrupts.notices = ()  # with SIGUSR1 MPICH tells ranks that another one has died
        while self._is_needed() or self._is_wanted():
            self._wait(NUDGE_S if interrupts.leaving else self._timeout_s())
            self._receive()
            if interrupts.pending:
                interrupts.repeat()
            self._watch_time()
            self._serve_main_thread()

    def _is_needed(self) -> bool:
        """Say whether the engine works on: after a notice the main thread has time for hooks, and says goodbye."""
        if self._released:
            return False
        departure = self._departure
        return not self._place.interrupts.leaving or (departure.given and departure.step is not Step.OVER)

    def _is_wanted(self) -> bool:
        """Say whether results are still being fetched, which an engine that leaves gives a short time."""
        if self._channel.parcels.shelf.is_read() or self._channel.connection is None:
            return False
        self._fetched_by = self._fetched_by or time.monotonic() + FETCH_S
        return time.monotonic() < self._fetched_by

    # ------------------------------------------------------------ waiting

    def _wait(self, timeout_s: float | None) -> None:
        poll, connection = select.poll(), self._channel.connection
        poll.register(self._bell.fd, select.POLLIN)
        if connection is not None and not self._goodbye_at:  # nobody reads after the goodbye
            if connection.pending():
                timeout_s = 0
            poll.register(connection.fileno(), select.POLLIN)
        ready = poll.poll(None if timeout_s is None else timeout_s * 1000)
        if any(fd == self._bell.fd for fd, _ in ready):
            # Python's own handlers wait until the main thread is back from C, which may never be.
            heard = self._bell.hush()
            for signum in self._place.interrupts.notices:
                if signum in heard:
                    self._departure.signalled(signum, time.time())
            if signal.SIGTERM in heard and signal.SIGTERM not in self._place.interrupts.notices:
                self._place.interrupts.leave("SIGTERM")

    def _timeout_s(self) -> float | None:
        """Return when the next thing is due, and note for the main thread whether it has to ring the bell before."""
        ledger, capture, now = self._place.ledger, self._place.capture, time.time()
        due, flush_s = [], FLUSH_FACTOR * ledger.hold_s
        with ledger.lock:
            if ledger.held:
                due.append(ledger.held_since + flush_s - now)
            if ledger.slice is not None and not ledger.slice.stuck:
                # Items that turn out to take seconds need no look every millisecond.
                age_s = max(0.0, now - ledger.slice.started)
                due.append(flush_s - age_s if age_s < flush_s else min(age_s / 4, LONGEST_LOOK_S))
            if ledger.limit_s:
                # After that the task has been interrupted, and this is a look at whether another one runs.
                due.append(max(ledger.running_since + ledger.limit_s - now, REPEAT_S if self._is_overdue(now) else 0.0))
            ledger.listening = bool(capture) and capture.active and self._may_stream()
            if ledger.listening:
                due.append(
                    max(ledger.running_since, self._streamed_at) + STREAM_S - now if not capture.crowded else 0.0
                )
            if not due and ledger.runs != self._runs:
                due.append(LINGER_S)
            # A limit, or text, may be due much later than a result that is held from now on.
            ledger.armed = bool(due) and min(due) <= flush_s
            self._runs = ledger.runs
        if self._departure.end < math.inf and self._departure.step is not Step.OVER:
            due.append(min(self._departure.wait_s(now), LONGEST_REST_S))
        if self._place.interrupts.pending:
            due.append(REPEAT_S)
        if self._channel.connection is None:
            due.append(self._retry_at - time.monotonic())
        elif self._channel.connection.route == "tcp":
            due.append(self._lease_s / 4)  # nothing else says that such a connection has come back
        # Never quite 0: what is overdue now and could not be done needs the main thread to go on first.
        return max(0.0005, min(due)) if due else None

    # ------------------------------------------------------------ the controller

    def _receive(self) -> None:
        channel = self._channel
        if channel.connection is None:
            self._dial()
        while channel.connection is not None:
            try:
                frames = channel.connection.recv_nowait()
            except (Disconnected, ProtocolError) as error:
                log.debug("%s", error)
                channel.drop()
                break
            if frames is None:
                break
            message = channel.take(frames)
            if message is not None:
                self._handle(message)
        self._watch_lease()

    def _dial(self) -> None:
        if time.monotonic() < self._retry_at or self._place.interrupts.leaving:
            return
        try:
            self._channel.dial()
        except ConnectError as error:
            log.debug("%s", error)
        self._retry_at = time.monotonic() + self._channel.delay_s()

    def _watch_lease(self) -> None:
        connection, now = self._channel.connection, time.monotonic()
        if connection is not None and connection.connected:
            self._alone_since = 0.0
        elif not self._alone_since:
            self._alone_since = now
        elif now - self._alone_since > self._lease_s:
            self._place.interrupts.leave(f"no controller for {self._lease_s:g} s")

    def _handle(self, message: Message) -> None:
        if type(message) is Revoke:
            self._revoke(message)
        elif type(message) is Hold:
            (self._kept_back.add if message.on else self._kept_back.discard)(message.client)
        elif type(message) is Welcome and not message.resumed:
            self._kept_back.clear()  # a controller that was started anew knows of nothing
        elif type(message) is Interrupt:
            self._interrupt(message)
        elif type(message) is Look:
            self._place.lookout.answer(message, self._place, self._channel.send)
        elif type(message) is Stop:
            self._departure.cut_short()  # the Stop that ends a departure in peace comes over the work channel
            self._place.interrupts.leave(message.reason)
        elif type(message) is Goodbye:
            self._place.interrupts.leave(f"the controller has left: {message.reason}")

    def _interrupt(self, interrupt: Interrupt) -> None:
        ledger, key = self._place.ledger, (interrupt.client, interrupt.first)

        def is_meant() -> bool:
            return ledger.key == key and interrupt.start <= ledger.begun_last() < interrupt.stop

        self._place.interrupts.interrupt_task(is_meant if interrupt.first else None)

    def _revoke(self, revoke: Revoke) -> None:
        ledger, work = self._place.ledger, self._work
        # The answer must not be overtaken by results of tasks beyond the gap: it goes the same way, before them.
        if ledger.goes_on_after(revoke) and work.lock.acquire(timeout=LONGEST_LOOK_S):
            try:
                work.send(ledger.revoke(revoke))
            finally:
                work.lock.release()
        else:
            self._channel.send(ledger.revoke(revoke))

    # ------------------------------------------------------------ the end of the allocation

    def _watch_time(self) -> None:
        departure = self._departure
        if departure.end == math.inf:
            return
        while step := departure.next(time.time()):
            if step is Step.NOTICE:
                log.info("the allocation ends in %.0f s, no new work from now on", departure.end - time.time())
                self._channel.send(Notice(departure.why))
            elif step is Step.LAST_CALL:
                # What runs is interrupted, and not reported as failed: it is the time that is up.
                self._place.ledger.close()
                self._place.interrupts.leave(str(departure))
            else:
                self._place.interrupts.leave(str(departure))

    # ------------------------------------------------------------ the main thread

    def _serve_main_thread(self) -> None:
        ledger, now = self._place.ledger, time.time()
        flush_s = FLUSH_FACTOR * ledger.hold_s
        self._stream(now)
        if self._is_overdue(now):
            self._place.interrupts.expire(ledger.running_since)
        part = ledger.slice
        if part is not None and not 0 <= now - part.started < flush_s:
            ledger.hold_begun(now, _pack)
        if ledger.held and not 0 <= now - ledger.held_since < flush_s:
            self._flush()

    def _is_overdue(self, now: float) -> bool:
        ledger = self._place.ledger
        return 0 < ledger.limit_s <= now - ledger.running_since

    def _flush(self) -> None:
        """Send held results over the work channel, if the main thread is in user code, away from it.

        Over the control channel they could overtake others of the same bundle, or be overtaken.
        """
        if not self._work.lock.acquire(blocking=False):
            return
        try:
            for segment in self._place.ledger.take():
                self._work.send(*transmission(segment))
        finally:
            self._work.lock.release()

    def _may_stream(self) -> bool:
        """Say whether what the running task prints may be sent; until then it waits for that, in `Capture.write`."""
        key = self._place.ledger.key
        if self._channel.peer.session.kept_nbytes > OUTPUT_NBYTES:
            return False
        return key is None or key[0] not in self._kept_back

    def _stream(self, now: float) -> None:
        ledger, capture = self._place.ledger, self._place.capture
        if not capture or not self._may_stream():
            return
        with ledger.lock:
            since = max(ledger.running_since, self._streamed_at)
            if ledger.key is None or (0 <= now - since < STREAM_S and not capture.crowded):
                return
            key, offset, number = ledger.key, ledger.running, ledger.streamed
            pieces = capture.take()
            ledger.streamed += len(pieces)
        self._streamed_at = now
        for n, (stream, text) in enumerate(pieces, number):
            self._channel.send(Output(*key, offset, n, stream, text))

    # ------------------------------------------------------------ the end

    def _done(self) -> bool:
        return self._released and (bool(self._goodbye_at) or not self._place.interrupts.leaving)

    def _leave(self) -> None:
        """Say goodbye, then see that the main thread leaves."""
        interrupts, now = self._place.interrupts, time.monotonic()
        if not self._goodbye_at:
            self._goodbye_at = now
            self._place.ledger.close()
            log.info("leaving: %s", interrupts.leaving)
            self._channel.send(self._departure.goodbye(interrupts.leaving))
        elif now > self._goodbye_at + GRACE_S:
            log.warning("user code does not end within %g s, ending the process under it", GRACE_S)
            logging.shutdown()
            os._exit(0)
        else:
            interrupts.leave(interrupts.leaving)  # the first nudge may have come just before the system call


def _pack(values: object) -> tuple[bytes, list[object]]:
    payload, buffers = pack_value(values)
    return payload, own(buffers)
