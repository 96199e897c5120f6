"""The engine's main thread: receive work, run it, send results."""

import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from hpc.dataplane.chooser import forced_by_environment
from hpc.dataplane.outgoing import Outgoing
from hpc.engine.channel import Channel
from hpc.engine.current import Identity
from hpc.engine.deposit import Deposits
from hpc.engine.functions import FunctionTable
from hpc.engine.interrupts import Leave
from hpc.engine.late import Late
from hpc.engine.partials import Partials
from hpc.engine.postmortem import PostMortem
from hpc.engine.results import own, transmission
from hpc.engine.shell import Shell
from hpc.engine.teamwork import TeamRunner
from hpc.engine.terms import needed, run_on_terms
from hpc.engine.work import Runner
from hpc.engine.workplace import Workplace
from hpc.errors import ConnectError, ProtocolError
from hpc.transport import Connection, Disconnected
from hpc.wire.messages import Define, Goodbye, Message, Need, Run, Stop, Welcome
from hpc.wire.session import Frame

HOLD_S = 0.001
# While an engine is busy for long, its results leave less often, so that hundreds of engines do not drown the
# controller: after a second of work, some milliseconds more of waiting are not noticed.
HOLD_SHARE = 1 / 64
LONGEST_HOLD_S = 0.01
# So much of its results the controller may not have acknowledged yet when another task begins: over TCP nothing else
# would keep an engine from filling the memory between the two. It acknowledges at least every 4 MiB.
RESULTS_NBYTES = 32 * 1024 * 1024
# A receive that took longer than this found the engine idle; what was sent ahead is there at once.
IDLE_S = 0.0001

log = logging.getLogger("hpc.engine")


