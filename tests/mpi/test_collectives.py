"""Collective operations of the runtime, on as many ranks as mpirun started (see test_group.py)."""

import contextlib
import operator
import time
from functools import reduce
from typing import Any

import numpy as np
import psutil
import pytest
from ranks import DTYPES, EVERYBODY, LAST, LENGTHS, RANK, SIZE, same, sample

from hpc.errors import CollectiveStalled, HpcError
from hpc.mpi.collectives import MAX_TEAMS, Collectives, memory_of
from hpc.partition import slices


@pytest.mark.mpi
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bcast_of_any_dtype_and_length(collectives: Collectives, dtype: Any) -> None:
    with collectives.team(EVERYBODY) as team:
        for n in LENGTHS:
            for root in {0, LAST}:
                expected = sample(dtype, n, root)
                array = expected.copy() if root == RANK else np.zeros_like(expected)
                team.bcast([memory_of(array)], root)
                assert same(array, expected)


@pytest.mark.mpi
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scatterv_then_gatherv_is_the_identity(collectives: Collectives, dtype: Any) -> None:
    with collectives.team(EVERYBODY) as team:
        for n in LENGTHS:
            for root in {0, LAST}:
                expected = sample(dtype, n, root)
                pieces = slices(n, SIZE)
                mine = np.empty_like(expected[pieces[RANK]])
                outgoing = [[memory_of(expected[piece])] for piece in pieces] if root == RANK else None
                team.scatterv(outgoing, [memory_of(mine)], root)
                assert same(mine, expected[pieces[RANK]])

                whole = np.empty_like(expected) if root == RANK else None
                incoming = None if whole is None else [[memory_of(whole[piece])] for piece in pieces]
                team.gatherv([memory_of(mine)], incoming, root)
                assert whole is None or same(whole, expected)


@pytest.mark.mpi(min_size=2)
def test_more_than_2_gib_move_at_once(comm: Any) -> None:
    if SIZE > 2:
        pytest.skip("Test requires two ranks and no more, which take 2 GiB each")
    if psutil.virtual_memory().available < 6 << 30:
        pytest.skip("moving over 2 GiB takes 6 GiB of memory, which are not there")
    n = (2 << 30) + 4099
    places = [0, (1 << 30) - 1, 1 << 30, (2 << 30) - 1, 2 << 30, n - 1]
    there = np.zeros(n, "u1")  # pages are made when they are written to, so on the root there are but a few
    if RANK == 0:
        there[places] = [1, 2, 3, 4, 5, 6]
    with Collectives(comm).team(EVERYBODY) as team:
        team.bcast([there], 0)
        assert there[places].tolist() == [1, 2, 3, 4, 5, 6]
        there[places] += 10
        back = np.empty(0 if RANK else n, "u1")
        team.gatherv([there[:0] if RANK == 0 else there], None if RANK else [[back[:0]], [back]], 0)
    assert RANK or back[places].tolist() == [11, 12, 13, 14, 15, 16]


@pytest.mark.mpi
@pytest.mark.parametrize("op", ["add", "multiply", "maximum", "minimum"])
@pytest.mark.parametrize("dtype", ["i4", "u1", "f2", "f8", "g", "c16", ">f8"])
def test_reduce_does_as_numpy_does(collectives: Collectives, op: str, dtype: str) -> None:
    ufunc = getattr(np, op)
    with collectives.team(EVERYBODY) as team:
        for n in LENGTHS:
            arrays = [(np.arange(n) % 5 + rank % 3 + 1).astype(dtype) for rank in range(SIZE)]
            total = team.reduce(arrays[RANK], ufunc, LAST)
            assert (total is not None) == (RANK == LAST)
            if total is not None:
                assert same(total, reduce(ufunc, arrays).astype(dtype))


