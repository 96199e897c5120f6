"""Results: as futures, in time and late, of single tasks, groups and maps."""

import asyncio
import concurrent.futures
import threading
import time
from datetime import UTC, datetime

import numpy as np
import pytest
from client_harness import FakeController

from hpc.client import AsyncResult, GroupResult, MapResult, columns
from hpc.errors import CompositeError, EngineLost, SerializationError, TaskAborted
from hpc.wire import messages as m


@pytest.fixture
def fake():
    fake = FakeController(4)
    yield fake
    fake.close()


@pytest.fixture
def rc(fake):
    rc = fake.client()
    rc.ids
    return rc


@pytest.fixture
def lv(rc):
    return rc.load_balanced_view()


def test_it_is_a_future(fake, lv):
    fake.hold = True
    result = lv.apply_async(int, "3")
    assert isinstance(result, concurrent.futures.Future)
    assert isinstance(result, AsyncResult)
    assert not result.done()
    assert not result.ready()
    with pytest.raises(ValueError, match="not ended"):
        result.successful()
    with pytest.raises(TimeoutError, match=r"within 0\.01 s.*int.*waiting"):
        result.get(timeout=0.01)
    assert not result.wait(0)
    fake.release()
    assert result.result(5) == result.get() == result.r == 3
    assert result.successful()
    assert result.exception() is None
    assert repr(result) == "<AsyncResult int, task 1 on engine 0: done>"


def test_failures_are_exceptions(lv):
    result = lv.apply_async(int, "x")
    assert isinstance(result.exception(5), ValueError)
    assert not result.successful()
    with pytest.raises(ValueError, match="invalid literal"):
        result.get()


def test_callbacks_run_although_nobody_waits(fake, lv):
    fake.hold = True
    called = threading.Event()
    results = []
    result = lv.apply_async(int, "4")
    result.add_done_callback(lambda future: (results.append(future.result()), called.set()))
    result.add_done_callback(lambda future: 1 / 0)  # logged, not raised
    fake.release()
    assert called.wait(5)
    result.add_done_callback(lambda future: results.append("late"))
    assert results == [4, "late"]


def test_a_callback_may_wait_for_other_results(fake, lv):
    fake.hold = True
    outcome = []
    result = lv.apply_async(int, "4")
    result.add_done_callback(lambda _: outcome.append(lv.apply(int, "5")))
    fake.release()
    fake.wait_for(lambda: outcome)
    assert outcome == [5]


def test_the_library_waits_for_them(fake, lv):
    fake.hold = True
    results = [lv.apply_async(int, str(i)) for i in range(50)]
    done, pending = concurrent.futures.wait(results, timeout=0.01)
    assert (len(done), len(pending)) == (0, 50)
    threading.Timer(0.02, fake.release).start()
    assert sorted(r.result() for r in concurrent.futures.as_completed(results, timeout=5)) == list(range(50))
    done, pending = concurrent.futures.wait(results)
    assert len(done) == 50


def test_first_exception_is_noticed(fake, lv):
    fake.hold = True
    good, bad = lv.apply_async(time.time), lv.apply_async(int, "x")
    for submit, frames in fake.held[1:] or []:
        fake.run(submit, frames)
    threading.Timer(0.02, fake.release).start()
    done, _ = concurrent.futures.wait([good, bad], return_when="FIRST_EXCEPTION", timeout=5)
    assert bad in done


def test_it_can_be_awaited(lv):
    async def work():
        one = lv.apply_async(int, "1")
        two, three = await asyncio.gather(lv.apply_async(int, "2"), asyncio.wrap_future(lv.apply_async(int, "3")))
        return await one, two, three

    assert asyncio.run(work()) == (1, 2, 3)


def test_abort_ends_what_no_engine_has_begun(fake, lv):
    fake.hold = True
    result = lv.apply_async(int)
    lv.abort(result)
    with pytest.raises(TaskAborted):
        result.get(5)
    assert result.cancelled()
    assert result.metadata["status"] == "cancelled"
    with pytest.raises(concurrent.futures.CancelledError):
        result.result()
    other = lv.apply_async(int)
    assert other.cancel()
    fake.release()
    assert lv.apply_async(int, 2).get(5) == 2


def test_a_view_aborts_what_is_its_own(fake, rc, lv):
    fake.hold = True
    direct, balanced = rc[0].apply_async(int), lv.apply_async(int)
    rc[0].abort()
    with pytest.raises(TaskAborted):
        direct.get(5)
    assert not balanced.done()
    rc.abort()
    assert isinstance(balanced.exception(5), TaskAborted)


