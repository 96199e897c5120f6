"""Exactly once: every task of a bundle is run by the engine or given back, never both, never neither."""

import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from hpc.engine.ledger import Ledger, Slice
from hpc.wire import messages as m

ENTRY = m.Entry(m.Status.DONE, 1.0, 2.0, b"")


def run(start, stop, first=1):
    return m.Run(7, first, start, stop, m.Kind.CALLS, [b"f"])


def revoke(ledger, start, stop, first=1):
    answer = ledger.revoke(m.Revoke(7, first, start, stop))
    assert (answer.client, answer.first) == (7, first)
    return answer.start, answer.stop


def work_off(ledger, offset):
    while offset >= 0:
        offset = ledger.step(offset, ENTRY, None)
    ledger.finish()
    return ranges(ledger)


def ranges(ledger):
    return [(segment.start, segment.stop) for segment in ledger.take()]


def test_results_of_consecutive_tasks_leave_together():
    ledger = Ledger()
    assert ledger.begin(run(2, 6))
    assert work_off(ledger, ledger.claim()) == [(2, 6)]


def test_what_was_taken_in_between_is_not_taken_again():
    ledger = Ledger()
    ledger.begin(run(0, 4))
    offset = ledger.step(ledger.claim(), ENTRY, None)
    assert ranges(ledger) == [(0, 1)]
    assert work_off(ledger, offset) == [(1, 4)]


def test_failures_and_buffers_stay_with_their_segment():
    ledger = Ledger()
    ledger.begin(run(0, 2))
    failed = m.Entry(m.Status.FAILED, 1.0, 1.5, b"")
    ledger.step(ledger.step(ledger.claim(), failed, None), ENTRY, [b"buffer"])
    (segment,) = ledger.take()
    assert (segment.failed, segment.buffers, segment.seconds) == ([0], [b"buffer"], 1.5)


def test_revoke_cuts_the_tail_that_has_not_begun():
    ledger = Ledger()
    ledger.begin(run(0, 10))
    offset = ledger.step(ledger.claim(), ENTRY, None)
    assert offset == 1
    assert revoke(ledger, 5, 10) == (5, 10)
    assert revoke(ledger, 0, 10) == (10, 10)  # its end was given back already: nothing waits there
    assert revoke(ledger, 0, 5) == (2, 5)
    assert work_off(ledger, offset) == [(0, 2)]


def test_revoke_in_the_middle_leaves_the_rest():
    ledger = Ledger()
    ledger.begin(run(0, 10))
    offset = ledger.claim()
    assert revoke(ledger, 3, 5) == (3, 5)
    assert work_off(ledger, offset) == [(0, 3), (5, 10)]


def test_revoke_of_what_has_ended_gives_nothing_back():
    ledger = Ledger()
    ledger.begin(run(0, 3))
    work_off(ledger, ledger.claim())
    assert revoke(ledger, 0, 3) == (3, 3)
    assert revoke(ledger, 1, 3) == (3, 3)


def test_revoke_that_overtakes_its_run():
    ledger = Ledger()
    assert revoke(ledger, 4, 10) == (4, 10)
    assert ledger.begin(run(0, 10))
    assert work_off(ledger, ledger.claim()) == [(0, 4)]
    assert ledger.begin(run(4, 10))  # sent here again, later on: it is not skipped twice
    assert work_off(ledger, ledger.claim()) == [(4, 10)]


def test_revoke_that_overtakes_all_of_its_run():
    ledger = Ledger()
    assert revoke(ledger, 0, 4) == (0, 4)
    assert not ledger.begin(run(0, 4))
    assert revoke(ledger, 0, 4) == (4, 4)


def test_a_run_that_needs_its_functions_again_cannot_be_given_back_before_it_returns():
    ledger = Ledger()
    ledger.forgo(run(0, 4))
    assert revoke(ledger, 0, 4) == (4, 4)
    assert ledger.begin(run(0, 4))
    assert revoke(ledger, 0, 4) == (0, 4)


def test_nothing_begins_once_closed():
    ledger = Ledger()
    ledger.begin(run(0, 4))
    offset = ledger.claim()
    ledger.close()
    assert work_off(ledger, offset) == [(0, 1)]
    assert not ledger.begin(run(4, 8))


def test_slice_knows_how_far_it_is():
    part = Slice(0, [10, 11, 12, 13], 0.0)
    assert (next(part.items), next(part.items), part.taken()) == (10, 11, 2)
    assert part.cut(0) == 2
    assert list(part.items) == []
    assert part.exhausted()


def test_items_left_by_an_exception_return_to_the_run():
    ledger = Ledger()
    ledger.begin(run(0, 6))
    part = ledger.claim_slice(6, list(range(6)), 0, 0.0)
    part.values += [next(part.items), next(part.items)]
    next(part.items)  # the third one fails
    assert ledger.end_slice() == (0, [0, 1])
    assert ledger.claim_slice(9, list(range(6)), 0, 0.0).part == [3, 4, 5]


