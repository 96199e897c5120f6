"""Who receives: no hand-over between threads where somebody waits.

One thread at a time has the *role of the receiver*. The background thread has it while nobody waits for anything. A
thread that waits takes it: it removes the connection from the set of descriptors that the background thread watches,
polls the connection itself, and puts it back when it leaves; the set is level-triggered, so nothing is lost in between.
Other threads that wait park until their result is there or the role is free.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from hpc.client.background import Background, remember
from hpc.client.bundle import Placement
from hpc.client.inbox import Request
from hpc.client.line import Connection, Line
from hpc.client.roster import log
from hpc.client.waiting import Parker
from hpc.errors import ConnectError, HpcError
from hpc.wire import messages as m
from hpc.wire.session import Peer

# One who waits sooner after another than this takes the connection from there, not from the background thread.
STREAK_S = 0.001
# How long the controller may take from the connection to the list of its engines.
WELCOME_S = 20.0
# How long data that engines are still fetching may keep a client from closing.
FAREWELL_S = 2.0
# Who submits and has waited so long for earlier tasks to end is told why.
CREDIT_WARNING_S = 10.0
# Nobody is fetching any more if nobody has asked for so long.
PAUSE_S = 0.1


class Link(Line):
    """A client's line to its controller, with waiting, requests and a background thread.

    Parameters
    ----------
    opener : callable
        Called with a time limit in seconds; returns a connection or raises `ConnectError`.
    peer : Peer
        This client's half of the session.
    reconnect_s : float
        How long to try to get a lost connection back before everything under way ends with `ConnectError`.

    Attributes
    ----------
    fault : Exception or None
        Why the link is over for good.
    condition : threading.Condition
        What `concurrent.futures` wants of a future. All results of a link share it; nothing is ever notified.
    """

    def __init__(self, opener: Callable[[float], Connection], peer: Peer, reconnect_s: float = 30.0) -> None:
        super().__init__(peer, self.end)
        self.condition = threading.Condition(self.lock)
        self.fault: BaseException | None = None
        self.opener = opener
        self.reconnect_s = reconnect_s
        self.pid = os.getpid()
        self.orphaned = False
        self.abandoned = False
        self._parked: list[Parker] = []
        self._left = 0.0
        self._requests = 0
        self._placements: dict[int, Placement] = {}
        self._background: Background | None = None
        self._starting = threading.Lock()
        self.inbox.credit.patience = self._wait_for_credit
        remember(self)

    def __repr__(self) -> str:
        return super().__repr__() if self.fault is None else f"<Link over: {self.fault}>"

    # ------------------------------------------------------------ life

    def start(self, timeout_s: float) -> None:
        """Connect, unless it is done, and wait for the list of the engines. Raises `ConnectError`."""
        with self._starting:
            if self._background is None and self.fault is None:
                self.adopt(self.opener(timeout_s))
                self._background = Background(self)
        if not self.wait(lambda: self.roster.known, WELCOME_S):
            fault = ConnectError(f"the controller took the connection and then said nothing for {WELCOME_S:g} s")
            self.end(fault)
            raise fault

    @property
    def ready(self) -> bool:
        """Whether the link has been connected and is not over."""
        return self.roster.known and self.fault is None

    @property
    def route(self) -> str:
        """How the connection goes: ``unix``, ``tcp``, or ``''`` while there is none."""
        conn = self.conn
        return conn.route if conn is not None else ""

    def close(self) -> None:
        """Say goodbye and end everything that is under way."""
        if self.fault is None and self.peer.connected:
            self._see_off()
            self.outbox.put(m.Goodbye("the client closed"))
            self.outbox.flush()
        self.end(ConnectError("this client was closed"))
        if self._background is not None:
            self._background.join()

    def _see_off(self) -> None:
        """Let engines fetch what they are fetching, for a short time."""
        shelf, until = self.parcels.shelf, time.monotonic() + FAREWELL_S
        with contextlib.suppress(HpcError):
            while len(shelf) and time.monotonic() < until:
                before = shelf.n_served
                self.wait(lambda: not len(shelf), PAUSE_S)
                if shelf.is_read() and shelf.n_served == before:
                    return

    def end(self, fault: BaseException) -> None:
        """End everything that is under way, for good."""
        with self.lock:
            if self.fault is not None:
                return
            self.outbox.fault = self.fault = fault
            self.inbox.end_all(fault)
        self.interrupt.ring()
        self.wake.ring()
        self.startle()

    def wait_for_end(self, timeout_s: float) -> None:
        """Wait for the goodbye of the controller; end the link without it when the time is over."""
        try:
            self.wait(lambda: False, timeout_s)
        except ConnectError:
            return
        self.end(ConnectError("the cluster was shut down"))

    def abandon(self) -> None:
        """Have it closed when nothing is under way any more: nobody holds the controller object. Takes no lock."""
        self.abandoned = True
        self.wake.ring()

    def cut_off(self) -> None:
        """Give up, in a forked child, what belongs to the parent process, without a byte going out."""
        self.orphaned = True
        self.lock = self.outbox.lock = threading.RLock()
        self.condition = threading.Condition(self.lock)
        self.outbox.sending, self._starting = threading.Lock(), threading.Lock()
        self.receiver = 0
        self.conn = None  # the transport has closed this process's copy of it
        self.outbox.fault = self.fault = ConnectError(
            f"this belongs to a connection of the parent process {self.pid}, which does not reach into a forked child"
        )
        self.inbox.end_all(self.fault)
        self.inbox.calls.clear()

    # ------------------------------------------------------------ asking

    def request(self, make: Callable[[int], m.Message], timeout_s: float | None = None) -> Any:
        """Ask the controller something and return the value of its answer; raises what is wrong with the question."""
        with self.lock:
            if self.fault is not None:
                raise self.fault
            self._requests += 1
            request = self.inbox.requests[self._requests] = Request(self._requests)
        self.outbox.put(make(request.number))
        if not self.wait(lambda: request.done, timeout_s):
            self.inbox.requests.pop(request.number, None)
            raise TimeoutError(f"the controller did not answer within {timeout_s} s")
        if request.error:
            if self.fault is not None:
                raise self.fault
            raise HpcError(request.error)
        return request.value

    def placement(self, target: int) -> Placement:
        """Return the one placement on an engine: tasks that share it may travel together."""
        try:
            return self._placements[target]
        except KeyError:
            return self._placements.setdefault(target, Placement([target]))

    def order(self, message: m.Message) -> None:
        """Tell the controller something that has no answer, at once."""
        if self.fault is not None:
            raise self.fault
        self.outbox.put(message)
        self.outbox.flush()

    def _wait_for_credit(self, is_free: Callable[[], bool]) -> None:
        if self.receiver == threading.get_ident():
            return  # in a callback: for each task that it submits one has ended
        if not self.wait(is_free, CREDIT_WARNING_S):
            credit = self.inbox.credit
            log.warning(
                "submitting waits until tasks end: those under way fill %d of the %d bytes that this client may have at"
                " the controller",
                credit.used,
                credit.nbytes,
            )
            self.wait(is_free)

    # ------------------------------------------------------------ waiting

    def wait(self, done: Callable[[], Any], timeout_s: float | None = None, waiters: list[Any] | None = None) -> bool:
        """Wait until ``done()`` is true; receive meanwhile, unless another thread does. False after the timeout.

        With ``waiters``, the waiter list of a future, a parked thread wakes for that future only; without it for
        everything that comes in. Raises the fault when the link ends and ``done()`` is still false.
        """
        self.outbox.flush()
        if done():
            return True
        deadline = None if timeout_s is None or timeout_s < 0 else time.monotonic() + timeout_s
        me = threading.get_ident()
        if self.receiver == me:  # called from a callback
            return self._receive_until(done, deadline) or self._verdict(done)
        mine = False
        while True:
            try:
                with self.lock:
                    if self.receiver == 0 and self.conn is not None:
                        self.receiver = me
                        mine = True
                if mine:
                    if not self.lent:
                        self.watch.remove(self.fd)
                    self._receive_until(done, deadline)
                else:
                    self._park(done, deadline, waiters)
            finally:
                if mine:
                    self.receiver = 0
                    mine = False
                    try:
                        self.leave()
                    except BaseException:
                        self.leave()  # it must be done, whatever strikes; doing it twice does no harm
                        raise
            if self._verdict(done):
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False

    def _verdict(self, done: Callable[[], Any]) -> bool:
        if done():
            return True
        if self.fault is not None:
            raise self.fault
        return False

    def leave(self) -> None:
        """Give the connection back to the background thread, and the role to whoever may want it.

        Who calls one task after the other would have to take it away again at once; and if the answer came before that,
        the background thread would wake for nothing. So in a streak of waits it is left to that thread to take it.
        """
        with self.lock:  # under which a connection is closed, too: what is watched is one that is open
            if self.conn is not None:
                now = time.monotonic()
                if not self.lent:
                    if now - self._left < STREAK_S:
                        self.lent = True
                        self.wake.ring()
                    else:
                        self.watch.add(self.fd)
                self._left = now
        self.pass_on()

    def reclaim(self) -> None:
        """Watch the connection again if the streak is over; for the background thread."""
        with self.lock:
            if self.lent and time.monotonic() - self._left >= STREAK_S:
                self.lent = False
                if self.conn is not None and not self.receiver:  # a receiver gives it back when it leaves
                    self.watch.add(self.fd)

    def pass_on(self) -> None:
        """Wake a thread that waits, to take the role; the background thread if there is something for it to do."""
        if self.conn is None or self.restless() or (self.abandoned and not self.inbox.bundles):
            self.wake.ring()
            if self.receiver:  # another thread has the role already, and `restless` may have swallowed its sign
                self.interrupt.ring()
        if self._parked:
            self.wake_parked(1)

    def _park(self, done: Callable[[], Any], deadline: float | None, waiters: list[Any] | None) -> None:
        parker = Parker()
        try:
            with self.lock:
                if done() or self.fault is not None:
                    return
                self._parked.append(parker)
                (self.curious if waiters is None else waiters).append(parker)
            parker.wait(None if deadline is None else deadline - time.monotonic())
        finally:
            with self.lock:
                for places in (self._parked, waiters, self.curious):
                    if places is not None and parker in places:
                        places.remove(parker)

    def wake_parked(self, n: int | None = None) -> None:
        """Let parked threads look again: all of them, or ``n``, one of which may take the role."""
        with self.lock:
            n = len(self._parked) if n is None else n
            parked, self._parked = self._parked[:n], self._parked[n:]
        for parker in parked:
            parker.wake()

    def startle(self) -> None:
        """Let all waiting threads look again."""
        super().startle()
        self.wake_parked()

    def _receive_until(self, done: Callable[[], Any], deadline: float | None) -> bool:
        """Receive until ``done()``, the deadline, or the loss of the connection. The caller has the role."""
        # Asked before the first poll, too: who had the role until now may have taken in all that there was to come.
        while not done():
            conn = self.conn
            if conn is None or self.fault is not None:
                return False
            timeout_ms = None if deadline is None else max(0, int((deadline - time.monotonic()) * 1000 + 1))
            if not self.poll(conn, timeout_ms):
                return False
            self.step(conn)
        return True
