"""Peers that have not said Hello yet: identification, admission, resumption (docs/protocol.md, section 3)."""

import time
from collections.abc import Sequence
from typing import Final

from hpc.controller import events as ev
from hpc.controller.brain import Brain
from hpc.controller.contacts import Contact, Contacts, identify, objection, read_hello
from hpc.controller.journal import Journal
from hpc.controller.walltime import time_left_s
from hpc.errors import ProtocolError
from hpc.security.host import start_ticks
from hpc.transport import Link, Server
from hpc.wire import codec
from hpc.wire import messages as m
from hpc.wire.session import Frame

# Who has not said Hello by then has nothing to say.
HELLO_WAIT_S: Final = 10.0


class Reception:
    """Turns links into contacts."""

    def __init__(self, cluster: str, server: Server, brain: Brain, contacts: Contacts) -> None:
        self._identify = [identify(cluster)]
        self._server = server
        self._brain = brain
        self._contacts = contacts
        self._journal = Journal()
        # By when each must have said Hello; in this order they came.
        self.strangers: dict[Link, float] = {}

    def __repr__(self) -> str:
        return f"<Reception with {len(self.strangers)} strangers>"

    def opened(self, link: Link, now: float) -> None:
        """Tell a new peer who is here."""
        self.strangers[link] = now + HELLO_WAIT_S
        self._server.send(link, self._identify)

    def closed(self, link: Link) -> None:
        """Forget a link that is gone."""
        self.strangers.pop(link, None)

    def next_deadline(self) -> float | None:
        """Return when the next stranger has waited too long."""
        return next(iter(self.strangers.values())) if self.strangers else None

    def expire(self, now: float) -> None:
        """Turn strangers away that have not said Hello in time."""
        for link in [link for link, until in self.strangers.items() if until <= now]:
            self._object(link, f"no Hello within {HELLO_WAIT_S:g} s")

    def refuse(self, link: Link, reason: str) -> None:
        """Tell a peer why it is not wanted, and close."""
        self.strangers.pop(link, None)
        self._server.send(link, [codec.encode(m.Refused(reason))])
        self._server.close_link(link)

    def _object(self, link: Link, reason: str, hello: m.Hello | None = None) -> None:
        who = link.name
        if hello is not None:
            who = f"{who}, {hello.role} of {hello.user} with pid {hello.pid} on {hello.host}"
        self._journal.refused(who, reason)
        self.refuse(link, reason)

    def receive(self, link: Link, frame: Frame, now: float) -> tuple[Contact | None, Sequence[ev.Action]]:
        """Take the first frame of a stranger; return who it is, if it is welcome, and what the brain wants done."""
        nobody: tuple[None, Sequence[ev.Action]] = None, ()
        try:
            hello = read_hello(frame)
        except ProtocolError as error:
            self._object(link, str(error))
            return nobody
        if hello is None:
            return nobody
        known = self._contacts.find(hello)
        reason = objection(hello, link) or _objection_to_session(hello, known)
        kept: list[list[Frame]] = []
        if not reason and known is not None:
            try:
                kept = known.session.resume(hello.received)
            except ProtocolError as error:
                reason = str(error)
        if reason:
            self._object(link, reason, hello)
            return nobody
        contact, actions = known, []
        if hello.engine is not None and hello.role == "engine":
            came = ev.EngineCame(hello.engine, hello.channel, time_left_s(hello.engine, time.time()))
            first, *actions = self._brain.handle(came, now)
            if isinstance(first, ev.Reject):
                self._object(link, first.reason, hello)
                return nobody
            if contact is None and isinstance(first, ev.Admit):
                contact = self._contacts.add_engine(hello, first.engine)
        elif contact is None:
            contact = self._contacts.add_client(hello)
        if contact is not None:
            self._welcome(contact, link, kept, resumed=known is not None)
        return contact, actions

    def _welcome(self, contact: Contact, link: Link, kept: list[list[Frame]], resumed: bool) -> None:
        self.strangers.pop(link, None)
        old = contact.link
        if old is not None:
            # The peer knows better than this side that its old connection is gone.
            old.data = None
            self._server.close_link(old, linger=False)
        contact.link, link.data = link, contact
        link.trust(contact.role)
        if link.pid and link.pid == contact.hello.pid:
            contact.pid, contact.started = link.pid, start_ticks(link.pid)
        welcome = m.Welcome(contact.session.received, resumed, contact.number)
        self._server.send(link, [codec.encode(welcome)])
        for frames in kept:
            self._server.send(link, frames)


def _objection_to_session(hello: m.Hello, known: Contact | None) -> str:
    if known is None:
        if hello.received:
            return (
                "this controller does not know its session: it has stayed away for too long, or the controller was"
                " started anew"
            )
        return ""
    if hello.engine is not None and known.hello.engine is not None and hello.engine.uuid != known.hello.engine.uuid:
        return "its session belongs to another engine"
    return ""
