"""Transmissions on a stream socket: lists of frames as bytes, and back (docs/protocol.md, section 2.1).

A transmission starts with a header: a word (magic and the number of frames less one), then the length of every frame;
the frames follow. Sans-I/O: `pack` gives what to write, `Decoder` says where to receive into and gives back whole
transmissions.

A frame in shared memory (`hpc.transport.shared`) has a flag at its length, and a descriptor in its place; the file
descriptors come along with it.
"""

import mmap
import socket
import struct
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from hpc.errors import ProtocolError
from hpc.transport import shared
from hpc.transport.shared import FLAG, Descriptor, SharedFrame
from hpc.wire import codec

Frame: TypeAlias = bytes | bytearray | memoryview

MAGIC: Final = 0xC1A50000  # the lower half counts the frames; no text starts like this
FIRST: Final = struct.Struct("<IQ")
WORD: Final = struct.Struct("<I")
HEADERS: Final = [struct.Struct(f"<I{n}Q") for n in range(17)]
LENGTHS: Final = [struct.Struct(f"<{n}Q") for n in range(17)]
_word = WORD.unpack_from
_lengths_of = [each.unpack_from for each in LENGTHS]
_header_of = [each.pack for each in HEADERS]
_header_of_two = _header_of[2]

# From this size on a frame is received into memory of its own, not by way of the receive buffer.
LARGE_NBYTES: Final = 64 * 1024
# Below this size a whole transmission is copied together: cheaper than a vector of pieces for the kernel.
JOIN_NBYTES: Final = 16 * 1024
BUFFER_NBYTES: Final = 256 * 1024
# From here on memory comes from the kernel in huge pages where it has them: filling it is then six times faster.
HUGE_NBYTES: Final = 4 * 1024 * 1024
# A header with more frames than this is received into memory of its own.
LONG_HEADER: Final = 4096
# No array that fits a node is larger; a larger announcement is garbage.
MAX_FRAME_NBYTES: Final = 1 << 36


def pack(frames: Sequence[Frame]) -> bytes | list[Frame]:
    """Return a transmission as one piece, if it is small, or as pieces to be written in order.

    Large frames are not copied: they must not change until they are written.
    """
    count = len(frames)
    if count == 2:  # the shortest way for the commonest case: a message and its body
        first, second = frames
        if type(first) is type(second) is bytes and len(first) + len(second) < JOIN_NBYTES:
            return _header_of_two(MAGIC + 1, len(first), len(second)) + first + second
    lengths = [frame.nbytes if type(frame) is memoryview else len(frame) for frame in frames]
    kinds = list[Any](map(type, frames)) if count > 1 else []
    is_shared = SharedFrame in kinds
    if is_shared:
        lengths = [n | FLAG if kind is SharedFrame else n for kind, n in zip(kinds, lengths, strict=True)]
    if count <= 16:
        header = _header_of[count](MAGIC + count - 1, *lengths)
    elif count <= codec.MAX_FRAMES:
        header = struct.pack(f"<I{count}Q", MAGIC + count - 1, *lengths)
    else:
        raise ProtocolError(f"a transmission of {count} frames is over the limit of {codec.MAX_FRAMES}")
    if is_shared:
        return shared.pieces_of(header, frames, JOIN_NBYTES)
    if sum(lengths) < JOIN_NBYTES:
        return b"".join((header, *frames))
    return _pieces(header, frames, lengths)


def unpack(piece: bytes) -> list[Frame]:
    """Return the frames of a transmission that `pack` made one piece; of anything else, the piece itself."""
    nbytes = len(piece)
    if nbytes < FIRST.size:
        return [piece]
    count = (_word(piece)[0] ^ MAGIC) + 1
    pos = 4 + 8 * count
    if count > codec.MAX_FRAMES or pos > nbytes:
        return [piece]
    lengths = _lengths_of[count](piece, 4) if count <= 16 else struct.unpack_from(f"<{count}Q", piece, 4)
    if pos + sum(lengths) != nbytes:
        return [piece]
    frames: list[Frame] = []
    for length in lengths:
        frames.append(piece[pos : pos + length])
        pos += length
    return frames


def _pieces(header: bytes, frames: Sequence[Frame], lengths: list[int]) -> list[Frame]:
    pieces: list[Frame] = []
    small: list[Frame] = [header]
    for frame, nbytes in zip(frames, lengths, strict=True):
        if nbytes < JOIN_NBYTES:
            small.append(frame)
            continue
        if nbytes > MAX_FRAME_NBYTES:
            raise ProtocolError(f"a frame of {nbytes} bytes is over the limit of {MAX_FRAME_NBYTES}")
        if small:
            pieces.append(b"".join(small))
            small = []
        pieces.append(memoryview(frame).cast("B"))
    if small:
        pieces.append(b"".join(small))
    return pieces


