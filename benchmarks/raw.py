"""The raw baseline: a pyzmq broker with the hops of ours (DEALER client, Python ROUTER, DEALER workers) and no more.

``python -m benchmarks.raw --transport tcp --workers 4`` starts broker and workers, prints one line of JSON that says
how to reach it, and ends when its client says so or its stdin closes. A task is one message: the pickle of
(id, function, arguments), answered by the pickle of (id, result).
"""

import argparse
import itertools
import json
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable

import zmq

TRANSPORTS = ("tcp", "ipc", "curve")
EVERY, QUIT = b"*", b"quit"


class RawCluster:
    """A client of a raw broker that it starts and ends; ``with`` gives itself."""

    def __init__(self, transport: str, workers: int) -> None:
        self.transport, self.workers = transport, workers

    def __repr__(self) -> str:
        return f"<RawCluster {self.transport}, {self.workers} workers>"

    def __enter__(self) -> "RawCluster":
        command = [sys.executable, "-m", "benchmarks.raw", "--transport", self.transport]
        self.process = subprocess.Popen(
            [*command, "--workers", str(self.workers)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        contact = json.loads(self.process.stdout.readline())  # type: ignore[union-attr]
        self.pids: list[int] = [self.process.pid, *contact["pids"]]
        self.context = zmq.Context()
        self.socket = dealer(self.context, b"client", contact["address"], contact["server_key"])
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.send_multipart([QUIT, b""])
        self.socket.close()
        self.context.term()
        self.process.wait(20)  # its stdin stays open till then: else it would take us for dead, and not clean up
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.stdout.close()  # type: ignore[union-attr]

    def one(self, function: Callable[[object], object], argument: object, worker: int = 0) -> object:
        """Run one task on that worker and wait for its result."""
        self.socket.send_multipart([b"%d" % worker, pickle.dumps((0, function, (argument,)), 5)])
        return pickle.loads(self.socket.recv_multipart()[0])[1]

    def many(self, function: Callable[[object], object], arguments: list[object]) -> list[object]:
        """Run one task per argument, spread over the workers, each a message of its own."""
        for i, argument in enumerate(arguments):
            self.socket.send_multipart([b"", pickle.dumps((i, function, (argument,)), 5)])
        return self._collect(len(arguments))

    def each(self, function: Callable[[object], object], argument: object) -> list[object]:
        """Run the task on every worker: one message for each."""
        for i in range(self.workers):
            self.socket.send_multipart([b"%d" % i, pickle.dumps((i, function, (argument,)), 5)])
        return self._collect(self.workers)

    def fan_out(self, function: Callable[[object], object], argument: object) -> list[object]:
        """Run the task on every worker: one message to the broker, which makes copies."""
        self.socket.send_multipart([EVERY, pickle.dumps((0, function, (argument,)), 5)])
        return [pickle.loads(self.socket.recv_multipart()[0])[1] for _ in range(self.workers)]

    def _collect(self, count: int) -> list[object]:
        results: list[object] = [None] * count
        for _ in range(count):
            i, result = pickle.loads(self.socket.recv_multipart()[0])
            results[i] = result
        return results


def dealer(context: zmq.Context, identity: bytes, address: str, server_key: str) -> zmq.Socket:
    """Connect to the broker."""
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.IDENTITY, identity)
    socket.set_hwm(0)
    if server_key:
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        socket.curve_serverkey = server_key.encode()
    socket.connect(address)
    return socket


def broker(socket: zmq.Socket, workers: int, announce: Callable[[], None]) -> None:
    """Relay until the client says quit. Workers send [client, result], the client [worker or nothing, task]."""
    names = [b"%d" % i for i in range(workers)]
    known = set(names)
    for _ in names:
        socket.recv_multipart()
    announce()
    turn = itertools.cycle(names)
    while True:
        frames = socket.recv_multipart()
        sender = frames[0]
        if sender in known:
            socket.send_multipart(frames[1:])
            continue
        _, target, task = frames
        if target == EVERY:
            for name in names:
                socket.send_multipart([name, sender, task])
        elif target == QUIT:
            break
        else:
            socket.send_multipart([target or next(turn), sender, task])
    for name in names:
        socket.send_multipart([name, QUIT, b""])


def worker(number: int, address: str, server_key: str) -> None:
    """Run tasks until told to quit."""
    context = zmq.Context()
    socket = dealer(context, b"%d" % number, address, server_key)
    socket.send(b"")
    while True:
        client, task = socket.recv_multipart()
        if client == QUIT:
            break
        i, function, arguments = pickle.loads(task)
        socket.send_multipart([client, pickle.dumps((i, function(*arguments)), 5)])
    socket.close()
    context.term()


def end_with(fd: int) -> None:
    """End this process when the other end of the pipe is gone: nothing outlives a benchmark that was killed."""

    def wait() -> None:
        os.read(fd, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> int:
    """Fork the workers, which wait for the address, then be the broker."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--transport", choices=TRANSPORTS, required=True)
    parser.add_argument("--workers", type=int, required=True)
    options = parser.parse_args()
    life_read, life_write = os.pipe()
    pids, contacts = [], []
    for i in range(options.workers):
        contact_read, contact_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(life_write)
            os.close(contact_write)
            for fd in contacts:
                os.close(fd)
            with open(contact_read) as pipe:
                text = pipe.read()
            if not text:  # the broker died before it had an address
                os._exit(1)
            end_with(life_read)
            worker(i, **json.loads(text))
            os._exit(0)
        os.close(contact_read)
        pids.append(pid)
        contacts.append(contact_write)
    end_with(0)
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.set_hwm(0)
    contact = {"address": "", "server_key": ""}
    if options.transport == "curve":
        public, secret = zmq.curve_keypair()
        socket.curve_secretkey, socket.curve_publickey, socket.curve_server = secret, public, True
        contact["server_key"] = public.decode()
    with tempfile.TemporaryDirectory(prefix="hpc-bench-") as directory:
        socket.bind(f"ipc://{directory}/broker" if options.transport == "ipc" else "tcp://127.0.0.1:*")
        contact["address"] = socket.last_endpoint.decode().rstrip("\0")
        for fd in contacts:
            os.write(fd, json.dumps(contact).encode())
            os.close(fd)
        broker(socket, options.workers, lambda: print(json.dumps({**contact, "pids": pids}), flush=True))
        for pid in pids:
            os.waitpid(pid, 0)
        socket.close()
        context.term()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
