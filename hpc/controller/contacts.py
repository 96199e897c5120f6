"""Peers that have said Hello: who they are, their session, the link it uses now."""

import importlib.metadata
from typing import Final

from hpc.errors import ProtocolError
from hpc.transport import Link
from hpc.wire import codec
from hpc.wire import messages as m
from hpc.wire.session import Session

CHANNELS: Final = {"client": ("",), "monitor": ("",), "engine": ("work", "control")}


class Contact:
    """A session of a peer. ``number`` is the client's number or the engine's id; ``link`` is None while it is cut."""

    __slots__ = ("away_since", "channel", "hello", "link", "number", "pid", "role", "session", "started")

    def __init__(self, hello: m.Hello, number: int) -> None:
        self.hello = hello
        self.role = hello.role
        self.channel = hello.channel
        self.number = number
        self.session = Session()
        self.link: Link | None = None
        # As the kernel tells it; 0 for peers on other hosts.
        self.pid = self.started = 0
        self.away_since = 0.0

    def __repr__(self) -> str:
        return f"<Contact {self} {'up' if self.link else 'cut'}, {self.session!r}>"

    def __str__(self) -> str:
        hello = self.hello
        channel = f" ({self.channel})" if self.channel else ""
        return f"{self.role} {self.number}{channel}, {hello.user} with pid {hello.pid} on {hello.host}"


class Contacts:
    """All sessions, by what identifies them and by what they are used for."""

    def __init__(self) -> None:
        self._by_key: dict[tuple[str, str, str], Contact] = {}
        self.work: dict[int, Contact] = {}
        self.control: dict[int, Contact] = {}
        self.clients: dict[int, Contact] = {}
        self._n_clients = 0

    def __repr__(self) -> str:
        return f"<Contacts with {len(self.work)} engines, {len(self.clients)} clients and monitors>"

    def find(self, hello: m.Hello) -> Contact | None:
        """Return the session that a Hello wants to go on with."""
        return self._by_key.get((hello.role, hello.session, hello.channel))

    def add_client(self, hello: m.Hello) -> Contact:
        """Open a session for a client or monitor, under a new number."""
        self._n_clients += 1
        contact = Contact(hello, self._n_clients)
        self._by_key[hello.role, hello.session, hello.channel] = contact
        self.clients[contact.number] = contact
        return contact

    def add_engine(self, hello: m.Hello, number: int) -> Contact:
        """Open a session for one channel of an engine."""
        contact = Contact(hello, number)
        self._by_key[hello.role, hello.session, hello.channel] = contact
        (self.control if hello.channel == "control" else self.work)[number] = contact
        return contact

    def remove(self, contact: Contact) -> None:
        """Forget a session."""
        hello = contact.hello
        self._by_key.pop((hello.role, hello.session, hello.channel), None)
        table = (
            self.clients if contact.role != "engine" else self.control if contact.channel == "control" else self.work
        )
        if table.get(contact.number) is contact:
            del table[contact.number]
        if contact.link is not None:
            contact.link.data = None
            contact.link = None

    def everybody(self) -> list[Contact]:
        """Return all sessions."""
        return list(self._by_key.values())


def software() -> str:
    """Return the version of this package."""
    return importlib.metadata.version("hpc")


def identify(cluster: str) -> bytes:
    """Return the frame that every new connection gets first."""
    return codec.encode(m.Identify(codec.PROTOCOL, software(), cluster))


def read_hello(frame: bytes | bytearray | memoryview) -> m.Hello | None:
    """Return the Hello in the first frame of a link, None if it is a late message of an earlier connection.

    Raises
    ------
    ProtocolError
        It is neither.
    """
    head = bytes(frame[: len(codec.MAGIC) + 1])
    try:
        _, _, hello = codec.from_peer(frame, "stranger")
    except ProtocolError:
        # A session sends again what got lost, so a late message is no loss; one from another version is no message.
        if head == codec.MAGIC + bytes([codec.PROTOCOL]):
            return None
        raise
    return hello if isinstance(hello, m.Hello) else None


def objection(hello: m.Hello, link: Link) -> str:
    """Return what is wrong with a Hello; '' if nothing is."""
    if hello.protocol != codec.PROTOCOL:
        return (
            f"it speaks version {hello.protocol} of the protocol (hpc {hello.software}), this controller version"
            f" {codec.PROTOCOL} (hpc {software()}): install the same release of hpc on both sides"
        )
    if hello.role not in link.roles or hello.role not in CHANNELS:
        allowed = " or ".join(sorted(link.roles)) or "nothing"
        return f"its key permits it to be {allowed}, not {hello.role}: use the connection file {hello.role}.json"
    if hello.channel not in CHANNELS[hello.role]:
        return f"there is no channel {hello.channel!r} for a peer of role {hello.role}"
    if hello.role == "engine" and hello.engine is None:
        return "it says that it is an engine but not which"
    return ""
