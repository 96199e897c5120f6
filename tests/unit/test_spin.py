"""Spinning or blocking: what is usually quicker counts, whatever a single slow task took."""

from hpc.client import spin
from hpc.client.spin import Spin


class Clock:
    """A clock that a poll moves on."""

    def __init__(self, monkeypatch, spun_s, blocked_s):
        self.now, self.spun_s, self.blocked_s = 100.0, spun_s, blocked_s
        self.since = 0.0
        monkeypatch.setattr(spin.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(spin.os, "sched_yield", lambda: None)

    def poll(self, timeout_ms):
        """Have an answer after ``spun_s`` of asking again and again, or after having blocked for ``blocked_s``."""
        if timeout_ms != 0:
            self.now += self.blocked_s
            return ["blocked"]
        self.now += 1e-5
        self.since += 1e-5
        if self.since < self.spun_s:
            return []
        self.since = 0.0
        return ["spun"]


def ways(waits, clock, n=100):
    """Return how often each way was taken."""
    taken = [waits.wait(clock.poll, None)[0] for _ in range(n)]
    return taken.count("spun"), taken.count("blocked")


def test_the_quicker_way_is_taken_and_the_other_one_is_tried_now_and_then(monkeypatch):
    clock, waits = Clock(monkeypatch, 5e-5, 9e-5), Spin()
    ways(waits, clock)
    spun, blocked = ways(waits, clock, 320)
    assert (spun, blocked) == (310, 10)
    clock.spun_s, clock.blocked_s = 2e-4, 4e-5
    ways(waits, clock, 1000)
    assert ways(waits, clock, 320)[1] == 310


def test_one_slow_task_does_not_change_the_way(monkeypatch):
    clock, waits = Clock(monkeypatch, 5e-5, 9e-5), Spin()
    ways(waits, clock)
    clock.spun_s = 1.0
    clock.blocked_s = 1.0
    waits.wait(clock.poll, None)
    clock.spun_s, clock.blocked_s = 5e-5, 9e-5
    assert ways(waits, clock, 31)[0] >= 30


def test_spinning_ends_after_a_moment(monkeypatch):
    clock, waits = Clock(monkeypatch, 1e9, 1.0), Spin()
    began = clock.now
    assert waits.wait(clock.poll, None) == ["blocked"]
    assert clock.now - began < 1.0 + 2 * spin.LONGEST_S


def test_a_time_limit_is_passed_on_to_the_wait_that_blocks(monkeypatch):
    clock, waits = Clock(monkeypatch, 1e9, 1.0), Spin()
    limits = []
    waits.wait(lambda limit: limits.append(limit) or (["there"] if limit else clock.poll(0)), 250)
    assert limits[-1] == 250
