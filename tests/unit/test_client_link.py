"""The I/O of a client: bundles, threads, Ctrl-C, lost connections, forks."""

import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest
from client_harness import FakeController, TcpLike

from hpc.client.bundle import MAX_TASKS
from hpc.errors import ConnectError
from hpc.wire import messages as m


@pytest.fixture
def fake():
    fake = FakeController(4)
    yield fake
    fake.close()


@pytest.fixture
def rc(fake):
    rc = fake.client(reconnect=5.0)
    rc.ids
    return rc


def identity(x):
    return x


# ---------------------------------------------------------------- sending


def test_a_lone_task_is_sent_at_once_by_who_submits_it(fake, rc):
    lv = rc.load_balanced_view()
    for i in range(3):
        assert lv.apply(identity, i) == i
    assert [s.count for s in fake.submits] == [1, 1, 1]


def test_tasks_that_come_fast_form_bundles(fake, rc):
    fake.hold = True
    lv = rc.load_balanced_view()
    results = [lv.apply_async(identity, i) for i in range(1000)]
    lv.abort([])  # flushes
    counts = [s.count for s in fake.submits]
    assert sum(counts) == 1000
    assert max(counts) <= MAX_TASKS
    assert len(counts) < 100
    fake.release()
    assert [r.get(5) for r in results] == list(range(1000))


def test_an_open_bundle_is_sent_although_nobody_waits(fake, rc):
    fake.hold = True
    lv = rc.load_balanced_view()
    results = [lv.apply_async(identity, i) for i in range(5)]
    fake.wait_for(lambda: sum(s.count for s in fake.submits) == len(results))


def test_bundles_keep_the_order_of_submission(fake, rc):
    fake.hold = True
    lv = rc.load_balanced_view()
    for _ in range(20):
        lv.apply_async(identity, 1)
        rc[0].apply_async(identity, 2)
        rc[:].apply_async(identity, 3)
        rc[0].apply_async(identity, 4)
        rc[0].apply_async(identity, 5)
    rc._link.outbox.flush()
    fake.wait_for(lambda: sum(s.count for s in fake.submits) == 160)
    firsts = [s.first for s in fake.submits]
    assert firsts == sorted(firsts)
    assert all(a.first + a.count == b.first for a, b in zip(fake.submits, fake.submits[1:], strict=False))


def test_large_payloads_fill_a_bundle(fake, rc):
    fake.hold = True
    lv = rc.load_balanced_view()
    results = [lv.apply_async(len, b"x" * 20_000) for _ in range(40)]
    rc._link.outbox.flush()
    fake.wait_for(lambda: sum(s.count for s in fake.submits) == 40)
    assert max(s.count for s in fake.submits) <= 7
    fake.release()
    assert {r.get(5) for r in results} == {20_000}


def test_a_function_is_defined_once(fake, rc):
    for _ in range(3):
        rc[:].apply(identity, 1)
        rc.load_balanced_view().map(identity, range(3))
    assert sum(isinstance(message, m.Define) for message in fake.heard) == 1


# ---------------------------------------------------------------- threads


def test_many_threads_wait_each_for_its_own(fake, rc):
    lv = rc.load_balanced_view()
    wrong = []

    def work(k):
        wrong.extend((k, i) for i in range(50) if lv.apply(identity, (k, i)) != (k, i))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong
    fake.wait_for(lambda: rc._link.receiver == 0)  # the background thread may have the role for a moment
    assert not rc._link._parked


def test_the_role_passes_on_when_the_receiver_leaves(fake, rc):
    fake.hold = True
    first, second = rc[0].apply_async(identity, 1), rc[1].apply_async(identity, 2)
    fake.wait_for(lambda: len(fake.held) == 2)
    values = []
    threads = [threading.Thread(target=lambda r=r: values.append(r.get(10))) for r in (first, second)]
    threads[0].start()
    fake.wait_for(lambda: rc._link.receiver not in (0, None))
    threads[1].start()
    fake.wait_for(lambda: rc._link._parked)
    with fake.lock:
        fake.run(*fake.held.pop(0))
    threads[0].join(5)
    assert values == [1]
    fake.release()
    threads[1].join(5)
    assert values == [1, 2]


def test_a_wait_ends_when_all_came_in_just_before_the_role_was_taken(fake, rc):
    fake.hold = True
    link, looks = rc._link, []
    result = rc.load_balanced_view().apply_async(identity, 7)

    def done():
        looks.append(result.done())
        if len(looks) == 1:  # the background thread receives between this look and what follows it
            fake.release()
            fake.wait_for(lambda: result.done() and link.receiver == 0)
        return looks[-1]

    waiting = threading.Thread(target=link.wait, args=(done,), daemon=True)
    waiting.start()
    waiting.join(5)
    assert not waiting.is_alive()
    assert looks[:2] == [False, True]


def test_a_wait_ends_when_another_thread_closes(fake, rc):
    fake.hold = True
    result = rc[0].apply_async(identity, 1)
    threading.Timer(0.05, rc.close).start()
    with pytest.raises(ConnectError, match="closed"):
        result.get(5)


# ---------------------------------------------------------------- Ctrl-C


def test_ctrl_c_ends_a_wait_at_once_and_nothing_else(fake, rc):
    fake.hold = True
    result = rc[0].apply_async(identity, 3)
    fake.wait_for(lambda: fake.held)
    timer = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT))
    began = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        result.get(10)
    assert time.monotonic() - began < 2
    fake.wait_for(lambda: rc._link.receiver == 0)
    fake.release()
    assert result.get(5) == 3
    assert rc[1].apply(identity, 4) == 4
    assert fake.opened == 1


