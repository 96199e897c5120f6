"""How a supervisor, or a command, talks to the controller: as its launcher, or as a monitor that only looks."""

import getpass
import os
import socket
import uuid
from collections.abc import Callable
from typing import Any, Final

from hpc import __version__
from hpc.errors import ConnectError, HpcError
from hpc.security.host import hostname
from hpc.security.info import ConnectionInfo
from hpc.transport import Disconnected, connect
from hpc.transport.unix import UnixConnection
from hpc.wire import codec
from hpc.wire import messages as m
from hpc.wire.session import Frames, Peer

# Of its launcher a controller knows who it is: no Hello, and nothing is repeated, the link ends with either of them.
_ROLE: Final = "launcher"


class LauncherLink:
    """The supervisor's end of the inherited socket pair."""

    def __init__(self, sock: socket.socket) -> None:
        self._connection = UnixConnection(sock, "the controller")
        self.closed = False

    def __repr__(self) -> str:
        return f"<LauncherLink {'closed' if self.closed else 'open'}>"

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._connection.fileno()

    def send(self, message: m.Message) -> None:
        """Tell the controller; `Disconnected` if it is gone."""
        self._connection.send([codec.encode(message)])

    def take(self) -> list[m.Message]:
        """Return what has come, without waiting; sets ``closed`` at the end of it."""
        messages: list[m.Message] = []
        try:
            while frames := self._connection.recv_nowait():
                messages.append(codec.from_controller(frames[0], _ROLE)[2])
        except Disconnected:
            self.closed = True
        return messages

    def close(self) -> None:
        """Close the link: the controller takes it for the end of its supervisor, and ends."""
        self._connection.close()


class Questions:
    """What a supervisor asks the controller, and who goes on with each answer."""

    def __init__(self, send: Callable[[m.Message], None]) -> None:
        self._send = send
        self._asked: dict[int, Callable[[Any], None]] = {}
        self._number = 100  # far from the few numbers that a supervisor uses by itself

    def __repr__(self) -> str:
        return f"<Questions {len(self._asked)} not answered>"

    def query(self, what: str, then: Callable[[Any], None]) -> None:
        """Ask, and go on with the answer's value."""
        self._number += 1
        self._asked[self._number] = then
        self._send(m.Query(self._number, what))

    def shut_down(self, engine_ids: list[int]) -> None:
        """Have engines ended."""
        self._number += 1
        self._send(m.Shutdown(self._number, engine_ids, False))

    def answered(self, answer: m.Answer) -> None:
        """Go on with an answer."""
        then = self._asked.pop(answer.request, None)
        if then is not None and not answer.error:
            then(answer.value)


class Monitor:
    """A connection to a controller for a few questions, by default one that may only look.

    Parameters
    ----------
    info : ConnectionInfo
        Of the role monitor or client.
    timeout_s : float
        How long to wait for the controller to welcome us.
    role : str
        As what to come: ``monitor`` or ``client``.

    Raises
    ------
    ConnectError
        It cannot be reached, does not answer, or refuses.
    """

    def __init__(self, info: ConnectionInfo, timeout_s: float = 5.0, role: str = "monitor") -> None:
        self._info = info
        self._connection = connect(
            unix=info.unix if info.is_local() else "",
            addresses=info.addresses,
            server_key=info.server_key,
            public_key=info.public_key,
            secret_key=info.secret_key,
            timeout_s=timeout_s,
        )
        self._peer = Peer(
            m.Hello(
                protocol=codec.PROTOCOL,
                software=__version__,
                role=role,
                session=uuid.uuid4().hex,
                channel="",
                received=0,
                host=hostname(),
                pid=os.getpid(),
                user=getpass.getuser(),
            )
        )
        self._requests = 0

    def __repr__(self) -> str:
        return f"<Monitor of {self._info.name!r}, {self._peer!r}>"

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._connection.fileno()

    def take(self) -> list[m.Message] | None:
        """Return what has come for us, without waiting; None once the controller is gone."""
        messages: list[m.Message] = []
        try:
            while frames := self._connection.recv_nowait():
                messages += self._receive(frames)
        except Disconnected:
            return messages or None
        return messages

    def ask(self, what: str, timeout_s: float = 5.0) -> Any:
        """Put a query (`messages.Query`) and return the answer's value."""
        return self.request(lambda number: m.Query(number, what), timeout_s)

    def request(self, make: Callable[[int], m.Message], timeout_s: float = 5.0) -> Any:
        """Send what ``make`` makes of the number of a request, and return the answer's value."""
        import time

        deadline = time.monotonic() + timeout_s
        self._requests += 1
        packed = self._peer.pack(make(self._requests))
        if packed is not None:
            self._connection.send(packed)
        while (left_s := deadline - time.monotonic()) > 0:
            for message in self._wait(left_s):
                if isinstance(message, m.Answer) and message.request == self._requests:
                    if message.error:
                        raise HpcError(message.error)
                    return message.value
        raise ConnectError(
            f"the controller (pid {self._info.pid} on {self._info.host}) has not answered in {timeout_s:g} s"
        )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _wait(self, timeout_s: float) -> list[m.Message]:
        try:
            frames = self._connection.recv(timeout_s)
        except Disconnected as error:
            raise ConnectError(f"the controller has gone: {error}") from None
        return self._receive(frames) if frames else []

    def _receive(self, frames: Frames) -> list[m.Message]:
        message, answers = self._peer.receive(frames)
        for answer in answers:
            self._connection.send(answer)
        if isinstance(message, m.Refused):
            raise ConnectError(f"the controller refuses: {message.reason}")
        return [message] if message is not None else []


class Watch(Monitor):
    """Counts the engines that are registered, for the supervisor during the start."""

    def __init__(self, info: ConnectionInfo) -> None:
        super().__init__(info)
        self._engines: set[int] = set()

    def count(self) -> int | None:
        """Return how many engines are registered by what has come so far; None once the controller is gone."""
        messages = self.take()
        if messages is None:
            return None
        for message in messages:
            if isinstance(message, m.Engines):
                if message.snapshot:
                    self._engines.clear()
                self._engines.update(row.id for row in message.joined)
                self._engines.difference_update(end.id for end in message.left)
        return len(self._engines)
