"""Collective operations of the runtime, on as many ranks as mpirun started (see test_group.py)."""

import contextlib
import operator
import sys
import time
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

from hpc.engine.collective import GroupWork, segments
from hpc.engine.current import Identity
from hpc.engine.namespace import Namespace
from hpc.errors import CollectiveStalled, HpcError
from hpc.mpi.collectives import MAX_TEAMS, Collectives, memory_of
from hpc.partition import slices
from hpc.wire import objects

RANK, SIZE = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size
EVERYBODY = list(range(SIZE))
LAST = SIZE - 1
LENGTHS = sorted({0, 1, SIZE - 1, SIZE, SIZE + 1, 1009})
DTYPES = [
    "?",
    "i1",
    "i8",
    ">i4",
    "f2",
    "f8",
    "g",
    "c16",
    "M8[ns]",
    "m8[s]",
    "S3",
    "U5",
    "V7",
    [("a", "i4"), ("b", "f8", (2,))],
]


@pytest.fixture(scope="module")
def comm() -> Iterator[Any]:
    duplicate = MPI.COMM_WORLD.Dup()
    yield duplicate
    duplicate.Free()


@pytest.fixture
def collectives(comm: Any) -> Collectives:
    made = Collectives(comm)
    made.block_nbytes = 4096  # as if that were 2 GiB
    return made


@pytest.fixture
def work(collectives: Collectives) -> GroupWork:
    return GroupWork(Namespace(Identity(RANK, RANK, SIZE)), collectives)


def sample(dtype: Any, n: int, seed: int = 0) -> np.ndarray:
    raw = np.random.default_rng(seed + n).integers(0, 2 if dtype == "?" else 100, n * np.dtype(dtype).itemsize)
    if dtype in ("f2", "f8", "g", "c16", "?", "U5"):
        return (raw[:n] % 7).astype(dtype)
    return raw.astype(np.uint8).view(dtype)


def same(left: Any, right: Any) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    # Of long doubles six bytes mean nothing.
    return bool((left == right).all()) if left.dtype.char == "g" else left.tobytes() == right.tobytes()


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


# ---------------------------------------------------------------- the engine's operations


