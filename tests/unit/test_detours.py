"""A slower route than there might be is taken, and said, with the reason and once."""

import logging
import sys

import numpy as np
import pytest

from hpc.client.bundle import Placement
from hpc.client.freight import FIRST_NBYTES, Freight
from hpc.dataplane import chooser
from hpc.transport.pieces import WINDOW_NBYTES
from hpc.wire import messages as m

MIB = 1 << 20


def row(number, host="here", mpi="MPICH", size=2):
    return m.EngineRow(number, number, size, "g", host, 1, "idle", mpi)


HERE = [row(0), row(1)]
WITHOUT_MPI = [row(0, mpi=""), row(1, "there", mpi="")]
NO_SOCKET = "/run/hpc/controller.sock: Permission denied"


@pytest.mark.parametrize(
    ("rows", "link", "forced", "obstacle", "route", "reason"),
    [
        (HERE, "unix", None, "", "shm", ""),
        (HERE, "tcp", None, "", "tcp", ""),
        (HERE, "tcp", None, NO_SOCKET, "tcp", "Permission denied"),
        (HERE, "tcp", "tcp", NO_SOCKET, "tcp", ""),
        (HERE, "tcp", "shm", "", "tcp", "no unix socket"),
        (WITHOUT_MPI, "unix", None, "", "shm", "no part in MPI"),
        (WITHOUT_MPI, "tcp", None, "", "tcp", "no part in MPI"),
        (WITHOUT_MPI, "unix", "mpi", "", "tcp", "no part in MPI"),
        ([row(0, size=1)], "unix", "mpi", "", "tcp", "not ranks of one MPI group"),
        ([row(0), row(1, "there")], "tcp", None, NO_SOCKET, "mpi", ""),
    ],
)
def test_the_chooser_says_why_it_is_not_a_faster_one(rows, link, forced, obstacle, route, reason):
    choice = chooser.choose(MIB, rows, link=link, forced=forced, obstacle=obstacle)
    assert choice.route == route
    assert reason in choice.reason
    assert bool(choice.reason) == bool(reason)
    assert chooser.choose(100, rows, link=link, obstacle=obstacle) == ("inline", ""), (
        "it is not slower for small things"
    )


def test_a_client_is_warned_once_for_each_reason(caplog, monkeypatch):
    monkeypatch.delenv("HPC_ROUTE", raising=False)
    freight, body = Freight(), [b"head", memoryview(np.zeros(MIB, "u1"))]
    engines = dict(enumerate(HERE))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            freight.ship(body, Placement([0]), engines, "tcp")
        assert not caplog.records, "from another host it is what one would expect"
        freight.obstacle = NO_SOCKET
        for _ in range(3):
            _, mark = freight.ship(body, Placement([0]), engines, "tcp")
            assert mark.route == "tcp"
        assert [NO_SOCKET in record.getMessage() for record in caplog.records] == [True]
        freight.ship(body, Placement([0], route="mpi"), {0: row(0, size=1)}, "tcp")
        assert "not ranks" in caplog.records[-1].getMessage()
        assert len(caplog.records) == 2


@pytest.mark.parametrize(
    ("available", "wanted"), [(1 << 40, [WINDOW_NBYTES, FIRST_NBYTES]), (1 << 30, [WINDOW_NBYTES])]
)
def test_what_is_sent_first_finds_warm_memory_where_there_is_plenty(monkeypatch, available, wanted):
    monkeypatch.setattr("hpc.dataplane.segments.Pool._start_sweeper", lambda _: None)
    monkeypatch.setattr("hpc.dataplane.memory.available_nbytes", lambda: available)
    freight = Freight()
    freight.prepare()
    freight.prepare()
    assert freight.outgoing.pool.wanted == wanted


def test_who_has_no_numpy_sends_no_array_first(monkeypatch):
    monkeypatch.setattr("hpc.dataplane.segments.Pool._start_sweeper", lambda _: None)
    monkeypatch.delitem(sys.modules, "numpy")
    freight = Freight()
    freight.prepare()
    assert freight.outgoing.pool.wanted == [WINDOW_NBYTES]
