"""Clients that do not take what is sent to them: noticed here, by what they have not acknowledged."""

from typing import TYPE_CHECKING, Final

from hpc.controller import events as ev
from hpc.controller.contacts import Contact

if TYPE_CHECKING:
    from hpc.controller.relay import Relay

# A client with more than this on its way is slow, if that stays so for a time in which a quick one takes it in.
HIGH_NBYTES: Final = 64 * 1024 * 1024
LOW_NBYTES: Final = HIGH_NBYTES // 2
PATIENCE_S: Final = 0.1


class Congestion:
    """Clients with much on its way to them.

    It needs no timer: while nothing is sent to such a client nothing grows, and what it takes makes itself heard.

    Attributes
    ----------
    crowded : dict
        Sessions that `review` is to look at, and since when.
    high_nbytes, low_nbytes : int
        From which amount on a client may be slow, and below which one it is not any more.
    """

    def __init__(self) -> None:
        self.high_nbytes, self.low_nbytes = HIGH_NBYTES, LOW_NBYTES
        self.crowded: dict[Contact, float] = {}
        self._slow: set[Contact] = set()

    def __repr__(self) -> str:
        return f"<Congestion of {len(self.crowded)} clients, {len(self._slow)} of them slow>"

    def note(self, contact: Contact, now: float) -> None:
        """Have `review` look at a session."""
        self.crowded.setdefault(contact, now)

    def review(self, relay: "Relay", now: float) -> list[ev.ClientSlow]:
        """Return who has become slow, and who is so no more."""
        found = []
        for contact, since in list(self.crowded.items()):
            nbytes = contact.session.kept_nbytes + relay.owed_nbytes(contact)
            if nbytes <= self.low_nbytes:
                del self.crowded[contact]
                if contact in self._slow:
                    self._slow.remove(contact)
                    found.append(ev.ClientSlow(contact.number, False))
            elif nbytes > self.high_nbytes and contact not in self._slow and now - since >= PATIENCE_S:
                self._slow.add(contact)
                found.append(ev.ClientSlow(contact.number, True))
        return found

    def gone(self, contact: Contact) -> None:
        """Forget a session."""
        self.crowded.pop(contact, None)
        self._slow.discard(contact)
