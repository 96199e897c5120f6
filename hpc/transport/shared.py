"""Frames that stand in shared memory: what travels is a pair of file descriptors, not the bytes.

A sender writes data into an anonymous segment (memfd) and sends a `SharedFrame`. Whoever holds the frame, or memory
mapped from it, holds one end of a pipe too (or of a pair of sockets), the *token*. When nobody does any more, also
because processes were killed, the other end tells the sender that the segment may be used again.

The controller passes such frames on without mapping them. Peers map them privately: the memory is writable, and what
they write is their own.
"""

import array
import contextlib
import fcntl
import mmap
import os
import resource
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any, Final

from hpc.errors import ProtocolError
from hpc.transport import pieces
from hpc.wire.absent import absent

# In the table of lengths: this frame is shared, and a descriptor stands in its place.
FLAG: Final = 1 << 63
# Offset and extent in bytes, number of the handle within the transmission, flags.
DESCRIPTOR: Final = struct.Struct("<QQIBxxx")
# The receiver is to write to the segment; its bytes come piece by piece; they stand there when the token says so.
WRITABLE: Final = 1
PIECES: Final = 2
LATE: Final = 4
# The two descriptors of so many handles go with one piece; the kernel permits 253 descriptors.
HANDLES_PER_PIECE: Final = 16
CONTROL_NBYTES: Final = socket.CMSG_SPACE(4 * 2 * HANDLES_PER_PIECE) if hasattr(socket, "CMSG_SPACE") else 0
# Where descriptors are this scarce, what arrives is copied out of the segment instead of being mapped.
MAPPING_SHARE: Final = 4


class Descriptor:
    """A file descriptor that is closed when nothing refers to this object any more."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __repr__(self) -> str:
        return f"<Descriptor {self.fd}>"

    def close(self, _close: Callable[[int], None] = os.close) -> None:
        """Close it now."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            _close(fd)

    __del__ = close


class Mapping(mmap.mmap):
    """Mapped shared memory; its ``token`` goes when it goes."""

    token: Descriptor
    living = 0

    def __del__(self) -> None:
        if "token" in self.__dict__:
            Mapping.living -= 1


