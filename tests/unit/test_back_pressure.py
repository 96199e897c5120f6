"""Floods are slowed at their source: clients that submit without end, that do not read, engines that say too much."""

import random
import threading
import time

import pytest
from brain_harness import Bench
from client_harness import FakeController

from hpc.client.credit import Credit, is_urgent, weight
from hpc.client.pieces import Pieces
from hpc.controller import events as ev
from hpc.controller.congestion import PATIENCE_S, Congestion
from hpc.controller.parking import LEAST_NBYTES, MOST_NBYTES, TOTAL_NBYTES, share
from hpc.wire import messages as m
from hpc.wire.session import Session

# ---------------------------------------------------------------- who submits


@pytest.fixture
def fake():
    fake = FakeController(2)
    yield fake
    fake.close()


def grant(fake, nbytes):
    with fake.lock:
        fake.say(m.Credit(nbytes))


def test_submitting_waits_for_credit(fake):
    rc = fake.client()
    lv = rc.load_balanced_view()
    fake.hold = True
    credit = rc._link.inbox.credit
    first = lv.apply_async(int, "1")
    grant(fake, 5000)
    fake.wait_for(lambda: credit.nbytes == 5000)
    results = []

    def flood():
        results.extend(lv.apply_async(int, str(number)) for number in range(1000))

    thread = threading.Thread(target=flood)
    thread.start()
    fake.wait_for(lambda: credit.used > credit.nbytes)
    time.sleep(0.05)
    assert len(results) < 300  # an open bundle is counted when it leaves
    assert thread.is_alive()
    fake.release()
    thread.join(10)
    assert [result.get(5) for result in results] == list(range(1000))
    assert first.get(5) == 1
    fake.wait_for(lambda: credit.used == 0)


def test_a_map_waits_for_credit(fake):
    rc = fake.client()
    rc.ids
    grant(fake, 3000)
    assert rc.load_balanced_view().map(abs, [-n for n in range(1000)], chunksize=10) == list(range(1000))
    credit = rc._link.inbox.credit
    assert credit.nbytes == 3000
    fake.wait_for(lambda: credit.used == 0)


def test_small_operations_do_not_wait(fake):
    rc = fake.client()
    rc.ids
    grant(fake, 1)
    fake.hold = True
    rc[0].apply_async(int, "1")
    fake.wait_for(lambda: rc._link.inbox.credit.nbytes == 1)
    rc[0].push({"x": 1}, block=False)  # would wait for ever


def test_callbacks_do_not_wait(fake):
    rc = fake.client()
    lv = rc.load_balanced_view()
    rc.ids
    grant(fake, 1)
    done = threading.Event()
    left = [20]

    def again(result):
        left[0] -= 1
        if left[0]:
            lv.apply_async(int, "1").add_done_callback(again)
        else:
            done.set()

    lv.apply_async(int, "1").add_done_callback(again)
    assert done.wait(10)


def test_the_end_of_the_connection_ends_the_wait(fake):
    rc = fake.client()
    link, lv = rc._connected(), rc.load_balanced_view()
    link.inbox.credit.nbytes, link.inbox.credit.used = 1, 2
    timer = threading.Timer(0.2, link.end, [ConnectionError("over")])
    timer.start()
    with pytest.raises(ConnectionError, match="over"):
        lv.apply_async(int, "1")
    timer.join()


def test_what_weighs_and_what_is_urgent():
    assert weight([b"abc", memoryview(b"de")]) == 5
    assert is_urgent(b"!execute", [b"x = 1"])
    assert is_urgent(b"!bcast", [bytes(10_000)])
    assert not is_urgent(b"!push", [bytes(10_000)])
    assert not is_urgent(b"0123456789abcdef", [b""])
    assert repr(Credit()) == "<Credit 0 of inf bytes used>"