def test_metadata_says_where_and_when(fake, rc, lv):
    before = datetime.now(UTC)
    one = rc[1].apply_async(int)
    one.get()
    row = one.metadata
    assert (row["engine_id"], row.rank, row["host"], row["status"], row["route"]) == (1, 1, "n1", "done", "inline")
    assert before <= row["submitted"] <= row["started"] <= row["completed"] <= row["received"] <= datetime.now(UTC)
    assert one["engine_id"] == 1
    several = rc[:].apply_async(int)
    several.get()
    assert [row["engine_id"] for row in several.metadata] == [0, 1, 2, 3]
    assert several["rank"] == [0, 1, 2, 3]
    assert len(set(several.task_ids + one.task_ids)) == 5
    assert several.msg_ids == several.task_ids
    assert several.progress == len(several) == 4
    assert several.get_dict() == dict.fromkeys(range(4), 0)
    assert several.serial_time >= 0
    assert 0 <= several.wall_time == several.elapsed < 5
    fake.hold = True
    waiting = lv.apply_async(int)
    assert waiting.metadata["status"] == "waiting"
    assert waiting.metadata["started"] is None
    with pytest.raises(AttributeError, match="there are task_id"):
        row.nothing


def test_output_that_comes_by_another_way_is_complete(fake, rc):
    fake.hold = True
    result = rc[0].apply_async(int)
    fake.wait_for(lambda: fake.held)
    submit = fake.submits[0]
    now = time.time()
    entry = m.Entry(m.Status.DONE, now, now, b"\x80\x05K\x01.", 0, "three\n", "", n_outputs=2)
    fake.say(m.Output(0, submit.first, 0, 1, "stdout", "two\n"))
    fake.results(submit.first, 0, [(entry, [])], 0)
    rc.queue_status  # noqa: B018
    assert not result.wait(0.05)
    assert result.stdout == "two\n"
    fake.say(m.Output(0, submit.first, 0, 0, "stdout", "one\n"))
    assert result.get(5) == 1
    assert result.stdout == "one\ntwo\nthree\n"


def test_output_that_never_comes_does_not_hold_results_up_for_ever(fake, rc, monkeypatch):
    monkeypatch.setattr("hpc.client.inbox.HOLD_S", 0.05)
    monkeypatch.setattr("hpc.client.background.HOLD_S", 0.05)
    fake.hold = True
    result = rc[0].apply_async(int)
    fake.wait_for(lambda: fake.held)
    now = time.time()
    entry = m.Entry(m.Status.DONE, now, now, b"\x80\x05K\x01.", n_outputs=2)
    fake.results(fake.submits[0].first, 0, [(entry, [])], 0)
    assert result.get(5) == 1


def test_large_arrays_travel_out_of_band_and_come_back_writable(rc):
    a = np.arange(100_000.0)
    result = rc[0].apply_async(_double, a)
    back = result.get()
    assert (back == 2 * a).all()
    back[0] = 7
    assert result.sent
    result.wait_for_send(1)
    small = rc[0].apply(_double, np.arange(3))
    small[0] = 1


def _double(a):
    return a * 2


def test_sent_means_acknowledged(fake, rc):
    fake.hold = True
    rc._link.freight.forced = "tcp"  # what goes through shared memory is the caller's again at once
    result = rc[0].apply_async(_double, np.zeros(100_000))
    assert not result.sent
    with pytest.raises(TimeoutError):
        result.wait_for_send(0.01)
    fake.say(m.Ack())
    result.wait_for_send(5)
    assert result.sent
    assert not result.done()


def test_what_cannot_be_pickled_is_named(lv):
    with pytest.raises(SerializationError, match="lock"):
        lv.apply_async(int, threading.Lock())


def test_a_lost_engine_ends_its_tasks_and_says_so(fake, rc):
    fake.hold = True
    one, several = rc[1].apply_async(int), rc[:].apply_async(int)
    fake.wait_for(lambda: len(fake.held) == 2)
    fake.kill(1)
    with pytest.raises(EngineLost, match=r"engine 1 \(rank 1, host n1, pid 101\) was killed by signal 9"):
        one.get(5)
    assert one.metadata["status"] == "lost"
    fake.release()
    with pytest.raises(CompositeError) as info:
        several.get(5)
    assert list(info.value.errors) == [1]
    assert isinstance(info.value[1], EngineLost)
    assert isinstance(several, GroupResult)


# ---------------------------------------------------------------- maps


def test_map_needs_no_chunksize(fake, lv):
    assert lv.map(lambda x: x * x, range(1000)) == [x * x for x in range(1000)]
    assert len(fake.submits) == 4 * columns.PIECES_PER_ENGINE
    assert all(s.kind == m.Kind.SPAN and s.targets is None for s in fake.submits)


def test_map_of_few_items_has_a_piece_for_each(fake, lv):
    assert lv.map(str, [1, 2, 3]) == ["1", "2", "3"]
    assert [s.count for s in fake.submits] == [1, 1, 1]