class Handle:
    """A segment as it travels: ``extent`` bytes from its beginning are of interest."""

    __slots__ = ("_missing", "_view", "extent", "flags", "memory", "token")

    def __init__(self, memory: Descriptor, token: Descriptor, extent: int, flags: int = 0) -> None:
        self.memory, self.token, self.extent, self.flags = memory, token, extent, flags
        self._view: memoryview | None = None
        self._missing = ""

    def __repr__(self) -> str:
        names = {WRITABLE: ", writable", PIECES: ", in pieces", LATE: ", late"}
        words = "".join(name for flag, name in names.items() if self.flags & flag)
        return f"<Handle of {self.extent} bytes, {self.memory!r}{words}>"

    @property
    def writable(self) -> bool:
        """Whether the receiver is to write to the sender's memory."""
        return bool(self.flags & WRITABLE)

    def view(self, patience_s: float | None = None) -> memoryview:
        """Return its bytes in writable memory, which is the caller's own; if they come in pieces, wait for them.

        There are none if their sender went before all were there, or took longer than ``patience_s`` for a piece:
        whoever waits for an answer has gone, too, and what is made of the bytes fails.

        Raises
        ------
        ProtocolError
            The segment is shorter than was said.
        MemoryError
            There is no room for them.
        """
        if self._missing:
            raise MemoryError(self._missing)
        if self._view is None:
            self._check()
            if self.flags & PIECES:
                self._view = memoryview(b"")  # whatever interrupts this: they come only once
                self._view = self._receive(patience_s)
            else:
                self._view = self._own() if self.is_written(patience_s) else memoryview(b"")
        return self._view

    def early_view(self) -> memoryview:
        """Return what `view` does, where possible without waiting: nothing may look at it before `is_written`."""
        if self._view is None and self.flags & LATE and _may_map():
            self._check()
            with contextlib.suppress(OSError, ValueError):  # then it takes what `view` does: a copy
                self._view = self._map()
        return self.view()

    def is_written(self, patience_s: float | None = None) -> bool:
        """Say whether the bytes stand in the segment; wait for late ones until their sender has gone, or too long."""
        return not self.flags & LATE or pieces.Voice(self.token.fd).is_whole(patience_s)

    def _check(self) -> None:
        if os.fstat(self.memory.fd).st_size < self.extent:
            raise ProtocolError(f"a shared segment is shorter than the {self.extent} bytes that were announced")

    def _own(self) -> memoryview:
        try:
            return self._map() if _may_map() else self._copy()
        except (OSError, ValueError):
            return self._copy()

    def _receive(self, patience_s: float | None) -> memoryview:
        from hpc.transport.framing import allocate

        nbytes = min(self.extent, pieces.WINDOW_NBYTES)
        voice = pieces.Voice(self.token.fd)
        try:
            window = mmap.mmap(self.memory.fd, nbytes, mmap.MAP_SHARED | _POPULATE, mmap.PROT_READ)
            arrival = pieces.Arrival(self.extent, memoryview(window), allocate, self._own)
            return pieces.receive(voice, arrival, patience_s)
        except (MemoryError, OSError, ProtocolError) as error:
            self._missing = f"no memory for {self.extent} bytes: {error}"  # and they come only once
            with contextlib.suppress(OSError):
                voice.end()  # the sender is not to wait
            raise MemoryError(self._missing) from None

    def _map(self) -> memoryview:
        mapping = map_file(Mapping, self.memory.fd, self.extent, shared=False)
        mapping.token = self.token
        Mapping.living += 1
        return memoryview(mapping)

    def _copy(self) -> memoryview:
        view, done = memoryview(bytearray(self.extent)), 0
        while done < self.extent:
            done += os.preadv(self.memory.fd, [view[done:]], done)
        return view


_POPULATE: Final = getattr(mmap, "MAP_POPULATE", 0)


def map_file(kind: Any, fd: int, nbytes: int, *, shared: bool) -> Any:
    """Return a file mapped from its beginning, writable."""
    flags = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE
    try:
        # Without this Python keeps a duplicate of the descriptor for the lifetime of the mapping.
        return kind(fd, nbytes, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE, trackfd=False)
    except TypeError:  # before Python 3.13
        return kind(fd, nbytes, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)


def _may_map() -> bool:
    return Mapping.living < resource.getrlimit(resource.RLIMIT_NOFILE)[0] // MAPPING_SHARE


class SharedFrame:
    """A frame that stands in a segment; ``len()`` is the number of its bytes.

    Peers see one only if its handle is writable, which asks them to write into the sender's memory, or late. All others
    arrive as memory.
    """

    __slots__ = ("handle", "nbytes", "offset")

    def __init__(self, handle: Handle, offset: int, nbytes: int) -> None:
        self.handle, self.offset, self.nbytes = handle, offset, nbytes

    def __repr__(self) -> str:
        return f"<SharedFrame of {self.nbytes} bytes at {self.offset}, {self.handle!r}>"

    def __len__(self) -> int:
        return self.nbytes

    def view(self, patience_s: float | None = None) -> memoryview:
        """Return its bytes, as `Handle.view`; frames of one handle share one mapping."""
        return self.handle.view(patience_s)[self.offset : self.offset + self.nbytes]


def mapped(frames: Iterable[Any]) -> list[Any]:
    """Return frames as a peer gets them: shared ones as memory, unless they are there to be written to, or late."""
    return [
        memory_of(frame.view, frame.nbytes)
        if type(frame) is SharedFrame and not frame.handle.flags & (WRITABLE | LATE)
        else frame
        for frame in frames
    ]


