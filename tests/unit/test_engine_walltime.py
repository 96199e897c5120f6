"""An engine whose allocation ends: when it knows, what it does with its work, and what it says."""

import math
import os
import signal
import time

import pytest
from engine_harness import playing, square, value_of, wait_for

import hpc
from hpc.engine import control, hooks
from hpc.engine.departure import Departure, Step
from hpc.engine.walltime import Allocation, find_allocation, time_left
from hpc.wire import messages as m

# ---------------------------------------------------------------- what the environment says


def test_no_allocation():
    found = find_allocation({}, 1000.0)
    assert found.end == math.inf
    assert not found.of_scheduler


def test_the_end_that_a_job_script_names():
    found = find_allocation({"HPC_WALLTIME_END": "8200", "SLURM_JOB_END_TIME": "9000", "SLURM_JOB_ID": "7"}, 1000.0)
    assert (found.end, found.notice_s, found.of_scheduler) == (8200, 60, True)


def test_the_end_that_slurm_names():
    assert find_allocation({"SLURM_JOB_END_TIME": "9000"}, 1000.0).end == 9000


def test_a_short_allocation_has_a_short_notice():
    assert find_allocation({"HPC_WALLTIME_END": "1300"}, 1000.0).notice_s == 30


def test_the_notice_can_be_chosen():
    assert find_allocation({"HPC_WALLTIME_END": "1300", "HPC_NOTICE_S": "250"}, 1000.0).notice_s == 250


def test_a_job_whose_end_is_not_known():
    found = find_allocation({"PBS_JOBID": "12.server"}, 1000.0)
    assert (found.end, found.of_scheduler) == (math.inf, True)


@pytest.mark.parametrize("text", ["soon", "-5", "inf", "nan"])
def test_nonsense_is_not_regarded_and_said(text):
    found = find_allocation({"HPC_WALLTIME_END": text}, 1000.0)
    assert found.end == math.inf
    assert f"HPC_WALLTIME_END={text!r} is no number of seconds" in found.trouble


