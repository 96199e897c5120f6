"""The engine's operations for all ranks of a team, on as many ranks as mpirun started (see test_group.py)."""

import sys
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI
from ranks import DTYPES, EVERYBODY, LAST, LENGTHS, RANK, SIZE, same, sample

from hpc import reduction
from hpc.engine.collective import GroupWork, segments
from hpc.engine.current import Identity
from hpc.engine.namespace import Namespace
from hpc.errors import HpcError
from hpc.mpi.collectives import Collectives
from hpc.partition import slices
from hpc.wire import objects


@pytest.fixture
def work(collectives: Collectives) -> GroupWork:
    return GroupWork(Namespace(Identity(RANK, RANK, SIZE)), collectives)


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
@pytest.mark.parametrize("came", [None, [np.empty(0, "u1")]], ids=["nothing", "empty"])
def test_a_part_that_never_came_is_known_to_all(work: GroupWork, came: Any) -> None:
    first, second = stage_in_pieces(work, b"1", [{"a": np.arange(50_000)}], 0, 2)
    if RANK == 0:
        del work._transfers[b"1"].staged[1]
        if came:  # what is left of pieces whose sender was killed
            work.stage(b"1", 1, came)
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
    work._namespace.names["x"] = make(RANK)
    total = work.reduce(EVERYBODY, LAST, "x", objects.dumps(op))
    assert (total is None) == (RANK != LAST)
    if total is not None:
        expected = reduce(lambda left, right: reduction.combine(left, right, op), map(make, EVERYBODY))
        if SIZE == 1 and op in ("land", "lor"):
            expected = reduction.combine(expected, expected, op)
        assert np.shape(total) == np.shape(expected)
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