def test_clients_share_what_there_is():
    assert share(0) == share(1) == share(16) == MOST_NBYTES
    assert share(64) * 64 == TOTAL_NBYTES
    assert share(10_000) == LEAST_NBYTES
    bench = Bench()
    told = [bench.do(ev.ClientCame(number)) for number in range(2, 18)]
    assert [a.message.nbytes for a in told[0] if isinstance(a.message, m.Credit)] == [MOST_NBYTES]
    last = {a.client: a.message.nbytes for a in told[-1] if isinstance(a.message, m.Credit)}
    assert last == dict.fromkeys(range(1, 18), TOTAL_NBYTES // 17)
    gone = bench.do(ev.ClientGone(2))
    assert {a.client for a in gone} == set(range(1, 18)) - {2}


# ---------------------------------------------------------------- who does not read


def test_work_of_a_slow_client_waits_and_that_of_others_goes_on():
    bench = Bench(2)
    bench.do(ev.ClientCame(2))
    first = bench.submit(100)
    bench.do(ev.ClientSlow(1, True))
    assert {(a.engine, a.message.client, a.message.on) for a in bench.of(m.Hold)} == {(0, 1, True), (1, 1, True)}
    sent = [(part.start, part.stop) for part in bench.brain.clients[1].bundles[first].parts if part.sent]
    for engine in (0, 1):
        for part in list(bench.brain.registry.engines[engine].sent):
            bench.finish(engine, first, part.start, part.stop)
            assert not bench.runs()
    assert len(sent) == 2
    other = m.Submit(1, 10, m.Kind.SPAN, [b"f" * 16], None, 0.0)
    bench.do(ev.ClientSaid(2, other, (b"body",)))
    assert bench.runs(), "the other client is served"
    bench.do(ev.ClientSlow(1, False))
    assert {a.message.on for a in bench.of(m.Hold)} == {False}
    bench.brain.check_invariants()


@pytest.mark.parametrize("seed", range(20))
def test_slow_clients_at_random(seed):
    """Whatever happens to a client that is slow now and then: each task ends once, and the indexes stay right."""
    chance = random.Random(seed)
    bench = Bench(3)
    bundles, ended = {}, {}
    bench_do = bench.do

    def do(event):
        for action in bench_do(event):
            message = getattr(action, "item", None) or getattr(action, "message", None)
            if isinstance(message, m.Delivered | m.Ended):
                for offset in range(message.start, message.stop):
                    ended[message.first, offset] = ended.get((message.first, offset), 0) + 1

    bench.do = do
    gone = set()
    for step in range(150):
        kind = chance.choice(["submit", "slow", "fast", "finish", "finish", "abort", "lose"])
        if kind == "submit":
            eligible = chance.choice([None, None, [0, 1]])
            n = chance.randint(1, 30)
            bundles[bench.submit(n, eligible=eligible)] = n
        elif kind in ("slow", "fast"):
            bench.do(ev.ClientSlow(1, kind == "slow"))
        elif kind == "abort" and bundles:
            abort = m.Abort(chance.choice(list(bundles)), chance.randint(0, 5), chance.randint(5, 20))
            bench.do(ev.ClientSaid(1, abort))
        elif kind == "lose" and step > 120 and len(gone) < 2:
            number = chance.choice(sorted(bench.brain.registry.engines))
            gone.add(number)
            bench.do(ev.EngineDied(number, 9, -1))
        finish_one(bench, chance)
    bench.do(ev.ClientSlow(1, False))
    while any(engine.sent or engine.recalls for engine in bench.brain.registry.engines.values()):
        finish_one(bench, chance)
        bench.now += 1
    assert ended == {(first, i): 1 for first, n in bundles.items() for i in range(n)}
    assert not bench.brain.clients[1].bundles


def finish_one(bench, chance):
    engines = list(bench.brain.registry.engines.values())
    chance.shuffle(engines)
    for engine in engines:
        if engine.recalls:
            recall = engine.recalls[0]
            bench.do(ev.EngineSaid(engine.id, m.Revoked(recall.client, recall.first, 0, 0)))
            return
        if engine.sent:
            part = engine.sent[0]
            stop = chance.randint(part.start + 1, part.stop)
            bench.finish(engine.id, part.bundle.first, part.start, stop)
            return


class Owing:
    """What congestion asks of the relay."""

    nbytes = 0

    def owed_nbytes(self, contact):
        return self.nbytes


class Contact:
    number = 3

    def __init__(self):
        self.session = Session()


def test_a_client_is_slow_if_much_is_on_its_way_for_some_time():
    congestion, contact, relay = Congestion(), Contact(), Owing()
    congestion.high_nbytes, congestion.low_nbytes = 1000, 500
    contact.session.pack(m.Delivery([]), [bytes(2000)])
    congestion.note(contact, 0.0)
    assert congestion.review(relay, PATIENCE_S / 2) == []
    assert congestion.review(relay, PATIENCE_S) == [ev.ClientSlow(3, True)]
    assert congestion.review(relay, 2.0) == []
    relay.nbytes = 600
    contact.session.accept(0, 1, [b""])
    assert contact.session.kept_nbytes == 0
    assert congestion.review(relay, 3.0) == [], "it still has parcels to fetch"
    relay.nbytes = 0
    assert congestion.review(relay, 4.0) == [ev.ClientSlow(3, False)]
    assert not congestion.crowded


def test_a_quick_client_is_never_slow():
    congestion, contact = Congestion(), Contact()
    congestion.high_nbytes, congestion.low_nbytes = 1000, 500
    contact.session.pack(m.Delivery([]), [bytes(2000)])
    congestion.note(contact, 0.0)
    contact.session.accept(0, 1, [b""])
    assert congestion.review(Owing(), 0.01) == []
    assert not congestion.crowded


def test_a_session_counts_what_it_keeps():
    session = Session()
    for _ in range(3):
        session.pack(m.Output(0, 1, 0, 0, "stdout", "x" * 100), [bytes(50)])
    whole = session.kept_nbytes
    assert whole > 450
    session.accept(0, 1, [b""])
    assert session.kept_nbytes == whole * 2 / 3
    session.resume(3)
    assert session.kept_nbytes == 0


# ---------------------------------------------------------------- who says too much


@pytest.mark.parametrize("order", ["in order", "shuffled"])
def test_of_very_much_text_beginning_and_end_are_kept(order):
    pieces, numbers = Pieces(limit=1000), list(range(100))
    if order == "shuffled":
        random.Random(1).shuffle(numbers)
    for number in numbers:
        pieces.add(0, number, "stdout", f"{number:99d}\n")
    pieces.add(0, 100, "stderr", "oops\n")
    pieces.add(0, 99, "stdout", "again")
    assert pieces.count(0) == 101
    lines = pieces.text(0, "stdout").splitlines()
    assert [int(line) for line in lines[:5]] == [0, 1, 2, 3, 4]
    assert int(lines[-1]) == 99
    assert lines[6].startswith("[... 9")
    assert len("".join(lines)) < 1300
    assert pieces.text(0, "stderr") == "oops\n"
    assert pieces.text(1, "stdout") == ""
