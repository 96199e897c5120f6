"""The controller's end of unix sockets: the listener, and a link for every peer."""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path

from hpc.errors import ConnectError
from hpc.transport.connection import widen
from hpc.transport.credentials import peer_credentials
from hpc.transport.framing import JOIN_NBYTES, MAX_FRAME_NBYTES, Decoder, Frame, advance, pack
from hpc.transport.link import Link
from hpc.transport.shared import CONTROL_NBYTES, Rights
from hpc.transport.unix import CLOEXEC, NO_SIGNAL, next_vector

# Whoever may open the socket is this user, and may be anything but a launcher: that one is handed over by inheritance.
ROLES = frozenset({"client", "engine", "monitor"})
# Who has not said Hello yet has no more to say than that; a monitor never has.
MAX_STRANGE_NBYTES = 1024 * 1024
# All peers of a cluster may come at once; more have to wait in connect().
BACKLOG = 1024


class UnixLink(Link):
    """A peer on a unix socket: a non-blocking socket, what is to go out, and what has come in so far."""

    __slots__ = ("blocked", "decoder", "dirty", "fd", "finishing", "outgoing", "recvmsg_into", "sock")

    def __init__(self, sock: socket.socket, *, roles: frozenset[str], name: str, pid: int, buffer: memoryview) -> None:
        super().__init__(roles=roles, route="unix", name=name, pid=pid, local=True)
        sock.setblocking(False)
        widen(sock)
        self.sock, self.fd = sock, sock.fileno()
        self.recvmsg_into = sock.recvmsg_into
        self.decoder = Decoder(buffer)
        self.outgoing: list[Frame] = []
        self.dirty = False  # something was queued since the last flush
        self.blocked = False  # the kernel takes no more; its readiness is being waited for
        self.finishing = False  # close when everything is out

    def trust(self, role: str) -> None:
        """Take frames of all sizes from now on, unless the peer is a monitor."""
        self.decoder.max_frame_nbytes = MAX_STRANGE_NBYTES if role == "monitor" else MAX_FRAME_NBYTES

    def queue(self, frames: Sequence[Frame]) -> None:
        """Put a transmission behind what is to go out."""
        pieces = pack(frames)
        if isinstance(pieces, bytes):
            self.outgoing.append(pieces)
        else:
            self.outgoing.extend(pieces)

    def write(self) -> bool:
        """Write what the kernel takes; say whether everything is out. Raises OSError if the peer is gone."""
        outgoing = self.outgoing
        while outgoing:
            try:
                if len(outgoing) == 1 and type(outgoing[0]) is not Rights:
                    nbytes = self.sock.send(outgoing[0], NO_SIGNAL)
                    if nbytes == len(outgoing[0]):
                        outgoing.clear()
                        return True
                else:
                    vector, control = next_vector(outgoing)
                    nbytes = self.sock.sendmsg(vector if control else _joined(vector), control, NO_SIGNAL)
            except BlockingIOError:
                return False
            # In place: the list may be long, and is owned by the link.
            outgoing[:] = advance(outgoing, nbytes)
        return True

    def receive(self) -> list[list[Frame]] | None:
        """Read once; return what is complete, None at the end of the stream.

        Raises
        ------
        OSError, ProtocolError
            The peer is gone; or it does not speak the protocol.
        """
        decoder = self.decoder
        try:
            got = self.recvmsg_into((decoder.target(),), CONTROL_NBYTES, CLOEXEC)
        except BlockingIOError:
            return []
        if not got[0]:
            return None
        decoder.state.got.append(got)
        frames = decoder.single()
        return decoder.take() if frames is None else [frames]


def _joined(pieces: list[Frame]) -> list[Frame]:
    """Return pieces joined, if they are small."""
    nbytes = 0
    for piece in pieces:
        nbytes += len(piece)
        if nbytes > JOIN_NBYTES:
            return pieces
    return [b"".join(pieces)]


class UnixListener:
    """The listening socket at a path. It removes the file of a predecessor that is gone, and its own when closed."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._bind()
            Path(path).chmod(0o600)
            self.sock.listen(BACKLOG)
            self.sock.setblocking(False)
        except BaseException:
            self.sock.close()
            raise
        self._inode = os.stat(path).st_ino

    def __repr__(self) -> str:
        return f"<UnixListener {self.path}>"

    def _bind(self) -> None:
        try:
            self.sock.bind(self.path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise OSError(error.errno, f"cannot listen on {self.path}: {error.strerror}") from None
            if not stat.S_ISSOCK(os.lstat(self.path).st_mode) or _answers(self.path):
                raise ConnectError(f"{self.path} is in use by a controller that is alive, or is no socket") from None
            Path(self.path).unlink()
            self.sock.bind(self.path)

    def accept(self, buffer: memoryview) -> UnixLink | str | None:
        """Return a link to the next peer, the reason why it was refused, or None if nobody is waiting."""
        try:
            sock, _ = self.sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return None
        try:
            uid, pid = peer_credentials(sock)
            if uid != os.geteuid():
                sock.close()
                return f"refused process {pid} of user {uid} at {self.path}: it belongs to user {os.geteuid()}"
            link = UnixLink(sock, roles=ROLES, name=f"process {pid} (unix)", pid=pid, buffer=buffer)
            link.decoder.max_frame_nbytes = MAX_STRANGE_NBYTES
            return link
        except OSError as error:  # gone already
            sock.close()
            return f"lost a peer at {self.path} while it connected: {error}"

    def close(self) -> None:
        """Stop listening and remove the file, unless another process has put its own there."""
        self.sock.close()
        with contextlib.suppress(OSError):
            if os.lstat(self.path).st_ino == self._inode:
                Path(self.path).unlink()


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True