# Ctrl-C between the making of a socket and its keeping leaves it to the reference count, which closes it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_a_storm_of_signals_loses_nothing(fake, rc):
    lv = rc.load_balanced_view()
    interrupted = 0
    stop = threading.Event()

    def storm():
        while not stop.wait(0.0007):
            signal.pthread_kill(main, signal.SIGUSR1)

    def strike(*_):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        raise KeyboardInterrupt

    main = threading.main_thread().ident
    pending = []
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    thread = threading.Thread(target=storm)
    thread.start()
    done = 0
    try:
        deadline = time.monotonic() + 0.7
        while time.monotonic() < deadline:
            result = None
            try:
                signal.signal(signal.SIGUSR1, strike)
                result = lv.apply_async(identity, done)
                result.get(10)
                signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            except KeyboardInterrupt:
                interrupted += 1
            if result is not None:
                pending.append((done, result))
            done += 1
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        stop.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert interrupted > 10
    for value, result in pending:
        assert result.get(10) == value
    assert rc._link.fault is None
    fake.wait_for(lambda: rc._link.receiver == 0)


# ---------------------------------------------------------------- connections


def test_a_lost_connection_comes_back_and_nothing_is_lost(fake, rc):
    lv = rc.load_balanced_view()
    results = []
    for i in range(200):
        results.append(lv.apply_async(identity, i))
        if i % 50 == 25:
            fake.cut()
    assert [r.get(10) for r in results] == list(range(200))
    assert fake.opened > 1
    assert rc.ids == [0, 1, 2, 3]


def test_results_that_were_under_way_come_again(fake, rc):
    fake.hold = True
    result = rc[0].apply_async(identity, 1)
    fake.wait_for(lambda: fake.held)
    fake.lossy = True
    fake.release()
    fake.lossy = False
    fake.cut()
    assert result.get(5) == 1


def test_when_it_does_not_come_back_everything_ends(fake, caplog):
    rc = fake.client(reconnect=0.2)
    rc.ids
    fake.hold = True
    result = rc[0].apply_async(identity, 1)
    fake.wait_for(lambda: fake.held)
    with caplog.at_level(logging.WARNING, "hpc"):
        fake.refuse = "nobody is there"
        fake.cut()
        with pytest.raises(ConnectError, match=r"did not come back within 0\.2 s.*nobody is there"):
            result.get(5)
    assert "lost" in caplog.text
    with pytest.raises(ConnectError):
        rc.ids
    assert "over" in repr(rc)


def test_a_controller_that_forgot_the_session_ends_everything(fake, rc):
    fake.hold = True
    result = rc[0].apply_async(identity, 1)
    fake.wait_for(lambda: fake.held)
    fake.known.clear()
    fake.cut()
    with pytest.raises(ConnectError):
        result.get(5)


def test_a_refusal_is_told(fake):
    link = fake.link()
    original = fake.take

    def refuse(conn, frames):
        from hpc.wire import codec

        conn.send([codec.encode(m.Refused("too many clients"))])

    fake.take = refuse
    with pytest.raises(ConnectError, match="too many clients"):
        link.start(5)
    fake.take = original


def test_who_cannot_connect_may_try_again(fake):
    rc = fake.client()
    fake.refuse = "not yet"
    with pytest.raises(ConnectError, match="not yet"):
        rc.ids
    fake.refuse = None
    assert rc.ids == [0, 1, 2, 3]


def test_nobody_has_to_close(fake):
    rc = fake.client()
    fake.clients.clear()
    fake.hold = True
    result = rc[0].apply_async(identity, 1)
    link = weakref.ref(rc._link)
    del rc
    gc.collect()
    assert not result.done()
    fake.release()
    assert result.get(5) == 1
    fake.wait_for(lambda: link().fault is not None)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_is_a_client_of_its_own(fake, rc):
    fake.hold = True
    pending = rc[0].apply_async(identity, 1)
    fake.wait_for(lambda: fake.held)
    link = rc._link
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            pending.get(5)
        except ConnectError as error:
            code = 0 if "parent process" in str(error) and rc._link is link and link.orphaned else 2
        os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    fake.release()
    assert pending.get(5) == 1
    assert fake.opened == 1


def test_everything_works_over_tcp_too(fake):
    fake.connection_class = TcpLike
    rc = fake.client()
    lv = rc.load_balanced_view()
    assert [r.get(5) for r in [lv.apply_async(identity, i) for i in range(500)]] == list(range(500))
    threads = [threading.Thread(target=lambda: [lv.apply(identity, i) for i in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert repr(rc).endswith("by tcp>")


def test_a_connection_over_tcp_that_zmq_does_not_get_back_is_made_anew(fake, monkeypatch):
    monkeypatch.setattr("hpc.client.background.TCP_CHECK_S", 0.01)
    monkeypatch.setattr("hpc.client.background.TCP_DOWN_S", 0.05)
    fake.connection_class = TcpLike
    rc = fake.client()
    fake.hold = True
    result = rc[0].apply_async(identity, 1)
    fake.wait_for(lambda: fake.held)
    fake.client_end.up = False
    fake.wait_for(lambda: fake.opened == 2)
    fake.release()
    assert result.get(5) == 1


# ---------------------------------------------------------------- imports


def test_import_hpc_is_light():
    code = (
        "import sys, hpc; assert 'hpc.client' not in sys.modules;"
        "assert hpc.RemoteController is hpc.Client; assert 'connect' in dir(hpc); hpc.Reference; hpc.errors.EngineLost;"
        "assert not {'numpy', 'mpi4py', 'zmq', 'IPython', 'rich', 'click', 'tqdm', 'psutil'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_version_is_that_of_the_distribution():
    from importlib.metadata import version

    import hpc

    assert hpc.__version__ == version("hpc")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        hpc.nothing