def test_time_left_outside_of_an_engine(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    monkeypatch.setenv("HPC_WALLTIME_END", str(time.time() + 100))
    assert 99 < hpc.time_left() <= 100
    monkeypatch.setenv("HPC_WALLTIME_END", "1")
    assert time_left() == 0
    monkeypatch.delenv("HPC_WALLTIME_END")
    assert time_left() == math.inf


# ---------------------------------------------------------------- the way out


def test_one_step_after_the_other():
    departure = Departure(Allocation(end=1000, notice_s=60))
    assert departure.wait_s(900) == 40
    assert departure.next(939) is Step.NONE
    assert not departure.given
    assert departure.next(940) is Step.NOTICE
    assert departure.given
    assert departure.next(941) is Step.NONE
    assert departure.next(970) is Step.LAST_CALL
    assert departure.wait_s(980) == 17
    assert departure.next(1001) is Step.OVER
    assert departure.wait_s(1002) == math.inf
    assert departure.next(1002) is Step.NONE


def test_late_steps_are_not_left_out():
    departure = Departure(Allocation(end=1000, notice_s=60))
    assert [departure.next(2000) for _ in range(4)] == [Step.NOTICE, Step.LAST_CALL, Step.OVER, Step.NONE]


@pytest.mark.parametrize(
    ("end", "signum", "why", "end_after"),
    [
        (math.inf, signal.SIGUSR1, m.EndReason.WALLTIME, 560),
        (500 + 300, signal.SIGUSR1, m.EndReason.WALLTIME, 800),
        (500 + 7200, signal.SIGUSR1, m.EndReason.PREEMPTED, 560),
        (math.inf, signal.SIGTERM, m.EndReason.PREEMPTED, 505),
        (500 + 7200, signal.SIGTERM, m.EndReason.PREEMPTED, 505),
        (500 - 10, signal.SIGTERM, m.EndReason.WALLTIME, 505),
    ],
)
def test_signals(end, signum, why, end_after):
    departure = Departure(Allocation(end=end, notice_s=60, of_scheduler=True))
    departure.signalled(signum, 500)
    assert departure.next(500) is Step.NOTICE
    assert (departure.why, departure.end) == (why, end_after)
    departure.signalled(signal.SIGTERM, 501)
    assert departure.end == end_after, "there is only one notice"


def test_an_early_signal_does_not_shorten_what_tasks_were_promised():
    departure = Departure(Allocation(end=1000, notice_s=60))
    departure.signalled(signal.SIGUSR1, 820)
    assert departure.next(820) is Step.NOTICE
    assert departure.wait_s(820) == 150


def test_sigterm_leaves_tasks_next_to_no_time():
    departure = Departure(Allocation(end=10000, notice_s=60, of_scheduler=True))
    departure.signalled(signal.SIGTERM, 500)
    assert departure.next(500) is Step.NOTICE
    assert departure.wait_s(500) < 0.5
    assert departure.next(501) is Step.LAST_CALL
    assert departure.wait_s(501) > 2


def test_goodbyes():
    departure = Departure(Allocation(end=1000))
    assert departure.goodbye("shutdown") == m.Goodbye("shutdown")
    departure.next(1000)
    said = departure.goodbye("ignored", ["the hook f failed: ValueError: no"])
    assert said.why is m.EndReason.WALLTIME
    assert said.reason.startswith("left at the end of its allocation, ")
    assert said.reason.endswith("; the hook f failed: ValueError: no")
    assert repr(departure).startswith("<Departure NOTICE, WALLTIME at ")


# ---------------------------------------------------------------- hooks


@pytest.fixture
def no_hooks(monkeypatch):
    monkeypatch.setattr(hooks, "_hooks", {})


def make_hook(namespace, text):
    exec(text, {"hpc": hpc, "__name__": "__main__", **namespace})


@pytest.mark.usefixtures("no_hooks")
def test_hooks_run_in_order_and_replace_their_namesakes():
    calls = []
    for version in (1, 2):
        make_hook({"calls": calls, "version": version}, "@hpc.on_walltime\ndef save(): calls.append(version)")
    hpc.on_walltime(lambda: calls.append("a"))
    hpc.on_walltime(lambda: calls.append("b"))
    assert hooks.run_hooks() == []
    assert calls == [2, "a", "b"]


@pytest.mark.usefixtures("no_hooks")
def test_a_hook_that_fails_does_not_stop_the_others():
    calls = []

    @hpc.on_walltime
    def fails():
        raise SystemExit(3)

    hpc.on_walltime(lambda: calls.append(1))
    (trouble,) = hooks.run_hooks()
    assert "fails failed: SystemExit: 3" in trouble
    assert calls == [1]


# ---------------------------------------------------------------- an engine


@pytest.fixture
def ending(tmp_path, monkeypatch):
    """Return what starts an engine whose allocation ends."""

    def start(left_s, notice_s, **options):
        for name in ("SLURM_JOB_ID", "SLURM_JOB_END_TIME", "PBS_JOBID"):
            monkeypatch.delenv(name, raising=False)
        if left_s:
            monkeypatch.setenv("HPC_WALLTIME_END", str(time.time() + left_s))
        monkeypatch.setenv("HPC_NOTICE_S", str(notice_s))
        return playing(tmp_path, **options)

    return start


def farewell(engine):
    goodbye, _, channel = engine.expect(m.Goodbye)
    assert engine.exit_code() == 0
    return goodbye, channel


@pytest.mark.parametrize("route", ["unix", "tcp"])
def test_an_engine_gives_notice_in_time_and_leaves_when_told_that_this_is_all(ending, route):
    with ending(100, 99.5, route=route) as engine:
        assert engine.info.notice_s == 99.5
        assert abs(engine.info.deadline - time.time() - 100) < 10
        assert engine.expect(m.Notice)[0].why is m.EndReason.WALLTIME
        engine.run_calls(square, [(3,)])  # it was on its way
        engine.tell("work", m.Stop("this is all"))
        assert value_of(engine.outcomes(1)[0]) == 9
        goodbye, channel = farewell(engine)
        assert goodbye.why is m.EndReason.WALLTIME
        assert channel == "work", "so that no result can come after it"


def test_hooks_run_before_the_goodbye_and_their_failures_are_told(ending, tmp_path):
    trace = tmp_path / "trace"
    with ending(0, 60) as engine:
        code = f"""if True:
            import hpc, time
            @hpc.on_walltime
            def save():
                time.sleep(0.1)
                open({str(trace)!r}, "w").write(f"{{hpc.time_left():.0f}}")
            @hpc.on_walltime
            def fail():
                raise ValueError("no disk")
        """
        assert engine.execute(code).status is m.Status.DONE
        os.kill(engine.pid, signal.SIGUSR1)
        assert engine.expect(m.Notice)[0].why is m.EndReason.WALLTIME
        engine.tell("work", m.Stop("this is all"))
        goodbye, _ = farewell(engine)
        assert 50 <= int(trace.read_text()) <= 60
        assert goodbye.reason.endswith("; the hook fail failed: ValueError: no disk")


def test_work_that_has_not_begun_is_given_back(ending, tmp_path):
    begun, released = tmp_path / "begun", tmp_path / "released"
    with ending(0, 60) as engine:
        engine.run_calls(_begin, [(str(begun), str(released))] * 5, first=5)
        engine.pump(begun.exists)
        os.kill(engine.pid, signal.SIGUSR1)
        engine.expect(m.Notice)
        engine.tell("control", m.Revoke(7, 5, 0, 5))
        revoked = engine.expect(m.Revoked)[0]
        assert (revoked.start, revoked.stop) == (1, 5)
        engine.tell("work", m.Stop("this is all"))
        released.touch()
        assert list(engine.outcomes(1, 5)) == [0]
        farewell(engine)


def _begin(begun, released):
    open(begun, "w").close()
    return wait_for(released)


@pytest.mark.parametrize("kind", ["calls", "span"])
def test_what_still_runs_at_the_last_call_is_interrupted_and_not_reported(ending, tmp_path, kind):
    begun = tmp_path / "begun"
    with ending(0, 0.6) as engine:
        code = f"""if True:
            def work(i):
                if i:
                    open({str(begun)!r}, "w").close()
                    import time; time.sleep(60)
                return i
        """
        engine.execute(code)
        call = engine.define(_work)
        if kind == "calls":
            engine.run_calls(call, [(0,), (1,)], first=10)
        else:
            engine.run_span(call, [0, 1], first=10)
        engine.pump(begun.exists)
        os.kill(engine.pid, signal.SIGUSR1)
        engine.expect(m.Notice)
        goodbye, _ = farewell(engine)
        assert goodbye.why is m.EndReason.WALLTIME
        assert {offset: entry.status for offset, entry in engine.outcomes(1, 10).items()} == {0: m.Status.DONE}
        assert not any(isinstance(message, m.Results) for message, _, _ in engine.inbox)


def _work(i):
    import __main__

    return __main__.work(i)


def test_an_engine_that_does_not_come_back_goes_all_the_same(ending, tmp_path, monkeypatch):
    monkeypatch.setattr(control, "GRACE_S", 0.2)
    begun = tmp_path / "begun"
    with ending(0, 0.4) as engine:
        code = f"""if True:
            import time
            while True:
                try:
                    open({str(begun)!r}, "w").close()
                    time.sleep(60)
                except KeyboardInterrupt:
                    pass
        """
        engine.run_calls(b"!execute", [(code, "<x>")])
        engine.pump(begun.exists)
        os.kill(engine.pid, signal.SIGUSR1)
        goodbye, channel = farewell(engine)
        assert goodbye.why is m.EndReason.WALLTIME
        assert channel == "control"


def test_sigterm_from_a_scheduler_is_a_notice(ending):
    with ending(7200, 60) as engine:
        os.kill(engine.pid, signal.SIGTERM)
        assert engine.expect(m.Notice)[0].why is m.EndReason.PREEMPTED
        engine.tell("work", m.Stop("this is all"))
        goodbye, _ = farewell(engine)
        assert goodbye.why is m.EndReason.PREEMPTED
        assert goodbye.reason == "left because its job was preempted, or told to end"


def test_hooks_run_when_the_controller_leaves_first(ending, tmp_path):
    trace = tmp_path / "trace"
    with ending(0, 60) as engine:
        engine.execute(f"import hpc; hpc.on_walltime(lambda: open({str(trace)!r}, 'w').close())")
        os.kill(engine.pid, signal.SIGUSR1)
        engine.expect(m.Notice)
        engine.tell("control", m.Goodbye("the allocation ends"))
        assert engine.exit_code() == 0
        assert trace.exists()


def test_a_shutdown_without_notice_runs_no_hooks(ending, tmp_path):
    trace = tmp_path / "trace"
    with ending(7200, 60) as engine:
        engine.execute(f"import hpc; hpc.on_walltime(lambda: open({str(trace)!r}, 'w').close())")
        engine.tell("control", m.Stop("shutdown"))
        goodbye, channel = farewell(engine)
        assert goodbye == m.Goodbye("shutdown")
        assert channel == "control"
        assert not trace.exists()
