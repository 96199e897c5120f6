"""Tasks that are tried again, that wait for others, that may run on certain engines only, and whose turn it is."""

import math

import pytest
from brain_harness import Bench

from hpc.controller import events as ev
from hpc.controller.fairness import MAX_ASKED
from hpc.controller.patience import STRANDED_S
from hpc.errors import ProtocolError
from hpc.wire import codec
from hpc.wire import messages as m

CONDITION = b"c" * 16


def results(bench, engine, first, start, stop, failed=(), client=1, n_outputs=0, each_s=0.001):
    """Report results whose entries can be told apart."""
    entries = [
        m.Entry(m.Status(offset in failed), 0.0, 0.0, b"%d" % offset, offset % 3, n_outputs=n_outputs)
        for offset in range(start, stop)
    ]
    buffers = [b"%d.%d" % (offset, i) for offset in range(start, stop) for i in range(offset % 3)]
    message = m.Results(client, first, start, stop, False, list(failed), each_s * (stop - start))
    return bench.do(ev.EngineSaid(engine, message, (codec.encode_entries(entries), *buffers)))


def delivered(bench):
    """Return what the client got: the offsets with their buffers, in order of delivery."""
    found = []
    for action in bench.actions:
        if isinstance(action, ev.Deliver):
            entries, buffers = codec.decode_entries(action.frames[0]), list(action.frames[1:])
            assert len(entries) == action.item.stop - action.item.start
            for offset, entry in enumerate(entries, action.item.start):
                assert entry.payload == b"%d" % offset
                assert buffers[: entry.n_buffers] == [b"%d.%d" % (offset, i) for i in range(entry.n_buffers)]
                del buffers[: entry.n_buffers]
                found.append(offset)
            assert not buffers
    return found


def ended(bench):
    return [(e.first, e.start, e.stop, e.reason) for e in bench.messages(m.Ended)]


class TestRetries:
    def test_a_failed_task_runs_again_and_its_neighbours_are_delivered(self):
        bench = Bench(1)
        bench.teach(1e-6)
        first = bench.submit(10, options=m.Options(retries=1))
        assert bench.runs() == [(0, first, 0, 10)]
        results(bench, 0, first, 0, 10, failed=(0, 4, 5))
        assert delivered(bench) == [1, 2, 3, 6, 7, 8, 9]
        assert sorted(bench.runs()) == [(0, first, 0, 1), (0, first, 4, 6)]
        results(bench, 0, first, 0, 1)
        assert delivered(bench) == [0]
        results(bench, 0, first, 4, 6, failed=(5,))
        assert delivered(bench) == [4, 5]
        assert not bench.brain.clients[1].bundles

    def test_another_engine_gets_it_if_one_idles(self):
        bench = Bench(2)
        first = bench.submit(1, options=m.Options(retries=1))
        ((engine, *_),) = bench.runs()
        results(bench, engine, first, 0, 1, failed=(0,))
        assert bench.runs() == [(1 - engine, first, 0, 1)]

    def test_what_was_aborted_meanwhile_is_not_tried_again(self):
        bench = Bench(1)
        first = bench.submit(1, options=m.Options(retries=5))
        bench.do(ev.ClientSaid(1, m.Abort(first, 0, 1)))
        results(bench, 0, first, 0, 1, failed=(0,))
        assert ended(bench) == [(first, 0, 1, m.EndReason.ABORTED)]

    def test_output_of_the_next_try_is_counted_on(self):
        bench = Bench(1)
        first = bench.submit(1, options=m.Options(retries=2))
        results(bench, 0, first, 0, 1, failed=(0,), n_outputs=3)
        assert bench.messages(m.Run)[0].terms.n_outputs == 3
        bench.do(ev.EngineSaid(0, m.Output(1, first, 0, 3, "stdout", "x")))
        bench.engine("other")
        bench.do(ev.EngineDied(0, 9))
        assert bench.messages(m.Run)[0].terms.n_outputs == 4


