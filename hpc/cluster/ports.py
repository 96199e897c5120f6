"""Which port a controller shall listen at, where nobody has asked for one."""

import socket

from hpc.cluster.options import DEFAULT_PORT


def choose(ip: str) -> tuple[int, str]:
    """Return the default port, or 0 (any free one) and the reason if that is taken."""
    with socket.socket() as probe:
        # As the controller will: what a former one left in TIME_WAIT is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("" if ip == "*" else ip, DEFAULT_PORT))
        except OSError:
            return 0, f"port {DEFAULT_PORT} is taken by another program: using port "
    return DEFAULT_PORT, ""
