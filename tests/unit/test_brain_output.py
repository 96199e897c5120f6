"""Whose output the brain passes on."""

from brain_harness import Bench
from test_brain_placing import results

from hpc.controller import events as ev
from hpc.wire import messages as m


class TestOutput:
    """An engine speaks for the tasks that it runs, or has run."""

    def says(self, bench, engine, first, offset=0, client=1):
        bench.do(ev.EngineSaid(engine, m.Output(client, first, offset, 0, "stdout", "x")))
        return bool(bench.messages(m.Output))

    def test_of_a_task_that_another_engine_runs_is_dropped(self):
        bench = Bench(2)
        first = bench.submit(1, targets=[0], options=m.Options(retries=1))
        assert self.says(bench, 0, first)
        assert not self.says(bench, 1, first)
        assert bench.brain.clients[1].bundles[first].printed == {0: 1}

    def test_of_a_task_that_waits_is_dropped(self):
        bench = Bench(1)
        bench.submit(1)
        first = bench.submit(1)
        assert bench.runs() == []
        assert not self.says(bench, 0, first)
        assert not self.says(bench, 0, first, offset=7)
        assert not self.says(bench, 0, 1000)

    def test_that_comes_after_the_result_is_passed_on_from_who_gave_it(self):
        bench = Bench(2)
        first = bench.submit(1, targets=[0])
        results(bench, 0, first, 0, 1)
        assert self.says(bench, 0, first)
        assert not self.says(bench, 1, first)

    def test_of_an_earlier_try_is_passed_on(self):
        bench = Bench(2)
        first = bench.submit(1, options=m.Options(retries=1))
        ((one, *_),) = bench.runs()
        results(bench, one, first, 0, 1, failed=(0,), n_outputs=3)
        ((other, *_),) = bench.runs()
        assert other != one
        assert self.says(bench, one, first)
        assert self.says(bench, other, first)

    def test_of_each_rank_of_a_team_is_passed_on_and_of_no_other(self):
        bench = Bench()
        for rank in range(3):
            bench.engine(f"g{rank}", "g", rank, 3)
        first = bench.submit(1, options=m.Options(ranks=2))
        assert [self.says(bench, rank, first) for rank in range(3)] == [True, True, False]
        results(bench, 0, first, 0, 1)
        assert self.says(bench, 1, first)
