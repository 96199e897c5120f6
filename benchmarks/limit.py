"""The floor under a round trip with our hops: blocking unix sockets, no protocol, no framing, no polling.

Client, relay and worker are three processes; a message is one ``send`` and one ``recv``. Works for one small task at a
time and nothing else: it is the floor under `roundtrip`, not a way to build anything.
"""

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable

NBYTES = 65536


class BareCluster:
    """A relay and a worker behind a socket; ``with`` gives itself."""

    def __enter__(self) -> "BareCluster":
        self.socket, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "benchmarks.limit", str(theirs.fileno())]
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()
        self.process.wait(10)

    def one(self, function: Callable[[object], object], argument: object) -> object:
        """Run one task and wait for its result."""
        self.socket.send(pickle.dumps((0, function, (argument,)), 5))
        return pickle.loads(self.socket.recv(NBYTES))[1]


def relay(client: socket.socket, worker: socket.socket) -> None:
    """Carry one message there and one back, until the client closes."""
    while task := client.recv(NBYTES):
        worker.send(task)
        client.send(worker.recv(NBYTES))


def work(link: socket.socket) -> None:
    """Run tasks until the relay closes."""
    while task := link.recv(NBYTES):
        i, function, arguments = pickle.loads(task)
        link.send(pickle.dumps((i, function(*arguments)), 5))


def main() -> None:
    """Fork the worker, be the relay."""
    client = socket.socket(fileno=int(sys.argv[1]))
    relay_end, worker_end = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        client.close()
        relay_end.close()
        work(worker_end)
        os._exit(0)
    worker_end.close()
    relay(client, relay_end)
    relay_end.close()
    os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