class TestDependencies:
    def after(self, *tasks, **more):
        return m.Options(after=m.After([(task, task + 1) for task in tasks], **more))

    def test_a_task_waits_until_the_others_have_succeeded(self):
        bench = Bench(3)
        a, b = bench.submit(), bench.submit()
        c = bench.submit(options=self.after(a, b))
        assert bench.runs() == []
        for task in (a, b):
            engine = next(e.id for e in bench.brain.registry.engines.values() for p in e.sent if p.bundle.first == task)
            results(bench, engine, task, 0, 1)
        assert [run[1] for run in bench.runs()] == [c]

    def test_what_was_aborted_while_it_waited_does_not_begin(self):
        bench = Bench(1)
        a = bench.submit()
        b = bench.submit(2, options=self.after(a))
        bench.do(ev.ClientSaid(1, m.Abort(b, 0, 2)))
        assert ended(bench) == [(b, 0, 2, m.EndReason.ABORTED)]
        results(bench, 0, a, 0, 1)
        assert bench.runs() == []

    def test_what_ended_before_counts(self):
        bench = Bench(1)
        a = bench.submit()
        results(bench, 0, a, 0, 1)
        b = bench.submit(options=self.after(a))
        assert bench.runs() == [(0, b, 0, 1)]
        results(bench, 0, b, 0, 1, failed=(0,))
        c = bench.submit(options=self.after(b))
        assert ended(bench) == [(c, 0, 1, m.EndReason.DEPENDENCY)]

    def test_failures_may_be_what_is_waited_for(self):
        bench = Bench(1)
        a = bench.submit(4)
        b = bench.submit(options=m.Options(after=m.After([(a, a + 4)], False, False, True)))
        results(bench, 0, a, 0, 2)
        assert {first for _, first, _, _ in bench.runs()} == {a}
        results(bench, 0, a, 2, 3, failed=(2,))
        assert bench.brain.clients[1].bundles[b].hold is None
        c = bench.submit(options=m.Options(after=m.After([(a, a + 3)], True, False, True)))
        assert ended(bench) == [(c, 0, 1, m.EndReason.DEPENDENCY)]

    def test_a_chain_of_any_length_ends_with_its_first(self):
        bench = Bench(1)
        first = last = bench.submit()
        for _ in range(3000):
            bench.first += 1
            submit = m.Submit(last + 1, 1, m.Kind.SPAN, [b"f" * 16], None, 0.0, self.after(last))
            bench.brain.handle(ev.ClientSaid(1, submit, (b"",)), 0.0)
            last += 1
        results(bench, 0, first, 0, 1, failed=(0,))
        assert len(ended(bench)) == 3000

    def test_following_tasks_run_where_the_others_did(self):
        bench = Bench(3)
        a = bench.submit()
        ((where, *_),) = bench.runs()
        b = bench.submit(options=m.Options(follow=m.After([(a, a + 1)])))
        results(bench, where, a, 0, 1)
        assert bench.runs() == [(where, b, 0, 1)]

    def test_where_a_result_came_from_that_the_client_has_not_got_is_remembered(self):
        bench = Bench(3)
        a = bench.submit()
        ((where, *_),) = bench.runs()
        results(bench, where, a, 0, 1)
        b = bench.submit(options=m.Options(follow=m.After([(a, a + 1)])))
        assert bench.runs() == [(where, b, 0, 1)]

    def test_nothing_can_follow_two_engines(self):
        bench = Bench(2)
        a = bench.submit(options=m.Options(follow=m.After([], good=2, engines=[0, 1])))
        assert ended(bench) == [(a, 0, 1, m.EndReason.DEPENDENCY)]
        bench.submit(options=m.Options(follow=m.After([], all=False, good=2, engines=[0, 1])))
        assert len(bench.runs()) == 1

    def test_waiting_ends_with_the_timeout(self):
        bench = Bench(1)
        a = bench.submit()
        options = self.after(a)
        options.timeout_s = 2.0
        b = bench.submit(options=options)
        bench.tick(1.9)
        assert not ended(bench)
        bench.tick(0.2)
        assert ended(bench) == [(b, 0, 1, m.EndReason.TIMEOUT)]

    def test_a_task_that_waits_can_be_aborted_in_part(self):
        bench = Bench(1)
        a = bench.submit()
        b = bench.submit(10, options=self.after(a))
        bench.do(ev.ClientSaid(1, m.Abort(b, 2, 5)))
        assert ended(bench) == [(b, 2, 5, m.EndReason.ABORTED)]
        results(bench, 0, a, 0, 1)
        assert sum(stop - start for _, first, start, stop in bench.runs() if first == b) >= 2

    def test_numbers_that_are_none_are_refused(self):
        bench = Bench(1)
        for options in (
            m.Options(priority=math.nan),
            m.Options(timeout_s=math.nan),
            m.Options(run_timeout_s=-1.0),
            m.Options(expected_s=math.inf),
        ):
            with pytest.raises(ProtocolError):
                bench.submit(options=options)
        assert not bench.brain.clients[1].bundles

    def test_nobody_waits_for_what_comes_later(self):
        bench = Bench(1)
        with pytest.raises(ProtocolError):
            bench.submit(options=self.after(7))


