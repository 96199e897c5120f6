"""The unix route: strangers, garbage, stalled peers, and signals in the midst of everything."""

import dis
import os
import signal
import socket
import stat
import struct
import sys
import threading
import time

import pytest
from transport_harness import Harness

from hpc.errors import ConnectError, ProtocolError
from hpc.transport import CLOSED, FRAMES, NOISE, OPENED, Disconnected, Server, connect, framing, unix, unix_server
from hpc.transport.framing import pack
from hpc.transport.unix import UnixConnection


@pytest.fixture
def harness(tmp_path):
    harness = Harness("unix", tmp_path)
    yield harness
    harness.close()


@pytest.fixture
def raw(harness):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(harness.path)
    harness.await_arrivals(OPENED)
    yield sock
    sock.close()


@pytest.fixture
def pair():
    mine, theirs = socket.socketpair()
    with UnixConnection(mine, "the other end") as connection, theirs:
        yield connection, theirs


def test_the_kernel_tells_who_is_there(harness):
    _, link = harness.pair()
    assert link.pid == os.getpid()
    assert link.local
    assert link.roles == {"client", "engine", "monitor"}
    assert stat.S_IMODE(os.stat(harness.path).st_mode) == 0o600


def test_other_users_are_refused(harness, monkeypatch):
    monkeypatch.setattr(unix_server, "peer_credentials", lambda _: (12345, 678))
    connection = harness.connect()
    noise = harness.await_arrivals(NOISE)[0]
    assert "refused process 678 of user 12345" in noise.detail
    assert not harness.of(OPENED)
    with pytest.raises(Disconnected):
        connection.recv(1)
    monkeypatch.undo()
    harness.pair()


def test_a_socket_of_somebody_else_is_not_used(harness, monkeypatch):
    monkeypatch.setattr(sys.modules["hpc.transport.connect"], "peer_credentials", lambda _: (12345, 678))
    with pytest.raises(ConnectError, match="belongs to process 678 of user 12345"):
        harness.connect()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"GET / HTTP/1.1\r\nHost: example\r\n\r\n", "no transmission of the hpc protocol"),
        (os.urandom(64).replace(b"\xc1", b"\0"), "no transmission of the hpc protocol"),
        (struct.pack("<IQ", framing.MAGIC, 1 << 60), "a frame of 1152921504606846976 bytes is announced"),
        (struct.pack("<IQQ", framing.MAGIC + 1, 0, 1 << 63), "is announced, the limit is"),
    ],
)
def test_garbage_is_noise_and_others_go_on(harness, raw, data, text):
    connection, _ = harness.pair()
    link = harness.of(OPENED)[0].link
    raw.sendall(data)
    noise = harness.await_arrivals(NOISE)[0]
    assert text in noise.detail
    assert f"process {os.getpid()}" in noise.detail
    assert noise.link is link
    assert harness.await_arrivals(CLOSED)[0].link is link
    assert raw.recv(1) == b""
    connection.send([b"I am fine"])
    assert harness.frames() == [[b"I am fine"]]


def test_memory_is_taken_as_it_is_filled(harness, raw):
    """A peer that announces much and sends little gets little."""
    raw.sendall(struct.pack("<IQ", framing.MAGIC, 1 << 34) + b"x")
    connection, _ = harness.pair()
    connection.send([b"ok"])
    assert harness.frames() == [[b"ok"]]
    with open("/proc/self/status") as file:
        resident_kib = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
    assert resident_kib < 4 * 1024 * 1024


def test_half_a_frame_and_then_nothing(harness, raw):
    data = pack([b"a" * 500, b"b" * 500])
    raw.sendall(data[:700])
    connection, _ = harness.pair()
    connection.send([b"not held up"])
    assert harness.frames() == [[b"not held up"]]
    raw.sendall(data[700:])
    assert harness.frames() == [[b"a" * 500, b"b" * 500]]
    raw.sendall(data[:3])
    raw.close()
    harness.await_arrivals(CLOSED)
    assert not harness.of(FRAMES)