@pytest.mark.parametrize("sequence", [[3, 1, 2], (3, 1), range(5), {1: 2, 3: 4}, np.arange(4), "abc", iter([1, 2])])
def test_map_takes_what_the_builtin_takes(lv, sequence):
    items = list(sequence)
    assert lv.map(str, items if hasattr(sequence, "__next__") else sequence) == list(map(str, items))


def test_map_over_several_sequences_ends_with_the_shortest(lv):
    assert lv.map(lambda a, b: a + b, [1, 2, 3], [10, 20]) == [11, 22]
    assert lv.map(lambda a, b: a + b, [1, 2, 3], iter([10, 20])) == [11, 22]
    assert lv.map(str, []) == []
    with pytest.raises(TypeError):
        lv.map(str)
    with pytest.raises(ValueError, match="chunksize"):
        lv.map(str, [1], chunksize=0)


def test_chunksize_is_obeyed(fake, lv):
    lv.map(str, range(10), chunksize=4)
    assert [s.count for s in fake.submits] == [4, 4, 2]
    fake.submits.clear()
    lv.map(str, iter(range(10)), chunksize=4)
    assert [s.count for s in fake.submits] == [4, 4, 2]


def test_a_generator_is_drawn_piece_by_piece(fake, lv):
    drawn = []

    def items():
        for i in range(100):
            drawn.append((i, len(fake.submits)))
            yield i

    assert lv.map(lambda x: x, items()) == list(range(100))
    assert fake.submits[0].count == columns.FIRST_DRAWN
    fake.submits.clear()
    assert lv.map(str, (time.sleep(0.003) or i for i in range(3))) == ["0", "1", "2"]
    assert len(fake.submits) == 3  # a slow source does not delay what it has given


def test_the_first_failure_is_raised_with_its_item(lv):
    with pytest.raises(ZeroDivisionError) as info:
        lv.map(lambda x: 1 / (x - 7), range(20))
    assert "item 7" in " ".join(info.value.__notes__)
    with pytest.raises(ZeroDivisionError) as info:
        lv.map(lambda x: 1 / (x % 2), range(20))
    assert any("10 of 20 items failed" in note for note in info.value.__notes__)


def test_exceptions_may_be_values(lv):
    values = lv.map(lambda x: 1 / x, [1, 0, 2], return_exceptions=True)
    assert values[::2] == [1, 0.5]
    assert isinstance(values[1], ZeroDivisionError)
    assert list(lv.map_async(lambda x: 1 / x, [1, 2], return_exceptions=True)) == [1, 0.5]


def test_falsy_values_are_values(fake, lv):
    fake.pack_spans = False
    assert lv.map(lambda x: x, [0, None, "", False], return_exceptions=True) == [0, None, "", False]


def test_iteration_yields_as_results_come(fake, lv):
    fake.hold = True
    result = lv.map_async(lambda x: x, range(4), chunksize=1)
    assert isinstance(result, MapResult)
    fake.wait_for(lambda: len(fake.held) == 4)
    with fake.lock:
        fake.run(*fake.held.pop(2))
        fake.run(*fake.held.pop(0))
    iterator = iter(result)
    assert next(iterator) == 0
    assert result.progress == 2
    threading.Timer(0.02, fake.release).start()
    assert list(iterator) == [1, 2, 3]
    assert result.get() == [0, 1, 2, 3]


def test_unordered_iteration_yields_in_the_order_of_arrival(fake, lv):
    fake.hold = True
    result = lv.map_async(lambda x: x, range(4), chunksize=1, ordered=False)
    fake.wait_for(lambda: len(fake.held) == 4)
    iterator = iter(result)
    with fake.lock:
        fake.run(*fake.held.pop(2))
    assert next(iterator) == 2
    fake.release()
    assert list(iterator) == [0, 1, 3]
    assert result.get() == [2, 0, 1, 3]


def test_iteration_stops_at_a_failure(lv):
    iterator = iter(lv.map_async(lambda x: 1 / (2 - x), range(5)))
    assert [next(iterator), next(iterator)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(iterator)


def test_iterating_over_one_value_is_refused(lv):
    with pytest.raises(TypeError, match="one value"):
        iter(lv.apply_async(int))


def test_results_of_a_group_are_iterated_in_order(fake, rc):
    fake.hold = True
    result = rc[:].apply_async(lambda: 5)
    threading.Timer(0.02, fake.release).start()
    assert list(result) == [5] * 4


def test_retries_and_targets_travel_with_the_tasks(fake, rc):
    lv = rc.load_balanced_view(targets=[1, 2], retries=3)
    lv.apply(int)
    assert fake.submits[-1].eligible == [1, 2]
    assert fake.submits[-1].options.retries == 3
    lv.retries = 0
    lv.targets = None
    lv.map(int, [1])
    assert fake.submits[-1].options is None
    assert fake.submits[-1].eligible is None
    with pytest.raises(ValueError, match="negative"):
        lv.retries = -1
