"""Where clients list, hand out, renew and revoke keys (docs/protocol.md, section 4.4)."""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from hpc.controller.contacts import Contact, Contacts
from hpc.controller.files import Files
from hpc.controller.journal import Journal
from hpc.transport import Server
from hpc.wire import messages as m


class KeyDesk:
    """Changes the key ring, and what follows from that: connections are cut, files written anew.

    Parameters
    ----------
    files, server, contacts
        The controller's.
    dismiss : callable
        Ends the session of a client for good.
    """

    def __init__(
        self, files: Files, server: Server, contacts: Contacts, dismiss: Callable[[Contact, str], None]
    ) -> None:
        self._files, self._server, self._contacts, self._dismiss = files, server, contacts, dismiss
        self._journal = Journal()
        self._does: Final[dict[str, Callable[[str, str, str], Any]]] = {
            "list": self._list,
            "admit": self._admit,
            "renew": self._renew,
            "revoke": self._revoke,
        }

    def __repr__(self) -> str:
        return f"<KeyDesk of {self._files.keys!r}>"

    def answer(self, contact: Contact, message: m.Keys) -> m.Answer:
        """Do what a client asks for."""
        does = self._does.get(message.what)
        if does is None:
            known = ", ".join(self._does)
            return m.Answer(message.request, None, f"nothing called {message.what!r} can be done with keys: {known}")
        try:
            value = does(message.key, message.role, message.label)
        except LookupError as error:
            return m.Answer(message.request, None, str(error.args[0]))
        if message.what != "list":
            self._journal.keys(contact, message.what, message.role, str(value))
        return m.Answer(message.request, value)

    def _list(self, key: str, role: str, label: str) -> list[dict[str, Any]]:
        links = Counter(link.key for link in self._server.tcp_links())
        return [{**row, "connections": links[row["public"]]} for row in self._files.keys.rows()]

    def _admit(self, key: str, role: str, label: str) -> str:
        return self._files.keys.admit(key, role, label).name

    def _renew(self, key: str, role: str, label: str) -> str:
        old = self._files.keys.renew(role)
        self._files.write_again()
        # Who may read the file comes back with the new key, and goes on with its session.
        if old is not None:
            self._server.withdraw(old.public)
        return self._files.keys.own(role).name

    def _revoke(self, key: str, role: str, label: str) -> str:
        revoked = self._files.keys.revoke(key)
        clients = self._contacts.clients.values()
        theirs = [contact for contact in clients if contact.link is not None and contact.link.key == revoked.public]
        self._server.withdraw(revoked.public)
        for contact in theirs:
            self._dismiss(contact, "its key was revoked")
        return revoked.name