class TestDemands:
    def test_only_engines_that_have_it_are_used(self):
        bench = Bench(2)
        bench.engine("rich", resources={"gpu": 2.0}, labels=["fast"])
        for options in (m.Options(resources={"gpu": 1}), m.Options(labels=["fast"])):
            first = bench.submit(options=options)
            assert bench.runs() == [(2, first, 0, 1)]
            results(bench, 2, first, 0, 1)

    def test_a_task_waits_a_little_for_an_engine_that_has_it(self):
        bench = Bench(1)
        a = bench.submit(options=m.Options(resources={"gpu": 1}))
        b = bench.submit(options=m.Options(resources={"gpu": 2}))
        bench.engine("rich", resources={"gpu": 1.0})
        assert bench.runs() == [(1, a, 0, 1)]
        bench.tick(STRANDED_S)
        assert ended(bench) == [(b, 0, 1, m.EndReason.NO_ENGINES)]
        assert "gpu: 2" in bench.messages(m.Ended)[0].detail

    def test_or_as_long_as_it_may(self):
        bench = Bench(1)
        bench.submit(options=m.Options(resources={"gpu": 1}, timeout_s=math.inf))
        soon = bench.submit(options=m.Options(labels=["fast"], timeout_s=0.5))
        bench.tick(1.0)
        assert ended(bench) == [(soon, 0, 1, m.EndReason.TIMEOUT)]
        bench.tick(1e6)
        assert not ended(bench)
        status = bench.do(ev.ClientSaid(1, m.Query(1, "queue_status")))[0].message.value
        ((stranded),) = status["stranded"]
        assert stranded["tasks"] == 1
        assert "gpu: 1" in stranded["why"]

    def test_without_any_engine_nothing_is_known(self):
        bench = Bench(0)
        first = bench.submit(options=m.Options(labels=["fast"]))
        bench.tick(3 * STRANDED_S)
        assert not ended(bench)
        bench.engine("rich", labels=["fast"])
        assert bench.runs() == [(0, first, 0, 1)]


class TestConditions:
    def submit(self, bench, count=1, **options):
        bench.do(ev.ClientSaid(1, m.Define(CONDITION, "c"), (b"", b"c")))
        return bench.submit(count, options=m.Options(condition=CONDITION, **options))

    def decline(self, bench, engine, first, start, stop):
        return bench.do(ev.EngineSaid(engine, m.Declined(1, first, start, stop, "no")))

    def test_engines_are_asked_one_after_the_other(self):
        bench = Bench(3)
        first = self.submit(bench)
        asked = []
        for _ in range(3):
            ((engine, *_),) = bench.runs()
            (run,) = bench.messages(m.Run)
            assert run.terms.condition == CONDITION
            asked.append(engine)
            self.decline(bench, engine, first, 0, 1)
        assert sorted(asked) == [0, 1, 2]
        assert ended(bench) == [(first, 0, 1, m.EndReason.DEPENDENCY)]

    def test_what_an_engine_says_is_believed_for_a_while(self):
        bench = Bench(2)
        first = self.submit(bench)
        ((unfit, *_),) = bench.runs()
        self.decline(bench, unfit, first, 0, 1)
        results(bench, 1 - unfit, first, 0, 1)
        for _ in range(3):
            other = self.submit(bench)
            assert bench.runs() == [(1 - unfit, other, 0, 1)]
            results(bench, 1 - unfit, other, 0, 1)
        bench.tick(2.0)
        last = self.submit(bench, 2)
        assert {engine for engine, *_ in bench.runs()} == {0, 1}
        assert last

    def test_who_was_not_asked_about_a_task_is_asked_before_it_is_given_up(self):
        bench = Bench(2)
        first = self.submit(bench)
        for _ in range(2):
            ((engine, *_),) = bench.runs()
            self.decline(bench, engine, first, 0, 1)
        assert ended(bench)
        bench.tick(0.1)
        again = self.submit(bench)
        assert [run[1] for run in bench.runs()] == [again]

    def test_who_may_wait_is_asked_again(self):
        bench = Bench(1)
        first = self.submit(bench, timeout_s=5.0)
        self.decline(bench, 0, first, 0, 1)
        assert not ended(bench)
        bench.tick(1.1)
        assert bench.runs() == [(0, first, 0, 1)]
        self.decline(bench, 0, first, 0, 1)
        bench.now = 4.99
        bench.tick(0.02)
        if bench.runs():
            self.decline(bench, 0, first, 0, 1)
        assert ended(bench) == [(first, 0, 1, m.EndReason.TIMEOUT)]