def advance(pieces: Sequence[Frame], nbytes: int) -> list[Frame]:
    """Return what is left of the pieces after ``nbytes`` of them were written."""
    for i, piece in enumerate(pieces):
        if nbytes < len(piece):
            rest = list(pieces[i:])
            if nbytes:
                rest[0] = memoryview(piece)[nbytes:]
            return rest
        nbytes -= len(piece)
    return []


def allocate(nbytes: int) -> memoryview:
    """Return fresh writable memory; `ProtocolError` if there is none."""
    try:
        if nbytes < HUGE_NBYTES:
            return memoryview(bytearray(nbytes))
        memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        return memoryview(memory)
    except (MemoryError, OSError, OverflowError):
        raise ProtocolError(f"no memory for a frame of {nbytes} bytes") from None


# What ``recvmsg_into`` returns: number of bytes, ancillary data, flags, address.
Received: TypeAlias = tuple[int, Any, int, Any]


def received(nbytes: int) -> Received:
    """Return what ``recvmsg_into`` returns for bytes that came alone."""
    return nbytes, (), 0, None


class _State:
    """Where a decoder stands between two calls. Never changed once made, but for ``got``.

    ``lengths`` and ``frames`` are of the transmission under way (None: its header is not there yet). What came of the
    next piece stands in ``rest``, or, if the piece is large, in ``large``. ``got`` is what ``recvmsg_into`` returned
    for what was received into `Decoder.target` since; the file descriptors that came before that are ``fds``.
    """

    __slots__ = ("fds", "frames", "got", "idle", "large", "lengths", "rest")

    def __init__(
        self,
        lengths: tuple[int, ...] | None = None,
        frames: list[Frame] | None = None,
        rest: bytes = b"",
        large: memoryview | None = None,
        *,
        nbytes: int = 0,
        fds: list[Descriptor] | None = None,
    ) -> None:
        self.lengths, self.rest, self.large = lengths, rest, large
        self.frames: list[Frame] = [] if frames is None else frames
        self.got: list[Received] = [(nbytes, (), 0, None)] if nbytes else []
        self.fds: list[Descriptor] = [] if fds is None else fds
        self.idle = lengths is None and large is None and not rest