def test_a_killed_peer_is_noticed_at_once(harness):
    pid = os.fork()
    if not pid:
        connection = connect(unix=harness.path)
        signal.pause()
        os._exit(0 if connection else 1)
    link = harness.await_arrivals(OPENED)[0].link
    assert link.pid == pid
    os.kill(pid, signal.SIGKILL)
    start = time.monotonic()
    assert harness.await_arrivals(CLOSED)[0].link is link
    assert time.monotonic() - start < 0.5
    os.waitpid(pid, 0)


def test_children_of_a_peer_do_not_keep_its_connection(harness):
    connection, link = harness.pair()
    ready, hold = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        os.write(ready[1], b"x")
        os.read(hold[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    connection.send([b"still mine"])
    assert harness.frames() == [[b"still mine"]]
    connection._sock.close()  # as the kernel does for a process that was killed
    assert harness.await_arrivals(CLOSED)[0].link is link
    os.write(hold[1], b"x")
    os.waitpid(pid, 0)
    for fd in (*ready, *hold):
        os.close(fd)


def test_a_restarted_controller_takes_the_path_over(tmp_path):
    path = str(tmp_path / "s")
    crashed = socket.socket(socket.AF_UNIX)
    crashed.bind(path)
    crashed.close()
    with pytest.raises(ConnectError, match="Connection refused"):
        connect(unix=path)
    server = Server(unix_path=path)
    with pytest.raises(ConnectError, match="in use by a controller that is alive"):
        Server(unix_path=path)
    connect(unix=path).close()
    server.close()
    assert not os.path.exists(path)
    (tmp_path / "s").write_text("mine")
    with pytest.raises(ConnectError, match="no socket"):
        Server(unix_path=path)
    assert (tmp_path / "s").read_text() == "mine"


def test_out_of_descriptors(harness, monkeypatch):
    connection, link = harness.pair()

    def accept(_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(harness.server._listener, "accept", accept)
    late = harness.connect()
    assert "no more peers can be let in" in harness.await_arrivals(NOISE)[0].detail
    harness.turn(0.02)
    harness.turn(0.02)
    assert len(harness.of(NOISE)) == 1
    monkeypatch.undo()
    connection.close()
    late.send([b"at last"])
    assert harness.frames() == [[b"at last"]]
    assert link.closed


def test_a_closed_connection_says_so(pair):
    connection, theirs = pair
    theirs.close()
    for call in (connection.recv, lambda: connection.recv(1), connection.recv_nowait, lambda: connection.send([b"x"])):
        with pytest.raises(Disconnected, match="the connection to the other end is gone"):
            call()
    assert not connection.connected


def test_what_came_before_the_end_can_be_read_after_a_failed_send(pair):
    connection, theirs = pair
    theirs.sendall(pack([b"farewell"]))
    theirs.close()
    with pytest.raises(Disconnected):
        connection.send([b"x"])
    assert connection.recv() == [b"farewell"]
    with pytest.raises(Disconnected):
        connection.recv()


def test_close_wakes_a_waiting_thread(pair):
    connection, _ = pair
    errors = []

    def wait():
        try:
            connection.recv()
        except Disconnected as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.05)
    connection.close()
    thread.join(5)
    assert errors


def test_garbage_from_the_controller(pair):
    connection, theirs = pair
    theirs.sendall(b"this is no controller at all")
    for _ in range(2):
        with pytest.raises(ProtocolError):
            connection.recv()


# ------------------------------------------------------------ signals


class Interrupter:
    """Raises KeyboardInterrupt at the n-th place where the interpreter looks for signals, in the transport's code.

    Those places are the ends of calls of C functions, backward jumps and the beginnings of functions.
    """

    def __init__(self, n):
        self.n = n
        self.fired = False
        self.previous = {}
        self.returned = False

    def __call__(self, frame, event, _):
        if not frame.f_code.co_filename.endswith(("transport/unix.py", "transport/framing.py")):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "return":
            self.returned = True  # the caller goes on without a look
        if event != "opcode" or self.fired:
            return self
        previous = self.previous.get(frame, "")
        self.previous[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
        python_call, self.returned = self.returned, False
        if previous.startswith(("CALL", "JUMP_BACKWARD", "RESUME")) and not python_call:
            self.n -= 1
            if self.n < 0:
                self.fired = True
                raise KeyboardInterrupt
        return self


def interrupted(n, call):
    """Make a call that is interrupted at the n-th place; return what it gave, or None and whether it was."""
    tracer = Interrupter(n)
    sys.settrace(tracer)
    try:
        return call(), tracer.fired
    except KeyboardInterrupt:
        return None, True
    finally:
        sys.settrace(None)


@pytest.mark.parametrize(
    "transmissions",
    [
        [[b"a", b"b"]],
        [[b"a"], [b"b", b"c"], [b"d"]],
        [[b"a" * 70000, b"x"], [b"b"]],
        [[b"a" * 20000, b"b" * 20000, b"c" * 30000], [b"d"]],
    ],
    ids=["one", "several", "large", "several pieces"],
)
def test_an_interrupted_recv_loses_nothing(transmissions):
    data = b"".join(p if isinstance(p, bytes) else b"".join(p) for p in map(pack, transmissions))
    for n in range(1000):
        mine, theirs = socket.socketpair()
        with UnixConnection(mine) as connection, theirs:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * len(data))
            theirs.sendall(data)
            first, fired = interrupted(n, lambda: connection.recv(5))
            found = [] if first is None else [first]
            while len(found) < len(transmissions):
                found.append(connection.recv(5))
            assert [[bytes(frame) for frame in frames] for frames in found] == transmissions, n
            assert connection.recv_nowait() is None
        if not fired:
            break
    assert 3 < n < 999


@pytest.mark.parametrize("frames", [[b"a", b"b"], [b"a" * 50000, b"b", b"c" * 50000]], ids=["small", "large"])
def test_an_interrupted_send_is_completed_by_the_next(frames):
    for n in range(1000):
        mine, theirs = socket.socketpair()
        with UnixConnection(mine) as connection, UnixConnection(theirs) as other:
            _, fired = interrupted(n, lambda: connection.send(frames))
            connection.send([b"next"])
            found = [[bytes(frame) for frame in other.recv()]]
            if found[0] != [b"next"]:
                found.append(other.recv())
            # It may not have begun; it never arrives in part, or twice.
            assert found in ([frames, [b"next"]], [[b"next"]]), n
            assert other.recv_nowait() is None
            assert fired or len(found) == 2
        if not fired:
            break
    assert 3 < n < 999


def test_a_storm_of_signals():
    """Real signals, at any time; the exception comes out of recv only, so that the test itself does not break."""
    mine, theirs = socket.socketpair()
    connection, other = UnixConnection(mine), UnixConnection(theirs)
    n, inside = 2000, unix.UnixConnection.recv.__code__

    def handler(_, frame):
        while frame is not None:
            if frame.f_code is inside:
                raise KeyboardInterrupt
            frame = frame.f_back

    def echo():
        for _ in range(n):
            other.send(other.recv())

    thread = threading.Thread(target=echo)
    thread.start()
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0002)
    interrupts, got = 0, []
    try:
        for i in range(n):
            frames = [b"%d" % i, bytes([i % 256]) * (i % 7 * 9000)]
            connection.send(frames)
            while len(got) <= i:
                found = None
                try:
                    found = connection.recv()
                except KeyboardInterrupt:
                    interrupts += 1
                if found is not None:
                    got.append(found)
                    assert [bytes(frame) for frame in found] == frames
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        connection.close()
        thread.join()
        other.close()
    assert interrupts
