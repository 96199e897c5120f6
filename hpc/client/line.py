"""The connection of a client, its session, and what takes in and sends over them.

One thread at a time, the *receiver*, calls `step`, `adopt` and `drop`. Any thread may call `transmit`, with
``outbox.sending`` held.

Ctrl-C may strike between any two calls. What was half taken in is requested again: the session is set back to the last
message that was handled completely, and the connection is made anew. What was half sent is repeated in the same way.
"""

import select
import threading
from collections.abc import Callable
from typing import Any, Protocol

from hpc.client.bundle import Mark, Placement
from hpc.client.freight import Freight
from hpc.client.inbox import Inbox
from hpc.client.outbox import Outbox
from hpc.client.roster import Roster
from hpc.client.spin import Spin
from hpc.client.waiting import Parker, Waker, Watch
from hpc.errors import ConnectError, ProtocolError
from hpc.transport.parcels import TRAFFIC, Parcels
from hpc.wire import messages as m
from hpc.wire.session import Frame, GapError, Peer


class Connection(Protocol):
    """What a line needs of a connection; `hpc.transport.Connection` is one."""

    route: str
    obstacle: str

    @property
    def connected(self) -> bool:
        """Whether the other side is there, as far as is known."""

    def send(self, frames: Any) -> None:
        """Send a transmission."""

    def recv_nowait(self) -> list[Frame] | None:
        """Return a transmission if one is there."""

    def pending(self) -> bool:
        """Say whether something may be received now."""

    def fileno(self) -> int:
        """Return what to poll."""

    def close(self) -> None:
        """Close it."""


