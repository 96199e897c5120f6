"""A controller with engines, all in one thread of this process, for tests of the client."""

import contextlib
import pickle
import queue
import socket
import threading
import time

from hpc.client.connecting import new_peer
from hpc.client.link import Link
from hpc.client.remote import RemoteController
from hpc.errors import ConnectError
from hpc.transport.unix import UnixConnection
from hpc.wire import codec, failures, functions, objects
from hpc.wire import messages as m
from hpc.wire.session import GapError, Session


class TcpLike(UnixConnection):
    """Is handled as a zmq connection is; ``up`` plays what its monitor says."""

    route = "tcp"
    up = True

    @property
    def connected(self):
        return self.up


class FakeTarget:
    def __init__(self, open_connection):
        self.open = open_connection

    def __str__(self):
        return "the fake"


class FakeController:
    """Speaks the protocol over socket pairs and runs tasks at once, one engine after the other.

    ``hold`` keeps tasks until it is cleared by `release`; what was submitted stands in ``submits``.
    """

    def __init__(self, n=4):
        self.rows = {i: m.EngineRow(i, i, n, "g", "n1", 100 + i, "idle") for i in range(n)}
        self.names = {i: {"id": i, "rank": i} for i in range(n)}
        self.session = Session()
        self.known = set()
        self.functions = {}
        self.submits = []
        self.heard = []
        self.held = []
        self.hold = False
        self.answers = True
        self.refuse = None
        self.lossy = False
        self.conn = None
        self.opened = 0
        self.received_at_hello = []
        self.commands = queue.SimpleQueue()
        self.lock = threading.RLock()
        self.next = 0
        self.pack_spans = True
        self.conns = []
        self.connection_class = UnixConnection
        self.clients = []

    # ------------------------------------------------------------ as the client's opener

    def open(self, timeout_s):
        if self.refuse is not None:
            raise ConnectError(self.refuse)
        ours, theirs = socket.socketpair()
        self.opened += 1
        conn = UnixConnection(ours)
        self.conns.append(conn)
        threading.Thread(target=self.serve, args=(conn,), daemon=True).start()
        self.client_end = self.connection_class(theirs, "the fake")
        return self.client_end

    def serve(self, conn):
        with self.lock:
            self.conn = conn
        try:
            conn.send([codec.encode(m.Identify(codec.PROTOCOL, "0", "c1"))])
            while True:
                frames = conn.recv()
                with self.lock:
                    if conn is self.conn:
                        self.take(conn, frames)
        except (ConnectionError, OSError, ValueError):
            conn.close()

    def take(self, conn, frames):
        try:
            seq, ack, message = codec.from_peer(frames[0], "client")
        except Exception:
            _, _, hello = codec.from_peer(frames[0], "stranger")
            resumed = hello.session in self.known
            if not resumed:
                self.session = Session()
                self.functions.clear()
            self.known.add(hello.session)
            self.received_at_hello.append(hello.received)
            conn.send([codec.encode(m.Welcome(self.session.received, resumed, 1))])
            for repeated in self.session.resume(hello.received) if resumed else ():
                conn.send(repeated)
            self.say(m.Engines(list(self.rows.values()), [], True))
            return
        try:
            if not self.session.accept(seq, ack, frames):
                return
        except GapError:
            conn.send([codec.encode(m.Identify(codec.PROTOCOL, "0", "c1"))])
            return
        if self.session.ack_due():
            conn.send(self.session.acknowledge())
        self.heard.append(message)
        if isinstance(message, m.Define):
            self.functions[message.digest] = functions.load_function(message.name, *frames[1:]).call
        elif isinstance(message, m.Submit):
            self.submits.append(message)
            if self.hold:
                self.held.append((message, frames))
            else:
                self.run(message, frames)
        elif isinstance(message, m.Query):
            self.say(m.Answer(message.request, message.what, "" if message.what != "nonsense" else "no such query"))
        elif isinstance(message, m.Abort):
            for submit, body in list(self.held):
                if submit.first == message.first:
                    self.held.remove((submit, body))
                    self.say(m.Ended(message.first, message.start, message.stop, m.EndReason.ABORTED, ""))
        elif isinstance(message, m.Shutdown):
            self.say(m.Answer(message.request, None))
            gone = list(self.rows) if message.targets is None else message.targets
            ends = [m.End(i, i, "n1", 100 + i, m.EndReason.SHUTDOWN) for i in gone]
            for i in gone:
                del self.rows[i]
            self.say(m.Engines([], ends))
            if message.controller:
                self.say(m.Goodbye("shut down by a client"))

    # ------------------------------------------------------------ engines

    def run(self, submit, frames):
        if submit.kind == m.Kind.SPAN:
            columns = objects.loads(frames[1:])
            calls = [(submit.functions[0], tuple(column[i] for column in columns), {}) for i in range(submit.count)]
        else:
            calls, at = [], 2
            for index, n, payload in codec.decode_calls(frames[1]):
                args, kwargs = objects.loads([payload, *frames[at : at + n]])
                at += n
                calls.append((submit.functions[index], args, kwargs))
            if submit.kind == m.Kind.EACH:
                calls *= submit.count
        if submit.kind == m.Kind.EACH:
            for offset, engine in enumerate(submit.targets):
                if engine in self.rows:
                    self.results(submit.first, offset, [self.call(engine, *calls[offset])], engine)
            return
        engine = submit.targets[0] if submit.targets else self.next % max(1, len(self.rows))
        self.next += 1
        entries = [self.call(engine, *call) for call in calls]
        packed = submit.kind == m.Kind.SPAN and self.pack_spans and all(e.status == m.Status.DONE for e, _ in entries)
        self.results(submit.first, 0, entries, engine, packed)

    def call(self, engine, digest, args, kwargs):
        names, now = self.names[engine], time.time()
        try:
            if digest == b"!execute" or digest == b"!run":
                value, text = None, []
                names["print"] = lambda *a: text.append(" ".join(map(str, a)) + "\n")
                exec(args[0], names)
                return m.Entry(m.Status.DONE, now, time.time(), pickle.dumps(None), stdout="".join(text)), []
            if digest in (b"!push", b"!bind"):
                value = names.update(args[0])
            elif digest == b"!describe":
                if args[0] not in names:
                    raise NameError(f"name {args[0]!r} is not defined on engine {engine}")
                value = 0, names[args[0]]
            elif digest == b"!pull":
                value = []
                for name in args[0]:
                    if name not in names:
                        raise NameError(f"name {name!r} is not defined on engine {engine}")
                    value.append(names[name])
            else:
                value = self.functions[digest](*args, **kwargs)
        except Exception as error:
            return m.Entry(m.Status.FAILED, now, time.time(), failures.dump_error(error, f"Traceback {error!r}")), []
        payload, *buffers = objects.dumps(value)
        return m.Entry(m.Status.DONE, now, time.time(), bytes(payload), len(buffers)), buffers

    def results(self, first, start, entries, engine, packed=False):
        if packed:
            values = [objects.loads([e.payload, *b]) for e, b in entries]
            payload, *buffers = objects.dumps(values)
            body = [codec.encode_entries([m.Entry(m.Status.DONE, 1.0, 2.0, bytes(payload), len(buffers))]), *buffers]
        else:
            body = [codec.encode_entries([e for e, _ in entries]), *(b for _, bs in entries for b in bs)]
        self.say(m.Delivery([m.Delivered(first, start, start + len(entries), engine, packed, len(body))]), body)

    # ------------------------------------------------------------ what tests do

    def say(self, message, frames=()):
        with self.lock:
            packed = self.session.pack(message, frames)
            if self.conn is not None and not self.lossy:
                with contextlib.suppress(ConnectionError):
                    self.conn.send(packed)

    def release(self):
        with self.lock:
            self.hold = False
            held, self.held = self.held, []
            for submit, frames in held:
                self.run(submit, frames)

    def cut(self):
        with self.lock:
            conn, self.conn = self.conn, None
            if conn is not None:
                conn.close()

    def kill(self, engine, signal=9):
        with self.lock:
            row = self.rows.pop(engine)
            end = m.End(engine, row.rank, row.host, row.pid, m.EndReason.SIGNAL, signal)
            self.say(m.Engines([], [end]))
            for submit, _ in self.held:
                for offset, target in enumerate(submit.targets or []):
                    if target == engine:
                        stop = offset + 1 if submit.kind == m.Kind.EACH else submit.count
                        self.say(m.Ended(submit.first, offset, stop, m.EndReason.SIGNAL, "", end))
            return end

    def join(self, engine):
        with self.lock:
            self.rows[engine] = m.EngineRow(engine, 0, 1, f"g{engine}", "n2", 200 + engine, "idle")
            self.names[engine] = {"id": engine, "rank": 0}
            self.say(m.Engines([self.rows[engine]], []))

    def wait_for(self, condition, timeout_s=5):
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "the fake controller waited in vain"
            time.sleep(0.001)

    def client(self, **options):
        rc = RemoteController(name="fake", **options)
        rc._target = FakeTarget(self.open)
        rc._link = rc._new_link()
        self.clients.append(rc)
        return rc

    def link(self, **options):
        link = Link(self.open, new_peer(), **options)
        self.clients.append(link)
        return link

    def close(self):
        for client in self.clients:
            client.close()
        for conn in self.conns:
            conn.close()