class TestTurns:
    def test_higher_priorities_go_first_and_equals_in_order(self):
        bench = Bench(1)
        bench.submit()
        names = {bench.submit(options=m.Options(priority=p)): p for p in (0, 1, -1, 5, 1, 0, 5, -1)}
        order = []
        running = bench.brain.registry.engines[0].sent[0].bundle.first
        for _ in names:
            results(bench, 0, running, 0, 1, each_s=1.0)
            ((_, running, _, _),) = bench.runs()
            order.append(running)
        assert [names[first] for first in order] == [5, 5, 1, 1, 0, 0, -1, -1]
        assert order[:2] == sorted(order[:2])
        assert order[4:6] == sorted(order[4:6])

    def test_a_client_with_a_million_tasks_does_not_delay_another(self):
        bench = Bench(4)
        flood = bench.submit(1_000_000)
        assert len(bench.runs()) == 4
        # A first result says nothing yet about what the rest of 125,000 tasks will take.
        bench.do(ev.ClientCame(2))
        few = m.Submit(1, 10, m.Kind.SPAN, [b"f" * 16], None, 0.0)
        bench.do(ev.ClientSaid(2, few, (b"few",)))
        revokes = [(a.engine, a.message) for a in bench.of(m.Revoke)]
        assert sorted(engine for engine, _ in revokes) == [0, 1, 2, 3]
        assert len(revokes) <= MAX_ASKED
        for engine, revoke in revokes:
            assert revoke.first == flood
            bench.do(ev.EngineSaid(engine, m.Revoked(1, flood, revoke.start, revoke.stop)))
        turns = []
        for engine, revoke in revokes:
            results(bench, engine, flood, revoke.start - 1, revoke.start)
            turns += [(a.message.client, a.message.stop - a.message.start) for a in bench.of(m.Run)]
        assert [client for client, _ in turns[:4]] in ([1, 2, 1, 2], [2, 1, 2, 1]), "they take turns"
        assert all(n < 100 for _, n in turns)

    def test_nor_does_one_whose_tasks_turn_out_to_take_long(self):
        bench = Bench(1)
        bench.teach(1e-6)
        flood = bench.submit(1_000_000)
        bench.do(ev.ClientCame(2))
        bench.do(ev.ClientSaid(2, m.Submit(1, 1, m.Kind.SPAN, [b"f" * 16], None, 0.0), (b"few",)))
        assert not bench.of(m.Revoke), "it should be over in no time"
        bench.tick(0.06)
        sent = []
        for revoke in bench.messages(m.Revoke):
            bench.do(ev.EngineSaid(0, m.Revoked(1, flood, revoke.start, revoke.stop)))
            sent += bench.messages(m.Run)
        results(bench, 0, flood, 0, 1, each_s=1.0)
        sent += bench.messages(m.Run)
        if sent[0].client == 1:
            results(bench, 0, flood, sent[0].start, sent[0].stop, each_s=1.0)
            sent += bench.messages(m.Run)
        assert 2 in {run.client for run in sent[:2]}

    def test_urgent_work_need_not_wait_for_what_was_sent(self):
        bench = Bench(1)
        flood = bench.submit(1000)
        assert bench.runs() == [(0, flood, 0, 500)]
        bench.submit(1)
        assert not bench.of(m.Revoke)
        urgent = bench.submit(1, options=m.Options(priority=1))
        (revoke,) = bench.messages(m.Revoke)
        bench.do(ev.EngineSaid(0, m.Revoked(1, flood, revoke.start, revoke.stop)))
        results(bench, 0, flood, 0, 1)
        assert bench.runs()[0][1] == urgent
