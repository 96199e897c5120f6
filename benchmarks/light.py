"""Engines that weigh nothing: many in one process, each with both of its connections, the real protocol, and no work.

``python -m benchmarks.light CONNECTION_FILE N`` prints how long it took until all had been welcomed, then answers what
they are sent, until standard input ends. Each task's result is None.
"""

import os
import pickle
import select
import socket
import sys
import time
import uuid

from hpc.security.connection import ConnectionInfo
from hpc.security.host import boot_id, own_start_ticks
from hpc.transport import connect
from hpc.wire import codec
from hpc.wire import messages as m
from hpc.wire.session import Peer


class LightEngine:
    """Both channels of an engine that has nothing behind them."""

    def __init__(self, number: int) -> None:
        self.info = m.EngineInfo(
            uuid.uuid4().hex, uuid.uuid4().hex, 0, 1, socket.gethostname(), os.getpid(), own_start_ticks(), boot_id()
        )
        self.number = number

    def hello(self, channel: str) -> m.Hello:
        """Return what one of its channels says first."""
        return m.Hello(codec.PROTOCOL, "light", "engine", self.info.uuid, channel, 0, "h", os.getpid(), "u", self.info)


def results(run: m.Run) -> tuple[m.Results, list[bytes]]:
    """Return what an engine says that has done nothing, so often."""
    n, now = run.stop - run.start, time.time()
    entry = m.Entry(m.Status.DONE, now, now, pickle.dumps([None] * n, 5))
    message = m.Results(run.client, run.first, run.start, run.stop, True, [], 1e-6 * n)
    return message, [codec.encode_entries([entry])]


def main() -> None:
    """Connect all, tell how long it took, and serve."""
    info, n = ConnectionInfo.load(sys.argv[1]), int(sys.argv[2])
    poll, channels, welcome = select.poll(), {}, 0
    began = time.monotonic()
    for number in range(n):
        engine = LightEngine(number)
        for name in ("control", "work"):
            connection = connect(unix=info.unix, timeout_s=60)
            channels[connection.fileno()] = connection, Peer(engine.hello(name))
            poll.register(connection.fileno(), select.POLLIN)
    poll.register(sys.stdin.fileno(), select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == sys.stdin.fileno():
                return
            connection, peer = channels[fd]
            while (frames := connection.recv_nowait()) is not None:
                message, answers = peer.receive(frames)
                for answer in answers:
                    connection.send(answer)
                if type(message) is m.Run:
                    packed = peer.pack(*results(message))
                    if packed is not None:
                        connection.send(packed)
                elif type(message) is m.Revoke:
                    revoked = m.Revoked(message.client, message.first, message.stop, message.stop)
                    packed = peer.pack(revoked)
                    if packed is not None:
                        connection.send(packed)
                elif type(message) is m.Welcome:
                    welcome += 1
                    if welcome == 2 * n:
                        print(time.monotonic() - began, flush=True)
                elif type(message) is m.Stop:
                    return


if __name__ == "__main__":
    main()