def memory_of(view: Callable[[], memoryview], nbytes: int) -> Any:
    """Return what a call gives, or what stands for a frame of that size for which there is no room."""
    try:
        return view()
    except MemoryError:
        return absent(nbytes)  # the connection is not to end with it


def is_mapped(frame: Any) -> bool:
    """Say whether a frame that arrived is mapped shared memory."""
    return type(frame) is SharedFrame or (type(frame) is memoryview and type(frame.obj) is Mapping)


# ---------------------------------------------------------------- on the wire


class Rights(bytes):
    """A piece of a stream that file descriptors go along with."""

    handles: tuple[Handle, ...]

    def control(self) -> list[tuple[int, int, Any]]:
        """Return what to hand to ``sendmsg`` with it."""
        fds = array.array("i")
        for handle in self.handles:
            fds.extend((handle.memory.fd, handle.token.fd))
        return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]


def pieces_of(header: bytes, frames: Iterable[Any], join_nbytes: int) -> list[Any]:
    """Return what to write for a transmission with shared frames, small neighbours joined."""
    pieces: list[Any] = []
    small: list[Any] = [header]
    handles: list[Handle] = []
    numbers: dict[int, int] = {}

    def end_piece() -> None:
        if small:
            piece = b"".join(small)
            if handles:
                piece = Rights(piece)
                piece.handles = tuple(handles)
            pieces.append(piece)
            small.clear()
            handles.clear()

    for frame in frames:
        if type(frame) is SharedFrame:
            handle = frame.handle
            number = numbers.setdefault(id(handle), len(numbers))
            if number == len(numbers) - 1 and handle not in handles:
                if len(handles) == HANDLES_PER_PIECE:
                    end_piece()
                handles.append(handle)
            small.append(DESCRIPTOR.pack(frame.offset, handle.extent, number, handle.flags))
        elif len(frame) < join_nbytes:
            small.append(frame)
        else:
            end_piece()
            pieces.append(memoryview(frame).cast("B"))
    end_piece()
    return pieces


def descriptors(control: Iterable[tuple[int, int, bytes]]) -> list[int]:
    """Return the file descriptors in what ``recvmsg`` gave."""
    fds = array.array("i")
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


def unpack(piece: Any, nbytes: int, frames: list[Any], fds: list[Descriptor]) -> SharedFrame:
    """Return the shared frame that a descriptor announces.

    Parameters
    ----------
    piece
        The descriptor as it came.
    nbytes
        The length of the frame.
    frames
        The frames of the transmission that came before.
    fds
        File descriptors that have arrived; those that belong to the frame are removed.

    Raises
    ------
    ProtocolError
        The descriptor makes no sense, or its file descriptors have not come.
    """
    offset, extent, number, flags = DESCRIPTOR.unpack(piece)
    handles = list(dict.fromkeys(frame.handle for frame in frames if type(frame) is SharedFrame))
    if offset + nbytes > extent or number > len(handles):
        raise ProtocolError(f"a shared frame of {nbytes} bytes at {offset} of {extent}, number {number}, is impossible")
    if number < len(handles):
        handle = handles[number]
        if handle.extent != extent:
            raise ProtocolError("the frames of one segment disagree on its size")
        return SharedFrame(handle, offset, nbytes)
    if len(fds) < 2:
        raise ProtocolError("a shared frame came without its file descriptors: is the limit of open files too low?")
    handle = Handle(fds[0], fds[1], extent, flags & (WRITABLE | PIECES | LATE))
    del fds[:2]
    return SharedFrame(handle, offset, nbytes)


def seal(fd: int) -> None:
    """Keep a segment from being made shorter, so that no reader of it can run over its end."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)


def supported() -> bool:
    """Say whether this system has what it takes."""
    return hasattr(os, "memfd_create") and hasattr(socket, "SCM_RIGHTS") and hasattr(fcntl, "F_ADD_SEALS")
