"""Bare pyzmq that moves the same bytes over the same hops as route `tcp`: client, one Python ROUTER, workers.

``python -m benchmarks.raw_relay --workers 4`` starts router and workers, prints how to reach them as one line of JSON,
and ends with its stdin. Data goes in one message, or in pieces that the worker asks for, so many at a time. With
``--direct`` the client is connected to a single worker, without a router.
"""

import argparse
import json
import mmap
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import zmq

from benchmarks.raw import end_with

PIECE_NBYTES = 1 << 20
WINDOW = 8


class RawRelay:
    """A client of a raw relay that it starts and ends; ``with`` gives itself."""

    def __init__(self, workers: int, *options: str) -> None:
        self.workers, self.options = workers, options

    def __repr__(self) -> str:
        return f"<RawRelay {self.workers} workers {' '.join(self.options)}>"

    def __enter__(self) -> "RawRelay":
        command = [sys.executable, "-m", "benchmarks.raw_relay", "--workers", str(self.workers), *self.options]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        contact = json.loads(self.process.stdout.readline())  # type: ignore[union-attr]
        self.context = zmq.Context()
        self.socket = connect(self.context, b"client", contact)
        self.socket.recv()  # all workers are there
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close(0)
        self.context.term()
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait(20)
        self.process.stdout.close()  # type: ignore[union-attr]

    def whole(self, parts: Sequence[memoryview]) -> None:
        """Send each worker its part in one message, and wait until all have it."""
        for i, part in enumerate(parts):
            self.socket.send_multipart([b"%d" % i, b"whole", part], copy=False)
        for _ in parts:
            self.socket.recv_multipart()

    def pieces(self, parts: Sequence[memoryview]) -> None:
        """Send each worker its part as it asks for it, and wait until all have it."""
        for i, part in enumerate(parts):
            self.socket.send_multipart([b"%d" % i, b"fetch", b"%d" % len(part)])
        left = len(parts)
        while left:
            worker, answer = self.socket.recv_multipart()
            if answer == b"done":
                left -= 1
                continue
            start = int(answer)
            piece = parts[int(worker)][start : start + PIECE_NBYTES]
            self.socket.send_multipart([worker, b"piece", piece], copy=False)


def connect(context: zmq.Context, name: bytes, contact: dict[str, str]) -> zmq.Socket:
    """Connect to the router, or to a worker."""
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.IDENTITY, name)
    socket.set_hwm(0)
    if contact["key"]:
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        socket.curve_serverkey = contact["key"].encode()
    socket.connect(contact["address"])
    socket.send_multipart([b"", b"here"])
    return socket


def listen(context: zmq.Context, kind: int, encrypted: bool) -> tuple[zmq.Socket, dict[str, str]]:
    """Return a socket that listens, and how to reach it."""
    socket = context.socket(kind)
    socket.set_hwm(0)
    key = ""
    if encrypted:
        public, secret = zmq.curve_keypair()
        socket.curve_secretkey, socket.curve_publickey, socket.curve_server, key = secret, public, True, public.decode()
    socket.bind("tcp://127.0.0.1:*")
    return socket, {"address": socket.last_endpoint.decode().rstrip("\0"), "key": key}


def relay(socket: zmq.Socket, workers: int) -> None:
    """Pass on for ever: to the worker that the client names, and to the client what workers say."""
    for _ in range(workers + 1):
        socket.recv_multipart()
    socket.send_multipart([b"client", b"go"])
    while True:
        sender, *frames = socket.recv_multipart(copy=False)
        if sender.bytes == b"client":
            socket.send_multipart(frames, copy=False)
        else:
            socket.send_multipart([b"client", sender, *frames], copy=False)


def work(receive: Any, send: Any) -> None:
    """Take what comes for ever."""
    while True:
        kind, data = receive()
        if kind.bytes == b"fetch":
            collect(int(data.bytes), receive, send)
        del data
        send(b"done")


def collect(nbytes: int, receive: Any, send: Any) -> None:
    """Ask for pieces and put them together."""
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    view, asked, got = memoryview(memory), 0, 0
    while got < nbytes:
        while asked < min(nbytes, got + WINDOW * PIECE_NBYTES):
            send(b"%d" % asked)
            asked += PIECE_NBYTES
        _, piece = receive()
        view[got : got + len(piece)] = piece.buffer
        got += len(piece)


def worker(number: int, contact: dict[str, str], io_threads: int) -> None:
    """Be a worker behind the router."""
    socket = connect(zmq.Context(io_threads), b"%d" % number, contact)
    work(lambda: socket.recv_multipart(copy=False), socket.send)


def main() -> int:
    """Fork the workers, then be the router; or, without one, the worker."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--direct", action="store_true")
    parser.add_argument("--io-threads", type=int, default=1)
    options = parser.parse_args()
    pipes = []
    for i in range(0 if options.direct else options.workers):
        read, write = os.pipe()
        if os.fork() == 0:
            for fd in (write, *pipes):
                os.close(fd)
            end_with(0)
            with open(read) as pipe:
                worker(i, json.loads(pipe.read()), options.io_threads)
        os.close(read)
        pipes.append(write)
    end_with(0)
    context = zmq.Context(options.io_threads)
    socket, contact = listen(context, zmq.DEALER if options.direct else zmq.ROUTER, not options.plain)
    for pipe in pipes:
        os.write(pipe, json.dumps(contact).encode())
        os.close(pipe)
    print(json.dumps(contact), flush=True)
    if options.direct:
        socket.recv_multipart()
        socket.send(b"go")
        work(lambda: socket.recv_multipart(copy=False)[1:], lambda answer: socket.send_multipart([b"0", answer]))
    relay(socket, options.workers)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