class Line:
    """A connection that may be lost and replaced, under one session.

    Parameters
    ----------
    peer : Peer
        This client's half of the session.
    end : callable
        Called with the reason when the line is over for good.

    Attributes
    ----------
    lock : RLock
        Guards all that results, bundles and engines are; never held while a thread blocks.
    watch, wake : Watch, Waker
        What the background thread waits on, and what wakes it.
    interrupt : Waker
        Wakes the receiver if it is another thread.
    lent : bool
        Whether threads that wait have the connection in turns, so quickly that it is not watched in between.
    receiver : int
        The thread that has the role of the receiver; 0 if none has.
    curious : list of Parker
        Threads that want to look again after the next message.
    """

    def __init__(self, peer: Peer, end: Callable[[BaseException], None]) -> None:
        self.peer = peer
        self.lock = threading.RLock()
        self.roster = Roster()
        self.inbox = Inbox(self.roster)
        self.wake, self.interrupt = Waker(), Waker()
        self.outbox = Outbox(
            self.lock,
            peer,
            self.inbox.bundles,
            transmit=self.transmit,
            mend=self._mend,
            wake=self.wake.ring,
            ship=self.ship,
            credit=self.inbox.credit,
        )
        self.freight = Freight()
        self.parcels = Parcels()
        self.watch = Watch()
        self.watch.add(self.wake.fileno())
        self.curious: list[Parker] = []
        self.conn: Connection | None = None
        self.fd = -1
        self._doubtful: Connection | None = None
        self._poll: Any = None
        self._spin = Spin()
        self.lent = False
        self.receiver = 0
        self._handled = 0
        self._end = end

    def __repr__(self) -> str:
        state = "down" if self.conn is None else f"up ({self.conn.route})"
        return f"<Line {state}, {self.peer.session!r}>"

    def adopt(self, conn: Connection) -> None:
        """Take a new connection into use."""
        poll = select.poll()
        poll.register(conn.fileno(), select.POLLIN)
        poll.register(self.interrupt.fileno(), select.POLLIN)
        self._poll = poll
        self.fd = conn.fileno()
        self.conn = conn
        self.freight.obstacle = conn.obstacle
        self.lent = False
        self.watch.add(self.fd)
        if conn.route == "unix":
            self.freight.prepare()

    def drop(self, conn: Connection) -> None:
        """Close a connection, if it is in use."""
        with self.outbox.sending, self.lock:
            if self.conn is conn:
                self.conn = None
                self.peer.disconnected()
                self.watch.remove(self.fd)
                conn.close()
        self.wake.ring()

    def doubt(self, conn: Connection) -> None:
        """Let the receiver drop a connection that another thread, or a signal, found broken."""
        self._doubtful = conn
        self.interrupt.ring()
        self.wake.ring()

    def poll(self, conn: Connection, timeout_ms: int | None) -> bool:
        """Block until something may be received or somebody interrupts; False after the timeout."""
        if conn is self._doubtful or self._pending(conn):
            return True
        if self._spin.able and self.inbox.lone():
            events = self._spin.wait(self._poll.poll, timeout_ms)
        else:
            events = self._poll.poll(timeout_ms)
        if not events:
            return False
        if len(events) > 1 or events[0][0] != self.fd:
            self.interrupt.quiet()
        return True

    def restless(self) -> bool:
        """Say whether there is something to do that no descriptor tells of."""
        conn = self.conn
        if conn is None:
            return False
        if self.inbox.calls or conn is self._doubtful:
            return True
        # What comes over a lent connection is found by who has it next; to ask zmq for it would not be cheap.
        return not (self.lent and conn.route == "tcp") and self._pending(conn)

    def is_up(self) -> bool:
        """Say whether the connection, which zmq may be making anew by itself, is there."""
        with self.outbox.sending:
            return self.conn is not None and self.conn.connected

    def _pending(self, conn: Connection) -> bool:
        if conn.route == "unix":
            return conn.pending()
        with self.outbox.sending:
            return conn.pending()

    # ------------------------------------------------------------ out

    def ship(self, body: list[Frame], placement: Placement, once: bool, late: bool) -> tuple[list[Frame], Mark]:
        """Put the large buffers of a body where they travel best."""
        conn = self.conn
        link = "" if conn is None else conn.route
        body, mark = self.freight.ship(body, placement, self.roster.engines, link, once=once, late=late)
        if not mark.copied:
            body, mark.lent = self.parcels.lend(body)
        return body, mark

    def transmit(self, frames: list[Frame]) -> None:
        """Send over the connection; if there is none the session keeps what was packed, and repeats it."""
        conn = self.conn
        if conn is None or conn is self._doubtful:
            return
        try:
            conn.send(frames)
        except BaseException as error:
            self.doubt(conn)
            if not isinstance(error, ConnectionError):
                raise
        else:
            # Sending may swallow the edge that tells of input, on which some other thread perhaps waits.
            if conn.route == "tcp" and (self.receiver or not self.lent) and conn.pending():
                self.interrupt.ring()
                self.wake.ring()

    def _mend(self) -> None:
        """Have the connection made anew: what was packed may not have been sent."""
        conn = self.conn
        if conn is not None:
            self.doubt(conn)

    # ------------------------------------------------------------ in

    def step(self, conn: Connection) -> bool:
        """Take in one transmission; False if there was none, or the connection is no more."""
        try:
            if conn is self._doubtful:
                self._doubtful = None
                self.drop(conn)
                return False
            received = self._receive(conn)
            if received is None:
                return False
            message, frames, answers = received
            if message is not None:
                answers = [*answers, *self._dispatch(message, frames)]
            self._handled = self.peer.session.received
            if type(message) is m.Delivery and message.parcels:
                self.parcels.forget(message.parcels)
            if answers:
                with self.outbox.sending:
                    for answer in answers:
                        self.transmit(answer)
        except ConnectionError as error:
            self.drop(conn)
            if self.inbox.farewell is not None or isinstance(error, ConnectError):
                self._end(self.inbox.farewell or error)
            return False
        except GapError:
            self.drop(conn)  # to be made anew, and resumed
            return False
        except ProtocolError as error:
            self.drop(conn)
            self._end(ConnectError(str(error)))
            return False
        except BaseException:
            # Half of it may be done. All of it comes again after the resumption, and what is done stays done.
            self.peer.session.received = self._handled
            self.doubt(conn)
            self.startle()
            raise
        if self.inbox.calls:
            self.inbox.run_calls()
        return True

    def _receive(self, conn: Connection) -> tuple[m.Message | None, list[Frame], list[list[Frame]]] | None:
        """Return a message, its frames, and what is to be transmitted after it has been handled."""
        if conn.route == "unix" and self.peer.connected:
            frames = conn.recv_nowait()
            if frames is None:
                return None
            message, answers = self.peer.receive(frames)
            return message, frames, answers
        # A resumption must not be mixed with other messages, and a zmq socket must not be used by two threads at once.
        with self.outbox.sending:
            frames = conn.recv_nowait()
            if frames is None:
                return None
            connected = self.peer.connected
            try:
                message, answers = self.peer.receive(frames)
                if not (connected and self.peer.connected):
                    for answer in answers:
                        self.transmit(answer)
                    answers = []
            except BaseException:
                self.doubt(conn)  # while nobody else may send: nothing must follow half a resumption
                raise
        return message, frames, answers

    def _dispatch(self, message: m.Message, frames: list[Frame]) -> list[list[Frame]]:
        """Handle a message; return what is to be transmitted after that."""
        if type(message) in TRAFFIC:
            requests = self.parcels.handle(message, frames)
            if self.curious and type(message) is m.Release:
                Line.startle(self)
            return requests
        if isinstance(message, m.Refused):
            raise ConnectError(f"the controller refuses this client: {message.reason}")
        if isinstance(message, m.Welcome):
            if not message.resumed and self._handled:
                raise ConnectError("the controller was started anew and knows nothing of this session any more")
            return self.parcels.resume()
        if type(message) is m.Delivery and message.parcels:
            frames = [frames[0], *self.parcels.contents(message.parcels, frames[1:])]
        with self.lock:
            self.inbox.handle(message, frames)
        if self.inbox.farewell is not None:
            raise self.inbox.farewell
        if self.curious:
            Line.startle(self)
        if self.inbox.held:
            self.wake.ring()  # the background thread knows the time
        return []

    def startle(self) -> None:
        """Let threads look again: those that wait for anything at all."""
        with self.lock:
            curious, self.curious = self.curious, []
        for parker in curious:
            parker.wake()