class Decoder:
    """Bytes in, transmissions out.

    Receive into `target`, append what ``recvmsg_into`` returns to ``state.got``, call `single` or `take`. An exception
    at any point, also one that a signal handler raises, leaves everything as it was before or as it is after: nothing
    is lost, and the same calls may be made again. So what was received must be noted in ``got`` without a Python
    instruction in between.

    Parameters
    ----------
    buffer : memoryview, optional
        Where small frames are received. Decoders that are used in turns may share one.
    """

    __slots__ = ("buffer", "max_frame_nbytes", "max_frames", "state")

    def __init__(self, buffer: memoryview | None = None) -> None:
        self.buffer = memoryview(bytearray(BUFFER_NBYTES)) if buffer is None else buffer
        self.state = _State()
        self.max_frame_nbytes = MAX_FRAME_NBYTES
        self.max_frames = codec.MAX_FRAMES

    def __repr__(self) -> str:
        state = self.state
        if state.lengths is None:
            return f"<Decoder {len(state.rest)} bytes of a header>" if state.rest else "<Decoder between transmissions>"
        return f"<Decoder has {len(state.frames)} of {len(state.lengths)} frames>"

    def target(self) -> memoryview:
        """Return where to receive into; what ``got`` counts must have been taken, unless a frame is large."""
        state = self.state
        if state.large is not None:
            return state.large[_total(state.got) :]
        if state.rest:
            nbytes = len(state.rest)
            self.buffer[:nbytes] = state.rest
            return self.buffer[nbytes:]
        return self.buffer

    def pending(self) -> bool:
        """Say whether something was received that `take` has not seen."""
        state = self.state
        return bool(state.got) and (state.large is None or _total(state.got) == len(state.large))

    def single(self) -> list[Frame] | None:
        """Return the transmission if there is exactly one, whole and of small frames; else None: call `take` then.

        It is the commonest case by far, made short.
        """
        state = self.state
        got = state.got
        if not state.idle or len(got) != 1:
            return None
        received_nbytes, control, _, _ = got[0]
        if control or not FIRST.size <= received_nbytes < LARGE_NBYTES:
            return None
        buffer = self.buffer
        count = (_word(buffer)[0] ^ MAGIC) + 1
        if count > 16:
            return None
        pos = 4 + 8 * count
        lengths = _lengths_of[count](buffer, 4)
        if pos + sum(lengths) != received_nbytes:
            return None
        frames: list[Frame] = []
        for nbytes in lengths:
            frames.append(buffer[pos : pos + nbytes].tobytes())
            pos += nbytes
        state.got = []
        return frames

    def _keep_descriptors(self) -> None:
        """Make objects of the file descriptors that came, which close them if nobody takes them."""
        state, fds, lost = self.state, list[Descriptor](), False
        numbers = []
        for _, control, flags, _ in state.got:
            numbers += shared.descriptors(control)
            lost = lost or bool(flags & socket.MSG_CTRUNC)
        fds = [Descriptor(-1) for _ in numbers]
        kept = _State(
            state.lengths, state.frames, state.rest, state.large, nbytes=_total(state.got), fds=[*state.fds, *fds]
        )
        self.state = kept
        # Only now are they responsible: an interruption before this may lose a descriptor, never close one twice.
        for descriptor, fd in zip(fds, numbers, strict=True):
            descriptor.fd = fd
        if lost:
            raise ProtocolError("file descriptors were lost on the way: the limit of open files is too low here")

    def take(self) -> list[list[Frame]]:
        """Return the transmissions that are complete.

        Raises
        ------
        ProtocolError
            The bytes are no transmission, or over a limit. The stream cannot go on.
        """
        for _, control, flags, _ in self.state.got:
            if control or flags & socket.MSG_CTRUNC:
                self._keep_descriptors()
                break
        state = self.state
        if state.large is not None:
            return self._take_large(state, state.large)
        end = _total(state.got) + len(state.rest)
        return self._parse(0, end, state.lengths, list(state.frames))

    def _take_large(self, state: _State, large: memoryview) -> list[list[Frame]]:
        nbytes = _total(state.got)
        if nbytes < len(large):
            if len(state.got) > 16:
                self.state = _State(state.lengths, state.frames, b"", large, nbytes=nbytes, fds=state.fds)
            return []
        if state.lengths is None:  # this was the rest of a long header
            return self._parse(0, 0, self._lengths(large), [])
        return self._parse(0, 0, state.lengths, [*state.frames, large])

    def _parse(self, pos: int, end: int, lengths: tuple[int, ...] | None, frames: list[Frame]) -> list[list[Frame]]:
        """Take transmissions out of ``buffer[pos:end]``, the first of which may be under way."""
        buffer = self.buffer
        done: list[list[Frame]] = []
        large: memoryview | None = None
        fds = list(self.state.fds)
        while True:
            if lengths is None:
                if end - pos < FIRST.size:
                    break
                word, first = FIRST.unpack_from(buffer, pos)
                count = (word ^ MAGIC) + 1
                if count == 1 and first < LARGE_NBYTES:  # the shortest way for the commonest case
                    stop = pos + FIRST.size + first
                    if stop > end:
                        break
                    done.append([buffer[pos + FIRST.size : stop].tobytes()])
                    pos = stop
                    continue
                if count > self.max_frames:
                    raise ProtocolError(
                        "the bytes are no transmission of the hpc protocol"
                        if word & 0xFFFF0000 != MAGIC
                        else f"a transmission of {count} frames is announced, the limit is {self.max_frames}"
                    )
                if count > LONG_HEADER:
                    large, nbytes = allocate(8 * count), min(8 * count, end - pos - WORD.size)
                    large[:nbytes] = buffer[pos + WORD.size : pos + WORD.size + nbytes]
                    pos += WORD.size + nbytes
                    if nbytes < 8 * count:
                        self.state = _State(None, [], b"", large, nbytes=nbytes, fds=fds)
                        return done
                    lengths, large = self._lengths(large), None
                else:
                    stop = pos + WORD.size + 8 * count
                    if stop > end:
                        break
                    lengths = self._lengths(buffer[pos + WORD.size : stop])
                    pos = stop
            for nbytes in lengths[len(frames) :] if frames else lengths:
                stop = pos + nbytes
                if nbytes < LARGE_NBYTES:
                    if stop > end:
                        break
                    frames.append(buffer[pos:stop].tobytes())
                elif nbytes & FLAG:
                    stop = pos + shared.DESCRIPTOR.size
                    if stop > end:
                        break
                    frame: Any = shared.unpack(buffer[pos:stop], nbytes ^ FLAG, frames, fds)
                    frames.append(frame)
                else:
                    large = allocate(nbytes)
                    if stop > end:
                        large[: end - pos] = buffer[pos:end]
                        self.state = _State(lengths, frames, b"", large, nbytes=end - pos, fds=fds)
                        return done
                    large[:] = buffer[pos:stop]
                    frames.append(large)
                pos = stop
            if len(frames) < len(lengths):
                break
            done.append(frames)
            lengths, frames = None, []
        self.state = _State(lengths, frames, buffer[pos:end].tobytes(), fds=fds)
        return done

    def _lengths(self, table: memoryview) -> tuple[int, ...]:
        count = len(table) // 8
        lengths: tuple[int, ...] = LENGTHS[count].unpack(table) if count <= 16 else struct.unpack(f"<{count}Q", table)
        limit = self.max_frame_nbytes
        if max(lengths) > limit:
            for nbytes in lengths:
                if nbytes > limit and not FLAG < nbytes <= FLAG + limit:
                    raise ProtocolError(f"a frame of {nbytes} bytes is announced, the limit is {limit} bytes")
        return lengths


def _total(got: list[Received]) -> int:
    return sum([each[0] for each in got])