def test_a_cut_slice_and_an_exception():
    ledger = Ledger()
    ledger.begin(run(0, 10))
    part = ledger.claim_slice(6, list(range(10)), 0, 0.0)
    next(part.items)  # this one will fail
    assert revoke(ledger, 4, 10) == (4, 10)
    assert ledger.end_slice() == (0, [])
    assert ledger.claim_slice(9, list(range(10)), 0, 0.0).part == [1, 2, 3]
    assert ledger.claim_slice(9, list(range(10)), 0, 0.0) is None


def test_what_a_slice_has_got_so_far_leaves_once():
    ledger = Ledger()
    ledger.begin(run(0, 4))
    part = ledger.claim_slice(4, list(range(4)), 0, 0.0)
    part.values += [next(part.items), next(part.items)]
    ledger.hold_begun(1.0, lambda values: (repr(values).encode(), []))
    ledger.hold_begun(1.0, lambda values: (repr(values).encode(), []))
    (segment,) = ledger.take()
    assert (segment.start, segment.stop, segment.entries[0].payload) == (0, 2, b"[0, 1]")
    part.values += list(part.items)
    assert ledger.end_slice() == (2, [2, 3])


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("step"), st.integers(1, 6)),
        st.tuples(st.just("slice"), st.integers(1, 8), st.integers(0, 8), st.booleans()),
        st.tuples(st.just("revoke"), st.integers(0, 40), st.integers(1, 20)),
        st.tuples(st.just("take")),
        st.tuples(st.just("early"), st.integers(0, 40), st.integers(1, 20)),
    ),
    max_size=30,
)


@settings(max_examples=300, deadline=None)
@given(OPERATIONS, st.lists(st.integers(1, 12), min_size=1, max_size=4))
def test_every_task_is_run_or_given_back(operations, lengths):
    """A bundle comes as several runs, some after a Revoke for them; whatever happens, each task has one fate."""
    bounds = [0]
    for n in lengths:
        bounds.append(bounds[-1] + n)
    total, fate = bounds[-1], {}

    def note(offsets, what):
        for offset in offsets:
            assert offset not in fate, f"{offset} was {fate[offset]} and is {what}"
            fate[offset] = what

    ledger, operations = Ledger(), list(operations)

    def gone_back(start, n):
        start, stop = min(start, total), min(start + n, total)
        back = revoke(ledger, start, stop)
        assert start <= back[0] <= back[1] == stop
        note(range(*back), "given back")

    for operation in [x for x in operations if x[0] == "early"]:
        gone_back(*operation[1:])
    operations = [x for x in operations if x[0] != "early"]
    items = list(range(total))
    for start, stop in zip(bounds, bounds[1:], strict=False):
        if not ledger.begin(run(start, stop)):
            continue
        while True:
            what, *how = operations.pop() if operations else ("slice", 100, 100, False)
            if what == "revoke":
                gone_back(*how)
            elif what == "take":
                for segment in ledger.take():
                    note(range(segment.start, segment.stop), "run")
            elif what == "step":
                offset = ledger.claim()
                if offset < 0:
                    break
                ledger.hold_entry(offset, ENTRY, None)
            elif what == "slice":
                part = ledger.claim_slice(how[0], items[start:], start, 0.0)
                if part is None:
                    break
                for _ in range(how[1]):
                    if part.taken() < len(part.part):
                        part.values.append(next(part.items))
                if operations and operations[-1][0] == "revoke":
                    gone_back(*operations.pop()[1:])
                fails = how[2] and part.taken() < len(part.part)
                if fails:
                    next(part.items)
                else:
                    part.values.extend(part.items)
                base, values = ledger.end_slice()
                assert values == items[base : base + len(values)]
                for offset in range(base, base + len(values) + bool(fails)):
                    ledger.hold_entry(offset, ENTRY, None)
        ledger.finish()
    for segment in ledger.take():
        note(range(segment.start, segment.stop), "run")
    assert sorted(fate) == list(range(total))


def test_revoking_while_another_thread_works_through_a_slice():
    """The real race: the main thread consumes the list while the control thread cuts it."""
    total = 200_000
    for serial in range(5):
        ledger = Ledger()
        ledger.begin(run(0, total, first=serial))
        part = ledger.claim_slice(total, list(range(total)), 0, 0.0)
        consumer = threading.Thread(target=lambda part=part: part.values.extend(map(abs, part.items)))
        consumer.start()
        back = []
        stop = total
        while consumer.is_alive() and stop > 1000:
            start, got = revoke(ledger, stop - 1000, stop, first=serial)
            assert got == stop
            back.append((start, stop))
            if start != stop - 1000:
                break
            stop = start
        consumer.join()
        start, values = ledger.end_slice()
        begun = list(range(start, start + len(values)))
        assert values == begun
        given = [offset for a, b in back for offset in range(a, b)]
        rest = ledger.claim_slice(total, list(range(total)), 0, 0.0)
        assert rest is None
        assert sorted(begun + given) == list(range(total))
