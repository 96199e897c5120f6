"""The controller as a process: sockets and clock around the brain.

One thread, one loop: wait for arrivals, turn them into events, carry out the actions. Whatever a peer does, the loop
goes on; what was wrong stands in the log, one line each.
"""

import errno
import heapq
import os
import socket
import time
from collections.abc import Sequence
from typing import Any, Final

from hpc.controller import events as ev
from hpc.controller.brain import Brain
from hpc.controller.contacts import Contact, Contacts, software
from hpc.controller.files import Files, explain_busy
from hpc.controller.journal import Journal, set_up_log
from hpc.controller.keydesk import KeyDesk
from hpc.controller.life import LOOK_AGAIN_S, Life, Watched
from hpc.controller.options import ControllerOptions
from hpc.controller.outbox import Outbox
from hpc.controller.process import own_process, raise_file_limit
from hpc.controller.reception import Reception
from hpc.controller.relay import ABOUT_PARCELS
from hpc.errors import ProtocolError
from hpc.security.host import hostname, own_start_ticks, start_ticks
from hpc.transport import CLOSED, FRAMES, NOISE, OPENED, Arrival, Link, Server
from hpc.wire import codec
from hpc.wire import messages as m
from hpc.wire.session import Frames, GapError

__all__ = ["ControllerOptions", "run_controller"]

# How soon after its connection closed a client on this host is looked for; one whose process is gone cannot come back.
CLIENT_LOOK_S: Final = 1.0
# What is still to go out at the end may take this long.
FAREWELL_S: Final = 0.5


def run_controller(options: ControllerOptions, launcher: socket.socket | None = None) -> int:
    """Be a controller until told to stop; return the exit status.

    Parameters
    ----------
    options
        Where and under what name.
    launcher
        One end of a socket pair that the supervisor holds the other of; its end ends the controller.

    Raises
    ------
    ConnectError
        The port, or the name, is in use; it says by whom and what to do.
    """
    set_up_log(options)
    raise_file_limit()
    files = Files(options)
    try:
        server = Server(
            unix_path=files.unix,
            tcp=files.endpoints(),
            server_secret=files.server_secret,
            server_public=files.server_public,
            authorise=files.authorise,
        )
    except OSError as error:
        files.remove()
        if error.errno in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
            raise explain_busy(error, options) from None
        raise
    controller = Controller(options, files, server, launcher)
    with own_process(controller.stop) as bell:
        try:
            if bell is not None:
                server.watch(bell.fileno(), lambda: bell.recv(64))
            return controller.run()
        finally:
            # While signals are still taken care of: one that comes now must not leave anything behind.
            server.close()
            files.remove()


