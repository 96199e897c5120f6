"""Moves transmissions (lists of frames) between a peer and the controller; the only place that imports zmq.

A peer uses `connect` and gets a `Connection`; the controller has a `Server` and gets an `Arrival` for everything that
happens. Peers on the controller's host use a unix socket, others TCP with CURVE. zmq itself is imported when the
first TCP connection or server is made.
"""

from hpc.transport.connect import connect
from hpc.transport.connection import Connection
from hpc.transport.curve import new_keypair
from hpc.transport.framing import Frame
from hpc.transport.link import (
    CLOSED,
    FRAMES,
    NOBODY,
    NOISE,
    OPENED,
    WATCH,
    Arrival,
    ArrivalKind,
    Disconnected,
    Link,
)
from hpc.transport.server import Server

__all__ = [
    "CLOSED",
    "FRAMES",
    "NOBODY",
    "NOISE",
    "OPENED",
    "WATCH",
    "Arrival",
    "ArrivalKind",
    "Connection",
    "Disconnected",
    "Frame",
    "Link",
    "Server",
    "connect",
    "new_keypair",
]
