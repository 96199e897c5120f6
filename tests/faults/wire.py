"""A wire between two network interfaces that delays, drops, doubles, reorders and forgets: netem in user space.

Not every kernel has netem, and none has a NAT that forgets at the right moment. Run in the namespace of the interfaces:
``python wire.py p1 p2``; settings come as lines of JSON on standard input, each is answered by a line.
"""

import heapq
import json
import random
import select
import socket
import sys
import time

OUTGOING = 4  # PACKET_OUTGOING: what this process sent itself
TCP = 6
SYN, ACK = 0x02, 0x10
DEFAULTS = {"cut": [], "drop": 0.0, "double": 0.0, "delay_s": 0.0, "jitter_s": 0.0, "forget": False}


class Wire:
    """Frames on their way. ``cut`` names the ends that nothing from comes through; jitter is what reorders."""

    def __init__(self, names, seed=0):
        self.ends = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) for _ in names]
        for end, name in zip(self.ends, names, strict=True):
            end.bind((name, 0))
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.settings = dict(DEFAULTS)
        self.under_way = []
        self.n = 0
        self.random = random.Random(seed)
        self.flows = set()
        self.forgotten = set()

    def set(self, settings):
        settings = {**DEFAULTS, **settings}
        if settings["forget"]:
            self.forgotten |= self.flows
            self.flows = set()
        self.settings = settings

    def take(self, side, frame, now):
        """Decide what becomes of a frame that came in at an end."""
        settings, chance = self.settings, self.random.random
        if side in settings["cut"] or self.is_forgotten(frame) or chance() < settings["drop"]:
            return
        for _ in range(2 if chance() < settings["double"] else 1):
            self.n += 1
            due = now + settings["delay_s"] + settings["jitter_s"] * chance()
            heapq.heappush(self.under_way, (due, self.n, 1 - side, frame))

    def is_forgotten(self, frame):
        """Say whether a packet belongs to a connection of before the NAT forgot; a new SYN makes a new connection."""
        if frame[12:14] != b"\x08\x00" or frame[23] != TCP:
            return False
        ports = 14 + 4 * (frame[14] & 15)
        flow = frozenset(((frame[26:30], frame[ports : ports + 2]), (frame[30:34], frame[ports + 2 : ports + 4])))
        if frame[ports + 13] & (SYN | ACK) == SYN:
            self.forgotten.discard(flow)
        self.flows.add(flow)
        return flow in self.forgotten

    def send_due(self, now):
        while self.under_way and self.under_way[0][0] <= now:
            _, _, side, frame = heapq.heappop(self.under_way)
            try:
                self.ends[side].send(frame)
            except OSError:
                continue  # its host is gone, or its queue is full: a packet may be lost

    def run(self):
        poll = select.poll()
        sides = {end.fileno(): side for side, end in enumerate(self.ends)}
        for fd in (*sides, sys.stdin.fileno()):
            poll.register(fd, select.POLLIN)
        while True:
            now = time.monotonic()
            self.send_due(now)
            wait_ms = 1000 * max(0.0, self.under_way[0][0] - now) if self.under_way else None
            for fd, _ in poll.poll(wait_ms):
                if fd not in sides:
                    line = sys.stdin.readline()
                    if not line:
                        return
                    self.set(json.loads(line))
                    print("set", flush=True)
                    continue
                for _ in range(64):
                    try:
                        frame, address = self.ends[sides[fd]].recvfrom(65536, socket.MSG_DONTWAIT)
                    except BlockingIOError:
                        break
                    if address[2] != OUTGOING:
                        self.take(sides[fd], frame, time.monotonic())


if __name__ == "__main__":
    print("ready", flush=True)
    Wire(sys.argv[1:]).run()