class Loop:
    """Owns the work channel; everything here runs in the main thread."""

    def __init__(self, channel: Channel, place: Workplace, identity: Identity, lease_s: float) -> None:
        self._channel = channel
        self._place = place
        self._identity = identity
        self._lease_s = lease_s
        self.shell = Shell(namespace := place.namespace, place.capture)
        self._late = Late(namespace)
        parts = (
            namespace,
            self._late,
            Deposits(namespace),
            Partials(namespace),
            self.shell,
            PostMortem(place.lookout, identity),
        )
        self._functions = FunctionTable({name: call for part in parts for name, call in part.builtins.items()})
        self._busy_since = 0.0
        place.flush = self._flush_between_tasks
        place.ship = self._ship
        self._outgoing = Outgoing()
        self._forced = forced_by_environment() or ""
        self._runner = Runner(place)
        self._team_runner = TeamRunner(place)
        self._later: deque[tuple[Message | None, Sequence[Frame]]] = deque()

    def __repr__(self) -> str:
        return f"<Loop of {self._identity}, {self._channel!r}, {self._functions!r}>"

    def run(self) -> None:
        """Work until the engine is to leave; raises `Leave` with the reason.

        The channel is connected, its first welcome may still be under way.
        """
        with self._channel.lock:
            while True:
                if self._late:
                    self._settle()
                if self._later:
                    message, frames = self._later.popleft()
                else:
                    frames = self._receive()
                    message = self._channel.take(frames)
                if message is not None:
                    self._handle(message, frames)
                del message, frames  # arrays in them are not to live until the next message
                if self._place.interrupts.leaving:
                    raise Leave(self._place.interrupts.leaving)

    def say_goodbye(self, goodbye: Goodbye) -> None:
        """Leave, after all results: on their way nothing can overtake them."""
        with self._channel.lock:
            self._channel.send(goodbye)

    def _settle(self) -> None:
        """Wait for the bytes of what has been answered already, before anything else is taken in."""
        interrupts = self._place.interrupts
        interrupts.waiting = True
        try:
            if interrupts.leaving:
                raise Leave(interrupts.leaving)
            self._late.settle()
        finally:
            interrupts.waiting = False

    def _receive(self) -> Sequence[Frame]:
        interrupts, before = self._place.interrupts, time.time()
        interrupts.waiting = True
        try:
            while True:
                if interrupts.leaving:
                    raise Leave(interrupts.leaving)
                connection = self._channel.connection or self._reconnect()
                try:
                    frames = connection.recv()
                except (Disconnected, ProtocolError) as error:
                    log.info("%s", error)
                    self._channel.drop()
                    continue
                if frames is not None:
                    break
        finally:
            interrupts.waiting = False
        now = time.time()
        if not 0 <= now - before < IDLE_S:
            self._busy_since = now
        self._place.ledger.hold_s = min(max(HOLD_S, (now - self._busy_since) * HOLD_SHARE), LONGEST_HOLD_S)
        return frames

    def _reconnect(self) -> Connection:
        give_up = time.monotonic() + self._lease_s
        while True:
            time.sleep(self._channel.delay_s())
            try:
                self._channel.dial()
            except ConnectError as error:
                if time.monotonic() > give_up:
                    raise Leave(f"no controller for {self._lease_s:g} s: {error}") from None
            else:
                log.info("connected again, %r", self._channel)
            if self._channel.connection is not None:
                return self._channel.connection

    def _handle(self, message: Message, frames: Sequence[Frame]) -> None:
        if type(message) is Run:
            if self._channel.peer.session.kept_nbytes > RESULTS_NBYTES:
                self._wait_for_acknowledgement()
            body = self._channel.parcels.contents(message.parcels, frames[1:])
            self._channel.parcels.forget(message.parcels)
            self._run(message, self._late.expect(body) if len(body) > 1 else body)
        elif type(message) is Define:
            by_reference, by_value = (bytes(frame) for frame in frames[1:3])
            self._functions.define(message.digest, message.name, by_reference, by_value)
        elif type(message) is Welcome:
            self._welcome(message)
        elif type(message) is Stop:
            raise Leave(message.reason)
        elif type(message) is Goodbye:
            raise Leave(f"the controller has left: {message.reason}")
        else:
            log.warning("%s is not for the work channel", type(message).__name__)

    def _wait_for_acknowledgement(self) -> None:
        """Begin nothing more until the controller has taken results in; what it says meanwhile comes after this."""
        while self._channel.peer.session.kept_nbytes > RESULTS_NBYTES:
            frames = self._receive()
            message = self._channel.take(frames)
            if message is not None:
                self._later.append((message, frames))

    def _welcome(self, welcome: Welcome) -> None:
        if not welcome.resumed:
            self._place.ledger.forget_revoked()
        if welcome.id != self._identity.id:
            self._identity.id = welcome.id
            self._place.namespace.introduce()
            connection = self._channel.connection
            log.info("%s is ready, %s", self._identity, connection)
            if connection is not None and connection.obstacle:
                log.warning("large data will go by TCP, not through shared memory: %s", connection.obstacle)

    def _run(self, run: Run, body: Sequence[Frame]) -> None:
        held, missing = self._functions.find(needed(run))
        if missing:
            self._place.ledger.forgo(run)
            self._channel.send(Need(missing, run.client, run.first, run.start, run.stop))
            return
        lock = self._channel.lock
        lock.release()
        try:
            runner = self._team_runner if run.team else self._runner
            declined = run_on_terms(runner, self._place, run, held, body)
        finally:
            lock.acquire()
        for message in declined:
            self._channel.send(message)
        self._send_held()

    def _ship(self, buffers: list[Any], route: str) -> list[Any]:
        """Return the large buffers of a result as frames: in shared memory if that leads to the controller."""
        connection = self._channel.connection
        if connection is not None and connection.route == "unix" and (route or self._forced) not in ("inline", "tcp"):
            shared = self._outgoing.share(buffers)
            if shared is not None:
                return shared
        return own(buffers)

    def _flush_between_tasks(self) -> None:
        with self._channel.lock:
            self._send_held()

    def _send_held(self) -> None:
        for segment in self._place.ledger.take():
            self._channel.send(*transmission(segment))
