"""Who is at the other end of a unix socket, as the kernel tells it."""

import socket
import struct
import sys


def peer_credentials(sock: socket.socket) -> tuple[int, int]:
    """Return user id and process id of the other end; the process id is 0 where the kernel does not tell it."""
    if sys.platform == "linux":
        pid, uid, _ = struct.unpack(
            "iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
        )
        return uid, pid
    else:  # noqa: RET505 - the type checker knows platforms by if and else
        # macOS and the BSDs: struct xucred {version, uid, ...}; LOCAL_PEERCRED is 1 and LOCAL_PEERPID 2 at level 0.
        _, uid = struct.unpack_from("II", sock.getsockopt(0, 1, 76))
        try:
            return uid, sock.getsockopt(0, 2)
        except OSError:
            return uid, 0