class Controller:
    """The loop."""

    def __init__(
        self, options: ControllerOptions, files: Files, server: Server, launcher: socket.socket | None
    ) -> None:
        self.options, self.files, self.server = options, files, server
        self.brain = Brain(grace_s=options.grace_s)
        self.brain.restarts.policy = options.policy
        self.contacts = Contacts()
        self.outbox = Outbox(server, self.contacts)
        self.life = Life(server)
        self.journal = Journal()
        self.reception = Reception(files.cluster, server, self.brain, self.contacts)
        self.keys = KeyDesk(files, server, self.contacts, self._dismiss)
        self.quitting = ""
        # Clients that are away: when to look for them again.
        self._away: list[tuple[float, int, Contact]] = []
        self._n_away = 0
        # What engines say last waits until all else that arrived with it is read.
        self._farewells: list[tuple[Contact, m.Goodbye]] = []
        if launcher is not None:
            self.outbox.launcher = server.adopt(launcher, "launcher")
            self.brain.orders.launcher = True

    def __repr__(self) -> str:
        return f"<Controller {self.files!r}, {self.contacts!r}>"

    # ------------------------------------------------------------ the loop

    def run(self) -> int:
        """Serve until told to stop."""
        server, brain = self.server, self.brain
        self.files.write(server.ports)
        brain.facts = self._facts()
        self.journal.started(self.files)
        while not self.quitting:
            arrivals = server.poll(self._timeout_s(time.monotonic()))
            now = time.monotonic()
            for arrival in arrivals:
                try:
                    self._arrival(arrival, now)
                except Exception:
                    # A mistake in here must not take every engine's work with it.
                    self.journal.mistake(repr(arrival.link))
            if self._farewells or self.life.dead or self._away or self.reception.strangers:
                self._afterwards(now)
            if self.outbox.relay.away or self.outbox.relay.said:
                self._relay(now)
            if self.outbox.congestion.crowded:
                for event in self.outbox.congestion.review(self.outbox.relay, now):
                    self.event(event, now)
            due_s = brain.next_timeout(now)
            if due_s is not None and due_s <= 0:
                self.event(ev.Tick(), now)
            self.outbox.flush()
        self._leave()
        return 0

    def _facts(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "started": own_start_ticks(),
            "host": hostname(),
            "name": self.options.name,
            "cluster": self.files.cluster,
            "addresses": self.files.addresses,
            "unix": self.files.unix,
            "version": software(),
        }

    def _timeout_s(self, now: float) -> float | None:
        patience_ends = self.outbox.relay.next_deadline()
        if not (self.life.dead or self._away or self.reception.strangers or patience_ends is not None):
            return self.brain.next_timeout(now)
        times = [now + LOOK_AGAIN_S] if self.life.dead else []
        if self._away:
            times.append(self._away[0][0])
        if (when := self.reception.next_deadline()) is not None:
            times.append(when)
        if patience_ends is not None:
            times.append(patience_ends)
        timeout_s = self.brain.next_timeout(now)
        if not times:
            return timeout_s
        wait_s = max(0.0, min(times) - now)
        return wait_s if timeout_s is None else min(wait_s, timeout_s)

    def _arrival(self, arrival: Arrival, now: float) -> None:
        kind, link = arrival.kind, arrival.link
        if kind is FRAMES:
            contact = link.data
            if contact is not None:
                self._said(contact, arrival.frames, now)
            elif link is self.outbox.launcher:
                self._launcher_said(arrival.frames, now)
            else:
                self._unknown_said(link, arrival.frames, now)
        elif kind is OPENED:
            self.reception.opened(link, now)
        elif kind is CLOSED:
            self._closed(link, now)
        elif kind is NOISE:
            self.journal.noise(arrival.detail)
        elif isinstance(arrival.token, Watched):
            self.life.died(arrival.token, now)
        else:
            arrival.token()

    def stop(self, reason: str) -> None:
        """End the loop after this round; the first reason counts."""
        self.quitting = self.quitting or reason

    def event(self, event: ev.Event, now: float) -> None:
        """Have the brain handle an event, and do what it decides."""
        self._act(self.brain.handle(event, now))

    def _act(self, actions: Sequence[ev.Action]) -> None:
        handlers = self.outbox.handlers
        for action in actions:
            handler = handlers.get(type(action))
            if handler is not None:
                handler(action)
                if type(action) is ev.Announce:
                    self.journal.engines(action.message)
            elif type(action) is ev.Dropped:
                self._drop(action)
            elif type(action) is ev.Quit:
                self.quitting = action.reason

    # ------------------------------------------------------------ what is said

    def _said(self, contact: Contact, frames: Frames, now: float) -> None:
        session = contact.session
        try:
            seq, ack, message = codec.from_peer(frames[0], contact.role)
            if not session.accept(seq, ack, frames):
                return
            if type(message) is m.Ack:
                return
            if type(message) in ABOUT_PARCELS:
                self.outbox.relay.handle(contact, message, frames)
                return
            if type(message) is m.Goodbye:
                if contact.role == "engine":
                    self._farewells.append((contact, message))
                else:
                    self._client_gone(contact, message.reason or "said goodbye", now)
                return
            body = tuple(frames[1:])
            if (type(message) is m.Submit or type(message) is m.Results) and message.parcels:
                body = self.outbox.relay.unpack(contact, message.parcels, body)
            if contact.role == "engine":
                self.event(ev.EngineSaid(contact.number, message, body), now)
            elif type(message) is m.Keys:
                self.outbox.post(contact, self.keys.answer(contact, message))
            else:
                self.event(ev.ClientSaid(contact.number, message, body), now)
        except GapError as error:
            self.journal.gap(contact, str(error))
            self._ask_again(contact, now)
            return
        except ProtocolError as error:
            self.journal.refused(str(contact), str(error))
            self._turn_away(contact, str(error), now)
            return
        if session.ack_due() and contact.link is not None:
            self.server.send(contact.link, session.acknowledge())

    def _unknown_said(self, link: Link, frames: Frames, now: float) -> None:
        contact, actions = self.reception.receive(link, frames[0], now)
        if contact is None:
            return
        self.outbox.relay.welcomed(contact)
        if contact.role == "engine":
            if contact.hello.engine is not None:
                self.life.watch(contact.number, link, contact.hello.engine)
            self._act(actions)
        elif contact.number not in self.brain.clients:
            self.journal.client(contact)
            self.event(ev.ClientCame(contact.number), now)

    def _launcher_said(self, frames: Frames, now: float) -> None:
        try:
            _, _, message = codec.from_peer(frames[0], "launcher")
            if isinstance(message, m.Exited):
                how = message.signal, message.exit_code, message.detail, message.oom
                self.event(ev.ProcessEnded(message.host, message.pid, *how), now)
            elif isinstance(message, m.Group):
                self.journal.group(message)
                if message.ended:
                    self.event(ev.LaunchEnded(message.group, message.stderr), now)
            elif isinstance(message, m.Goodbye):
                self.quitting = f"its supervisor has left: {message.reason}"
            else:
                self.event(ev.ClientSaid(0, message), now)
        except ProtocolError as error:
            self.journal.refused("the launcher", str(error))

    # ------------------------------------------------------------ who goes

    def _closed(self, link: Link, now: float) -> None:
        self.reception.closed(link)
        if link is self.outbox.launcher:
            self.outbox.launcher = None
            self.stop("its supervisor has ended")
        contact = link.data
        if contact is not None:
            link.data = contact.link = None
            self.outbox.relay.cut(contact, now)
            self._cut(contact, now)

    def _cut(self, contact: Contact, now: float) -> None:
        if contact.role == "engine":
            self.event(ev.EngineCut(contact.number, contact.channel), now)
        elif contact.role == "monitor":
            self._client_gone(contact, "went; nothing is kept for one that only looks", now)
        else:
            contact.away_since = now
            self._look_again(now + CLIENT_LOOK_S, contact)

    def _look_again(self, when: float, contact: Contact) -> None:
        self._n_away += 1
        heapq.heappush(self._away, (when, self._n_away, contact))

    def _ask_again(self, contact: Contact, now: float) -> None:
        """Have a peer resume its session over the link that it has: something was lost before it was sent."""
        link = contact.link
        if link is not None:
            link.data = contact.link = None
            self.reception.opened(link, now)

    def _turn_away(self, contact: Contact, reason: str, now: float) -> None:
        link = contact.link
        if link is not None:
            link.data = contact.link = None
            self.reception.refuse(link, reason)
            self._cut(contact, now)

    def _dismiss(self, contact: Contact, reason: str) -> None:
        self._client_gone(contact, reason, time.monotonic())

    def _client_gone(self, contact: Contact, reason: str, now: float) -> None:
        self.journal.client_gone(contact, reason)
        link = contact.link
        self.contacts.remove(contact)
        if link is not None:
            self.server.close_link(link)
        self.outbox.relay.gone("client", contact.number)
        self.outbox.congestion.gone(contact)
        self.event(ev.ClientGone(contact.number), now)

    def _drop(self, action: ev.Dropped) -> None:
        self.journal.lost(action.end)
        self.life.forget(action.engine)
        for table in (self.contacts.work, self.contacts.control):
            contact = table.get(action.engine)
            if contact is not None:
                link = contact.link
                self.contacts.remove(contact)
                if link is not None:
                    self.server.close_link(link)
        self.outbox.relay.gone("engine", action.engine)

    def _relay(self, now: float) -> None:
        """Tell the brain what has failed because its data is gone."""
        relay = self.outbox.relay
        relay.expire(now)
        while relay.said:
            self.event(relay.said.pop(0), now)

    def _afterwards(self, now: float) -> None:
        """Do what has to wait until all that has arrived is read, or is due by now."""
        farewells, self._farewells = self._farewells, []
        for contact, goodbye in farewells:
            self.event(ev.EngineSaid(contact.number, goodbye), now)
        for watched in list(self.life.dead):
            sockets = self.contacts.work.get(watched.engine), self.contacts.control.get(watched.engine)
            drained = not any(contact is not None and contact.link is not None for contact in sockets)
            died = self.life.news(watched, drained, now)
            if died is not None:
                self.event(died, now)
        while self._away and self._away[0][0] <= now:
            self._look_for(heapq.heappop(self._away)[2], now)
        self.reception.expire(now)

    def _look_for(self, contact: Contact, now: float) -> None:
        if contact.link is not None or self.contacts.clients.get(contact.number) is not contact:
            return
        back_by = contact.away_since + self.options.lease_s
        if contact.pid and start_ticks(contact.pid) != contact.started:
            self._client_gone(contact, "its process has ended", now)
        elif now >= back_by:
            self._client_gone(contact, f"was away for {self.options.lease_s:g} s", now)
        else:
            self._look_again(back_by, contact)

    def _leave(self) -> None:
        """Tell everybody, and see that it goes out."""
        self.journal.leaving(self.quitting)
        self.event(ev.Closing(self.quitting), time.monotonic())
        for contact in self.contacts.clients.values():
            self.outbox.post(contact, m.Goodbye(self.quitting))
        self.outbox.tell_launcher(m.Stop(self.quitting))
        self.outbox.flush()
        self.life.close()
        links = [contact.link for contact in self.contacts.everybody() if contact.link is not None]
        for link in links:
            if link.local:
                self.server.close_link(link)
        # Peers that are far away close by themselves when they have read that this is the end; what they have not read
        # when this side closes, zmq may throw away.
        until = time.monotonic() + FAREWELL_S
        while (left_s := until - time.monotonic()) > 0 and not all(link.closed for link in links):
            self.server.poll(left_s)
