"""What both ends of a TCP connection have in common: socket options, and the words for what a monitor reports.

Only the modules of the TCP route import this, and with it zmq.
"""

import itertools
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from hpc.transport.framing import LARGE_NBYTES, MAX_FRAME_NBYTES, Frame, pack, unpack
from hpc.transport.shared import SharedFrame

if TYPE_CHECKING:
    zmq: Any  # the type checker does not look into it
else:
    import zmq

HEARTBEAT_IVL_MS: Final = 5000
HEARTBEAT_TIMEOUT_MS: Final = 10000
# What the other side is told to wait for a sign of us before it gives up.
HEARTBEAT_TTL_MS: Final = 15000
# After this the kernel gives up a connection on which what was sent is not acknowledged. zmq cannot tell: while it has
# something to send that nobody takes it sends no heartbeats, and so waits for none.
UNSENT_MS: Final = 15000
HANDSHAKE_MS: Final = 10000
LINGER_MS: Final = 500
# Frames from this size on are handed to zmq without a copy.
ZERO_COPY_NBYTES: Final = 1024 * 1024
# How long a piece of a shared frame may take; everybody waits meanwhile.
PATIENCE_S: Final = 5.0

_get: Final = zmq.backend.Socket.get  # the method of the C part, without a layer of Python above it
_EVENTS: Final = int(zmq.EVENTS)
# As plain integers: operations on the enumerations of pyzmq cost more than the calls they are for.
NOBLOCK: Final = int(zmq.NOBLOCK)
SNDMORE: Final = int(zmq.SNDMORE)
POLLIN: Final = int(zmq.POLLIN)

SUCCEEDED: Final = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
DISCONNECTED: Final = int(zmq.EVENT_DISCONNECTED)
ACCEPTED: Final = int(zmq.EVENT_ACCEPTED)
FAILED_AUTH: Final = int(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
FAILED_PROTOCOL: Final = int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
FAILED_NO_DETAIL: Final = int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
EVENTS: Final = SUCCEEDED | DISCONNECTED | ACCEPTED | FAILED_AUTH | FAILED_PROTOCOL | FAILED_NO_DETAIL

_REASONS: Final = {
    int(zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC): "it has a wrong key for the controller",
    int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH): "it does not encrypt",
}


_numbers = itertools.count()


def configure(sock: Any) -> None:
    """Set what both ends want: no limit on messages under way, signs of life, a limit on the size of a frame."""
    for option, value in (
        (zmq.SNDHWM, 0),
        (zmq.RCVHWM, 0),
        (zmq.LINGER, LINGER_MS),
        (zmq.HEARTBEAT_IVL, HEARTBEAT_IVL_MS),
        (zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS),
        (zmq.HEARTBEAT_TTL, HEARTBEAT_TTL_MS),
        (zmq.HANDSHAKE_IVL, HANDSHAKE_MS),
        (zmq.TCP_MAXRT, UNSENT_MS),
        (zmq.TCP_KEEPALIVE, 1),
        (zmq.TCP_KEEPALIVE_IDLE, 30),
        (zmq.TCP_KEEPALIVE_INTVL, 10),
        (zmq.TCP_KEEPALIVE_CNT, 3),
        (zmq.MAXMSGSIZE, MAX_FRAME_NBYTES),
    ):
        sock.setsockopt(option, value)


def monitor(context: Any, sock: Any, events: int) -> Any:
    """Return a socket on which the events of another one arrive; none is ever dropped."""
    address = f"inproc://monitor-{next(_numbers)}"
    sock.monitor(address, events)
    pair = context.socket(zmq.PAIR)
    pair.setsockopt(zmq.RCVHWM, 0)
    pair.setsockopt(zmq.LINGER, 0)
    pair.connect(address)
    return pair


def readable(sock: Any) -> bool:
    """Say whether a message can be received, whatever the descriptor of the socket shows."""
    return bool(_get(sock, _EVENTS) & POLLIN)


def next_event(pair: Any) -> tuple[int, int] | None:
    """Return the next event and its value (a descriptor, or why it failed), None if there is none."""
    if not readable(pair):
        return None
    parts = pair.recv_multipart(NOBLOCK)
    event, value = struct.unpack_from("=HI", parts[0])
    return event, value


def protocol_reason(value: int) -> str:
    """Return in words why a handshake failed, from the value of a FAILED_PROTOCOL event."""
    return _REASONS.get(value, f"it does not speak ZMTP with CURVE (0x{value:x})")


def received(parts: list[Any]) -> list[Frame]:
    """Return the frames of a message: small ones as bytes, large ones as the writable memory they came in."""
    if len(parts) == 1 and len(parts[0]) < LARGE_NBYTES:
        return unpack(bytes(parts[0]))
    return [bytes(part) if len(part) < LARGE_NBYTES else memoryview(part) for part in parts]


def parts_of(frames: Sequence[Frame]) -> Sequence[Frame]:
    """Return a transmission as the parts of a message: one if it is small, since each costs both ends some time."""
    if len(frames) == 1 or SharedFrame in map(type, frames):
        return frames
    packed = pack(frames)
    return (packed,) if type(packed) is bytes else frames


def outgoing(frame: Any) -> tuple[Any, bool]:
    """Return how to send a frame: what to hand to zmq, and whether it shall copy.

    A frame that zmq has received goes out as it is, without a copy: its memory is counted. One in shared memory goes
    out of there.
    """
    if type(frame) is SharedFrame:
        frame = frame.view(PATIENCE_S)
    nbytes = frame.nbytes if type(frame) is memoryview else len(frame)
    if nbytes < ZERO_COPY_NBYTES:
        return frame, True
    if type(frame) is memoryview and isinstance(frame.obj, zmq.Frame) and len(frame.obj) == nbytes:
        return frame.obj, False
    return frame, False
