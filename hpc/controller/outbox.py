"""From the brain's actions to transmissions: packed into the sessions of those they are for."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from hpc.controller import events as ev
from hpc.controller.congestion import Congestion
from hpc.controller.contacts import Contact, Contacts
from hpc.controller.relay import Relay
from hpc.transport import Link, Server
from hpc.wire import codec
from hpc.wire import messages as m
from hpc.wire.session import Frame

# One Delivery carries at most about so many frames: the limits of a transmission are far away then.
DELIVERY_FRAMES: Final = 4096


class Outbox:
    """Carries out actions that send something. Results of one round go to a client as one message.

    Attributes
    ----------
    relay : Relay
        Has the large frames, which go apart from their messages.
    congestion : Congestion
        Clients that do not take what is sent to them.
    """

    def __init__(self, server: Server, contacts: Contacts) -> None:
        self._server = server
        self._contacts = contacts
        self.launcher: Link | None = None
        self.relay = Relay(server, contacts, self.post)
        self.congestion = Congestion()
        self._deliveries: dict[int, tuple[list[m.Delivered], list[Frame]]] = {}
        self.handlers: dict[type, Callable[[Any], None]] = {
            ev.Send: self._to_work,
            ev.Command: self._to_control,
            ev.Tell: self._tell,
            ev.Deliver: self._deliver,
            ev.Announce: self._announce,
        }

    def __repr__(self) -> str:
        return f"<Outbox with results for {len(self._deliveries)} clients>"

    def post(self, contact: Contact, message: m.Message, frames: Iterable[Frame] = ()) -> None:
        """Send a message in a peer's session: now, or after its next Hello."""
        session = contact.session
        packed = session.pack(message, frames)
        if session.kept_nbytes > self.congestion.high_nbytes and contact.role == "client":
            self.congestion.note(contact, time.monotonic())
        if contact.link is not None:
            self._server.send(contact.link, packed)

    def transmit(self, link: Link, frames: Sequence[Frame]) -> None:
        """Send frames as they are."""
        self._server.send(link, frames)

    def flush(self) -> None:
        """Send what was collected in this round."""
        if self._deliveries:
            deliveries, self._deliveries = self._deliveries, {}
            for number, (items, frames) in deliveries.items():
                contact = self._contacts.clients.get(number)
                if contact is not None:
                    self.post(contact, m.Delivery(items), frames)
        self.relay.flush()

    def _to_work(self, action: ev.Send) -> None:
        contact = self._contacts.work.get(action.engine)
        if contact is not None:
            if self.relay.concerns(contact, action.frames):
                self.relay.carry(contact, action.message, action.frames)
            else:
                self.post(contact, action.message, action.frames)

    def _to_control(self, action: ev.Command) -> None:
        contact = self._contacts.control.get(action.engine)
        if contact is not None:
            self.post(contact, action.message)

    def _tell(self, action: ev.Tell) -> None:
        if not action.client:
            self.tell_launcher(action.message)
            return
        contact = self._contacts.clients.get(action.client)
        if contact is not None:
            # In the order of the actions: results that came before go first.
            if action.client in self._deliveries:
                self.post(contact, *self._collected(action.client))
            self.post(contact, action.message, action.frames)

    def tell_launcher(self, message: m.Message) -> None:
        """Send to the launcher, whose link has no session: it ends with either of the two."""
        if self.launcher is not None and isinstance(message, codec.HEARS["launcher"]):
            self._server.send(self.launcher, [codec.encode(message)])

    def _deliver(self, action: ev.Deliver) -> None:
        contact = self._contacts.clients.get(action.client)
        if contact is not None and self.relay.concerns(contact, action.frames):
            self.relay.carry(contact, m.Delivery([action.item]), action.frames)
            self.congestion.note(contact, time.monotonic())
            return
        collected = self._deliveries.get(action.client)
        if collected is not None:
            items, frames = collected
            if len(frames) + len(action.frames) <= DELIVERY_FRAMES:
                items.append(action.item)
                frames += action.frames
                return
            if contact is not None:
                self.post(contact, *self._collected(action.client))
        self._deliveries[action.client] = [action.item], list(action.frames)

    def _collected(self, number: int) -> tuple[m.Delivery, list[Frame]]:
        items, frames = self._deliveries.pop(number)
        return m.Delivery(items), frames

    def _announce(self, action: ev.Announce) -> None:
        self.flush()
        for contact in self._contacts.clients.values():
            self.post(contact, action.message)
