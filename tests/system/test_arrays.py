"""The table of what arrives as what: everything, small and large, by every route and in every way of sending it."""

import array
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import hpc

from .conftest import Processes, needs_mpi
from .things import ARRAYS, LARGE, OTHERS, SEQUENCES, SMALL, same

N = 3
EVERYTHING = {**ARRAYS, **SEQUENCES, **OTHERS}
PACKAGES = Path(__file__).parent.parent / "fakes" / "packages"
# The id is not "mpi": pytest-mpi would take these for tests that run on ranks, and skip them.
MPI = pytest.param("mpi", marks=needs_mpi, id="by-mpi")
POINT_TO_POINT = ["inline", "tcp", "shm", None]
ROUTES = [*POINT_TO_POINT, MPI]


@pytest.fixture(params=ROUTES, ids=lambda route: route or "automatic")
def rc(request: pytest.FixtureRequest, processes: Processes, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Return the client of a cluster whose engines, as this process, send by one route."""
    if request.param:
        monkeypatch.setenv("HPC_ROUTE", request.param)
    monkeypatch.syspath_prepend(PACKAGES)
    monkeypatch.setenv("PYTHONPATH", f"{PACKAGES}:{os.environ.get('PYTHONPATH', '')}".rstrip(":"))
    with hpc.Cluster(n=N, launcher="mpiexec" if request.param == "mpi" else "local") as client:
        yield client


def check(table: dict[str, Callable[[int], Any]], way: Callable[[Any], object], sizes: Iterable[int]) -> None:
    """Send each thing of a table, in each size, and name those that do not arrive as what they were."""
    wrong = {}
    for name, make in table.items():
        for n in sizes:
            try:
                if not way(make(n if name != "a hundred" else n // 20)):
                    wrong[f"{n} {name}"] = "is not the same"
            except Exception as error:
                wrong[f"{n} {name}"] = f"{type(error).__name__}: {error}"
    assert not wrong


def test_push_and_pull(rc):
    def way(thing):
        rc[:]["x"] = thing
        return all(same(thing, back) for back in rc[:]["x"])

    check(EVERYTHING, way, (SMALL, LARGE))


def test_arguments_and_results(rc):
    def way(thing):
        pairs = rc[:].apply_sync(lambda x, *, y: (x, y), thing, y=[{"deep": thing}])
        return all(same(thing, x) and same(thing, y[0]["deep"]) for x, y in pairs)

    check(EVERYTHING, way, (SMALL, LARGE))


def test_load_balanced_maps(rc):
    lv = rc.load_balanced_view()

    def way(thing):
        return all(same(thing, back) for back in lv.map_sync(lambda x, i: x, [thing] * 3, range(3)))

    check(EVERYTHING, way, (SMALL, LARGE))


def test_from_engine_to_engine(rc):
    def way(thing):
        rc[1]["x"] = thing
        rc[:].push({"y": hpc.Reference("x", engine=1)})
        z = rc.load_balanced_view().apply_sync(lambda z: z, hpc.Reference("x", engine=1))
        return all(same(thing, back) for back in [z, *rc[:]["y"]])

    check(EVERYTHING, way, (SMALL, LARGE))


@pytest.mark.parametrize("dist", ["block", "cyclic"])
def test_scatter_and_gather(rc, dist):
    v = rc[:]

    def way(thing):
        wanted = list(thing) if isinstance(thing, range) else thing
        wanted = np.asarray(thing) if isinstance(thing, memoryview) else wanted
        right = True
        for axis in range(thing.ndim if isinstance(thing, np.ndarray) else 1):
            for flatten in (False, True):
                if flatten and hasattr(thing, "iloc"):
                    continue
                v.scatter("x", thing, dist=dist, axis=axis, flatten=flatten)
                right = right and same(wanted, v.gather("x"), order=False)
        return right

    check({**ARRAYS, **SEQUENCES}, way, (SMALL, LARGE))
    flat = {name: make for name, make in ARRAYS.items() if make(6).ndim == 1}
    check({**flat, **SEQUENCES}, way, (0, 1, 2, N, 10))
    v.scatter("x", (i * i for i in range(5)))
    assert v.gather("x") == [0, 1, 4, 9, 16]
    v.scatter("x", np.arange(10), dist=dist)
    sizes = [4, 3, 3]
    assert v.apply_sync(lambda x: len(x), hpc.Reference("x")) == sizes
    assert (rc[0]["x"] == (np.arange(4) if dist == "block" else [0, 3, 6, 9])).all()


def test_everything_may_be_written_to(rc):
    v = rc[:]
    for n in (SMALL, LARGE):
        v.push({"a": np.broadcast_to(0.0, n), "b": memoryview(bytes(n)), "c": array.array("d", bytes(8 * n))})
        v.execute("a[:] = b[0] = 1; c.append(a[-1]); d = len(c)")
        assert v["d"] == [n + 1] * N
        v.scatter("a", np.ones((n, 2)))
        v.execute("a += 1")
        whole = v.gather("a")
        whole += 1
        assert (whole == 3).all()


def test_the_sender_may_use_its_memory_again(rc):
    v = rc[:]
    for n in (SMALL, LARGE):
        a, blob = np.zeros(n), bytearray(n)
        v.push({"x": a, "blob": blob})
        a[:], blob[:] = 1, b"x" * n
        assert [back.any() for back in v["x"]] == [False] * N
        assert v["blob"] == [bytearray(n)] * N
        ar = v.push({"x": a}, block=False)
        ar.wait_for_send(20)
        assert ar.sent
        a[:] = 2
        ar.get()
        assert [(back == 1).all() for back in v["x"]] == [True] * N
        v.execute("y = x; x = x.copy()")
        first = v.pull("y", block=False)
        v.execute("y[:] = 5")
        assert [(back == 1).all() for back in first.get()] == [True] * N, "a result changed after it was made"


def test_engines_do_not_share_what_they_received(rc):
    v = rc[:]
    v["x"] = np.zeros(LARGE)
    v.execute("x += id + 1")
    assert [back.mean() for back in v["x"]] == [1, 2, 3]


@pytest.mark.parametrize("rc", [None], indirect=True, ids=["automatic"])
def test_a_view_asks_for_a_route(rc):
    v, a = rc[:], np.arange(LARGE)
    for route in ("inline", "tcp", "shm"):
        v.route = route
        results = [v.push({"x": a}, block=False), v.pull("x", block=False), v.apply_async(np.sum, a)]
        results += [v.apply_async(lambda: np.zeros(100_000)), v.map_async(lambda i: np.zeros(100_000), range(3))]
        one = next(iter(v))
        results += [one.apply_async(np.sum, a), one.apply_async(lambda: np.zeros(100_000))]
        for ar in results:
            ar.get()
            rows = ar.metadata if isinstance(ar.metadata, list) else [ar.metadata]
            # What is large is not inline, whatever was asked for: it says how it went.
            assert {row["route"] for row in rows} <= {route, "tcp" if route == "inline" else route}


@pytest.mark.parametrize("rc", ["tcp", "shm"], indirect=True)
def test_more_than_two_gib(rc):
    nbytes = (2 << 30) + 12345
    if psutil.virtual_memory().available < 6 * nbytes:
        pytest.skip(f"not tested: {6 * nbytes >> 30} GiB of memory are needed, which are not available now")
    one, a = rc[0], np.zeros(nbytes, "u1")
    a[:: 1 << 20] = 1
    a[-1] = 7
    one["x"] = a
    assert one.apply_sync(lambda x: (len(x), int(x[-1]), int(x[:: 1 << 20].sum())), hpc.Reference("x")) == (
        nbytes,
        7,
        2049,
    )
    del a
    back = one["x"]
    assert (len(back), back[-1], int(back[:: 1 << 20].sum())) == (nbytes, 7, 2049)