def stage_in_pieces(work: GroupWork, token: bytes, parts: list[Any], root: int, n_pieces: int) -> list[Any]:
    """Do the client's part; return the spans to move, and with the first one the sizes."""
    frames = [[np.frombuffer(frame, "u1") for frame in objects.dumps(part)] for part in parts]
    buffers = [buffer for each in frames for buffer in each]
    total = sum(map(len, buffers))
    bounds = [total * i // n_pieces for i in range(n_pieces + 1)]
    spans = [(i, bounds[i], bounds[i + 1], i == n_pieces - 1) for i in range(n_pieces)]
    if root == RANK:
        for i, start, stop, _ in spans:
            found = segments([len(b) for b in buffers], start, stop)
            work.stage(token, i, [buffers[k][a:b].copy() for k, a, b in found])
    return [(span, [] if span[0] else [list(map(len, each)) for each in frames]) for span in spans]


@pytest.mark.mpi
@pytest.mark.parametrize("n_pieces", [1, 2, 7])
@pytest.mark.parametrize("root", sorted({0, LAST}))
def test_names_travel_in_pieces(work: GroupWork, root: int, n_pieces: int) -> None:
    sent = {"a": np.arange(50_000.0).reshape(100, 500, order="F"), "b": [np.arange(20_000), "x"], "c": 3}
    for span, sizes in stage_in_pieces(work, b"1", [sent], root, n_pieces):
        work.bcast(b"1", EVERYBODY, root, span, sizes)
    a, b, c = work._namespace.pull(["a", "b", "c"])
    assert same(a, sent["a"])
    assert a.flags.f_contiguous
    assert b[0].tolist() == list(range(20_000))
    assert (b[1], c) == ("x", 3)
    a[:], b[0][:] = 0, 0
    assert not work._transfers


@pytest.mark.mpi
@pytest.mark.parametrize("n_pieces", [1, 2, 7])
@pytest.mark.parametrize("root", sorted({0, LAST}))
@pytest.mark.parametrize("dtype", ["f8", "M8[ns]", "O"])
def test_parts_travel_in_pieces(work: GroupWork, root: int, n_pieces: int, dtype: str) -> None:
    whole = np.arange(SIZE * 10_007).astype("i8").astype(dtype)
    parts = [whole[piece] for piece in slices(len(whole), SIZE)]
    for span, sizes in stage_in_pieces(work, b"1", [{"x": part} for part in parts], root, n_pieces):
        work.scatterv(b"1", EVERYBODY, root, span, sizes)
    (x,) = work._namespace.pull(["x"])
    assert x.tolist() == parts[RANK].tolist()
    x[:] = x[::-1]


@pytest.mark.mpi
def test_a_part_that_never_came_is_known_to_all(work: GroupWork) -> None:
    first, second = stage_in_pieces(work, b"1", [{"a": np.arange(50_000)}], 0, 2)
    if RANK == 0:
        del work._transfers[b"1"].staged[1]
    work.bcast(b"1", EVERYBODY, 0, *first)
    stop = second[0][2]
    for span in ((*second[0][:3], False), (2, stop, stop + 1000, True)):
        with pytest.raises(HpcError, match="did not arrive"):
            work.bcast(b"1", EVERYBODY, 0, span, [])
    assert not work._transfers
    assert "a" not in work._namespace.names


@pytest.mark.mpi
@pytest.mark.parametrize("root", sorted({0, LAST}))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_arrays_are_gathered_into_one(work: GroupWork, root: int, dtype: Any) -> None:
    for n in LENGTHS:
        whole = sample(dtype, 3 * n).reshape(n, 3)
        work._namespace.names["x"] = whole[slices(n, SIZE)[RANK]]
        answer = work.gatherv(EVERYBODY, root, "x", True)
        assert (answer is None) == (root != RANK)
        if answer is not None:
            assert answer[0] == "whole"
            assert same(answer[1], whole)


@pytest.mark.mpi
@pytest.mark.parametrize(
    "make",
    [
        lambda: np.arange(30_000.0)[:: RANK + 1],
        lambda: np.ma.masked_greater(np.arange(5), 2),
        lambda: ["text", RANK, np.arange(10_000)],
        lambda: np.array(None, object),
        lambda: np.float64(RANK) if RANK else np.arange(3),
    ],
    ids=["strided", "masked", "list", "object", "mixed"],
)
def test_anything_else_is_gathered_as_frames(work: GroupWork, make: Callable[[], Any]) -> None:
    work._namespace.names["x"] = make()
    answer = work.gatherv(EVERYBODY, LAST, "x", True)
    values = MPI.COMM_WORLD.allgather(make())
    if answer is not None and answer[0] == "parts":
        found = [objects.loads([bytes(frames[0]), *frames[1:]]) for frames in answer[1]]
        assert list(map(repr, found)) == list(map(repr, values))
    elif answer is not None:
        assert answer[1].tolist() == np.concatenate(values).tolist()


@pytest.mark.mpi
def test_gather_where_one_lacks_the_name(work: GroupWork) -> None:
    if RANK != LAST:
        work._namespace.names["x"] = np.arange(3)
    with pytest.raises(NameError if RANK == LAST else HpcError, match="name 'x' is not defined on engine"):
        work.gatherv(EVERYBODY, 0, "x", True)


REDUCED = [
    ("sum", lambda rank: np.arange(5) + rank),
    ("prod", lambda rank: np.full((2, 3), rank + 1.5, order="F" if rank else "C")),
    ("max", lambda rank: np.array(["2026-01-01", "2026-01-02"], "M8[D]") + rank),
    ("min", lambda rank: np.float32(-rank)),
    ("land", lambda rank: np.array([1, rank, 2])),
    ("lor", lambda rank: np.array(rank)),
    ("sum", lambda rank: 10**30 + rank),
    ("max", lambda rank: f"rank {rank}"),
    ("land", lambda rank: rank),
    ("sum", lambda rank: [rank]),
    ("sum", lambda rank: np.array([rank, 10**30], object)),
    (np.hypot, lambda rank: np.arange(3.0) + rank),
    (lambda a, b: a @ b, lambda rank: np.array([[1, rank], [0, 1]])),
]


@pytest.mark.mpi
@pytest.mark.parametrize(("op", "make"), REDUCED, ids=range(len(REDUCED)))
def test_reduce_of_names(work: GroupWork, op: Any, make: Callable[[int], Any]) -> None:
    from hpc.mpi.operations import find

    work._namespace.names["x"] = make(RANK)
    total = work.reduce(EVERYBODY, LAST, "x", objects.dumps(op))
    assert (total is None) == (RANK != LAST)
    if total is not None:
        expected = reduce(find(op), map(make, EVERYBODY))
        assert np.shape(total) == np.shape(expected)
        if SIZE > 1:  # of one rank land and lor have nothing to do
            assert np.array_equal(total, expected)
            assert isinstance(total, np.ndarray) == isinstance(expected, np.ndarray)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    ("make", "op", "said"),
    [
        (lambda: np.zeros(3, "f4" if RANK == LAST else "f8"), "sum", "float32 of shape (3,) on rank"),
        (lambda: np.zeros(3 + (RANK == LAST)), "sum", "float64 of shape (4,) on rank"),
        (lambda: [] if RANK == LAST else np.zeros(3), "sum", "no array on rank"),
        (lambda: np.zeros(3), "mean", "one of sum, prod"),
        (lambda: np.zeros(2, "M8[s]"), "sum", "add"),
    ],
    ids=["dtype", "shape", "kind", "op", "no sum of dates"],
)
def test_what_cannot_be_reduced_raises_everywhere(work: GroupWork, make: Callable[[], Any], op: str, said: str) -> None:
    work._namespace.names["x"] = make()
    with pytest.raises((ValueError, TypeError, HpcError)) as caught:
        work.reduce(EVERYBODY, 0, "x", objects.dumps(op))
    assert said in str(caught.value)
    assert MPI.COMM_WORLD.allreduce(1) == SIZE


@pytest.mark.mpi
def test_without_mpi_it_says_so() -> None:
    work = GroupWork(Namespace(Identity()), None)
    with pytest.raises(HpcError, match="without MPI"):
        work.gatherv([0], 0, "x", True)
    assert "mpi4py" in sys.modules