@pytest.mark.mpi
def test_reduce_lets_nan_win_and_wraps_around(collectives: Collectives) -> None:
    with collectives.team(EVERYBODY) as team:
        total = team.reduce(np.array([1.0, np.nan if RANK == LAST else 2.0]), np.maximum, 0)
        wrapped = team.reduce(np.full(3, 100, np.int8), np.add, 0)
    if RANK == 0:
        assert total[0] == 1.0
        assert np.isnan(total[1])
        assert wrapped.tolist() == [int(np.int64(100 * SIZE).astype(np.int8))] * 3


@pytest.mark.mpi
@pytest.mark.parametrize("root", sorted({0, LAST}))
def test_reduction_of_objects_keeps_the_order_of_ranks(collectives: Collectives, root: int) -> None:
    with collectives.team(EVERYBODY) as team:
        text = team.reduce_objects(f"{RANK},", operator.add, root)
        large = team.reduce_objects(np.full(10_000, RANK), np.add, root)
    assert text == ("".join(f"{rank}," for rank in EVERYBODY) if root == RANK else None)
    assert large is None or large.tolist() == [sum(EVERYBODY)] * 10_000


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("root", sorted({0, LAST}))
def test_a_function_that_raises_is_reported_by_the_root(collectives: Collectives, root: int) -> None:
    def combine(left: int, right: int) -> int:
        raise ZeroDivisionError("no")

    with collectives.team(EVERYBODY) as team:
        if root == RANK:
            with pytest.raises((HpcError, ZeroDivisionError), match="no"):
                team.reduce_objects(RANK, combine, root)
        else:
            with contextlib.suppress(ZeroDivisionError):
                assert team.reduce_objects(RANK, combine, root) is None
        assert team.exchange(RANK) == EVERYBODY, "nothing is left in the pipes"


@pytest.mark.mpi
def test_subsets_are_numbered_as_asked_for(collectives: Collectives) -> None:
    for ranks in (EVERYBODY, EVERYBODY[::-1], EVERYBODY[::2], [LAST], EVERYBODY[1:]):
        for _ in range(2):
            if RANK in ranks:
                with collectives.team(ranks) as team:
                    assert (team.ranks, team.rank) == (tuple(ranks), ranks.index(RANK))
                    assert team.exchange(RANK) == ranks
    assert len(collectives._teams) <= 5


@pytest.mark.mpi(min_size=3)
def test_subsets_that_are_too_many_are_not_kept(collectives: Collectives) -> None:
    if RANK == 1:
        collectives._teams.update({(-1, i): None for i in range(MAX_TEAMS)})
    for _ in range(3):
        if RANK in (1, 2):
            with collectives.team([2, 1]) as team:
                assert not team.is_kept
                assert team.exchange(RANK) == [2, 1]
    if RANK == 2:
        assert not collectives._teams


@pytest.mark.mpi
def test_a_problem_of_one_is_known_to_all(collectives: Collectives) -> None:
    with collectives.team(EVERYBODY) as team:
        team.agree()
        mine = NameError("no x here") if RANK == LAST else None
        with pytest.raises(NameError if mine else HpcError, match="no x here") as caught:
            team.agree(mine)
        assert mine or f"rank {LAST}: NameError" in str(caught.value)
        team.agree()


@pytest.mark.mpi(min_size=2)
def test_waiting_for_a_late_rank_costs_no_processor_time(collectives: Collectives) -> None:
    with collectives.team(EVERYBODY) as team:
        team.agree()
        if RANK == 0:
            time.sleep(0.5)
        used = time.process_time()
        team.agree()
        assert time.process_time() - used < 0.25


@pytest.mark.mpi(min_size=2)
def test_who_leaves_does_not_wait(comm: Any) -> None:
    duplicate = comm.Dup()
    if RANK == 0:
        collectives = Collectives(duplicate, lambda: "told to")
        with collectives.team(EVERYBODY) as team, pytest.raises(CollectiveStalled, match="told to"):
            team.all(True)
        comm.barrier()  # only now do the others come
        collectives._given_up[0][0].Wait()
    else:
        comm.barrier()
        with Collectives(duplicate).team(EVERYBODY) as team:
            team.all(True)
    comm.barrier()
