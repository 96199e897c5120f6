"""The pool of segments: what is lent comes back, warm, and goes back to the system in time."""

import os
import signal

import pytest

from hpc.dataplane import chooser, memory, segments
from hpc.dataplane.outgoing import Outgoing
from hpc.dataplane.segments import NoSegmentError, Pool
from hpc.wire.messages import EngineRow

MIB = 1 << 20


@pytest.fixture
def pool():
    return Pool()


def test_a_segment_comes_back_warm(pool):
    loan = pool.lend(3 * MIB)
    assert not loan.warm
    first = loan._segment
    other = pool.lend(3 * MIB)
    assert other._segment is not first
    del loan
    again = pool.lend(3 * MIB)
    assert again._segment is first
    assert again.warm


def test_handles_and_frames_keep_the_loan(pool):
    loan = pool.lend(MIB)
    handle = loan.handle()
    del loan
    pool.trim()
    assert "1 segments on loan" in repr(pool)
    del handle
    pool.trim()
    assert "0 segments on loan, 1 idle" in repr(pool)


def test_small_data_does_not_take_a_large_segment(pool):
    pool.lend(64 * MIB)
    pool.lend(MIB)
    pool.trim()
    assert len(pool._idle) == 2
    assert pool.lend(2 * MIB)._segment.nbytes < 64 * MIB


@pytest.mark.parametrize("nbytes", [1, MIB - 1, MIB, MIB + 1, 5 * MIB, 100 * MIB + 1])
def test_sizes(nbytes):
    rounded = segments._rounded(nbytes)
    assert max(nbytes, MIB) <= rounded <= max(nbytes * 1.25, MIB)
    assert rounded % 4096 == 0


def test_idle_segments_go_back(pool):
    pool.lend(4 * MIB)
    pool.trim()
    assert pool.nbytes == 4 * MIB
    pool.trim(idle_s=0)
    assert pool.nbytes == 0
    assert not pool._idle


def test_idle_segments_are_bounded(pool, monkeypatch):
    loans = [pool.lend(4 * MIB) for _ in range(4)]
    monkeypatch.setattr(memory, "available_nbytes", lambda *_: 8 * MIB * segments.IDLE_SHARE)
    loans.clear()
    pool.trim()
    assert pool.nbytes == 8 * MIB


def test_what_does_not_fit_is_refused_and_goes_another_way(pool, monkeypatch, caplog):
    monkeypatch.setattr(memory, "available_nbytes", lambda *_: 4 * MIB)
    with pytest.raises(NoSegmentError, match="4194304 bytes of memory are available"):
        pool.lend(3 * MIB)
    outgoing = Outgoing()
    assert outgoing.share([bytes(3 * MIB)]) is None
    assert outgoing.share([bytes(3 * MIB)]) is None
    assert len(caplog.records) == 1, "it is said, and said once"


def test_without_descriptors_there_is_no_segment(pool, monkeypatch):
    monkeypatch.setattr(os, "memfd_create", lambda *_: (_ for _ in ()).throw(OSError(24, "Too many open files")))
    with pytest.raises(NoSegmentError, match="Too many open files"):
        pool.lend(MIB)


def test_segments_that_are_never_given_back_are_not_kept(pool, monkeypatch):
    monkeypatch.setattr(segments, "MAX_LENT", 3)
    before = len(os.listdir("/proc/self/fd"))
    loans = [pool.lend(MIB) for _ in range(8)]
    assert "3 segments on loan" in repr(pool)
    assert [loan.view[0] for loan in loans] == [0] * 8, "the holders still have them"
    loans.clear()
    pool.trim(idle_s=0)
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_a_forked_child_leaves_the_parents_segments_alone(pool):
    loan = pool.lend(MIB)
    loan.view[:5] = b"hello"
    pid = os.fork()
    if not pid:
        status = 1
        try:
            pool.lend(MIB).view[:5] = b"child"
            status = 0 if len(pool._lent) <= 1 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert bytes(loan.view[:5]) == b"hello"


def test_the_death_of_a_holder_gives_the_segment_back(pool):
    loan = pool.lend(MIB)
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writer, b"x")
        signal.pause()
    os.read(reader, 1)
    os.close(reader)
    os.close(writer)
    del loan
    pool.trim()
    assert "1 segments on loan" in repr(pool), "the child has it"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    pool.trim()
    assert "0 segments on loan, 1 idle" in repr(pool)


# ---------------------------------------------------------------- the chooser


def row(engine_id, host="here", group="a", size=4, mpi="MPICH"):
    return EngineRow(engine_id, engine_id, size, group, host, 1, "idle", mpi)


ONE_HOST = [row(0), row(1)]
TWO_HOSTS = [row(0), row(1, "there")]


@pytest.mark.parametrize(
    ("nbytes", "rows", "link", "forced", "route"),
    [
        (100, ONE_HOST, "unix", None, "inline"),
        (MIB, ONE_HOST, "unix", None, "shm"),
        (MIB, ONE_HOST, "tcp", None, "tcp"),
        (MIB, TWO_HOSTS, "unix", None, "mpi"),
        (MIB, [row(0), row(1, "there", "b")], "unix", None, "shm"),
        (MIB, [row(0, mpi=""), row(1, "there", mpi="")], "unix", None, "shm"),
        (MIB, [], "unix", None, "shm"),
        (MIB, ONE_HOST, "unix", "tcp", "tcp"),
        (100, ONE_HOST, "unix", "shm", "shm"),
        (100, ONE_HOST, "tcp", "shm", "tcp"),
        (100, ONE_HOST, "unix", "mpi", "mpi"),
        (100, [row(0, size=1)], "unix", "mpi", "tcp"),
        (MIB, ONE_HOST, "unix", "inline", "inline"),
    ],
)
def test_the_route_follows_from_who_is_where(nbytes, rows, link, forced, route):
    assert chooser.choose(nbytes, rows, link=link, forced=forced).route == route


def test_a_route_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("HPC_ROUTE", "pigeon")
    with pytest.raises(ValueError, match="pigeon"):
        chooser.forced_by_environment()


@pytest.mark.parametrize("nbytes", [0, 1, 100, MIB, 8 * MIB - 1, 8 * MIB, 21 * MIB + 5])
def test_copies_are_complete(nbytes):
    import numpy as np

    source = np.random.default_rng(nbytes).integers(0, 255, nbytes, dtype=np.uint8)
    target = bytearray(nbytes + 2)
    memory.copy(memoryview(target)[1:-1], source)
    assert target[1:-1] == source.tobytes()
    assert (target[0], target[-1]) == (0, 0)
