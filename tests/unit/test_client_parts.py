"""What is divided and put together again is what it was; maps are cut completely and in order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.client import columns
from hpc.client.parts import Layout, join, split
from hpc.client.roster import describe_end
from hpc.client.waiting import Waker, Watch
from hpc.partition import DISTRIBUTIONS
from hpc.wire import messages as m

engines = st.integers(1, 9)
dists = st.sampled_from(DISTRIBUTIONS)
sequences = st.one_of(
    st.lists(st.integers(), max_size=30),
    st.lists(st.integers(), max_size=30).map(tuple),
    st.text(max_size=30),
    st.binary(max_size=30),
    st.binary(max_size=30).map(bytearray),
    st.lists(st.lists(st.integers(), max_size=3), max_size=12),
)


@given(sequences, engines, dists, st.booleans())
def test_sequences_survive_the_round_trip(sequence, n, dist, flatten):
    parts, layout = split(sequence, n, dist, 0, flatten)
    assert len(parts) == n
    # Flattened parts are items; only where all of them are can they be told from parts.
    if flatten and not layout.flatten:
        return
    back = join(parts, layout)
    assert back == sequence
    assert type(back) is type(sequence)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), engines, dists, st.data())
def test_arrays_survive_the_round_trip(shape, n, dist, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    dtype = data.draw(st.sampled_from(["f8", "i2", "c16", "M8[s]", "O", [("a", "i4"), ("b", "f8")]]))
    a = np.arange(int(np.prod(shape))).astype(dtype if isinstance(dtype, str) else "i4").reshape(shape)
    if not isinstance(dtype, str):
        a = np.array([(i, i) for i in a.ravel().tolist()], dtype=dtype).reshape(shape)
    parts, layout = split(a, n, dist, axis, False)
    back = join(parts, layout)
    assert back.dtype == a.dtype
    assert back.shape == a.shape
    assert (back == a).all()


def test_parts_travel_out_of_band():
    a = np.zeros((6, 6))
    for axis in (0, 1):
        for part in split(a, 3, "block", axis, False)[0] + split(a, 3, "cyclic", axis, False)[0]:
            assert part.flags.c_contiguous or part.flags.f_contiguous


def test_a_cyclic_gather_needs_parts_that_fit():
    with pytest.raises(ValueError, match="cyclic"):
        join([[1], [2, 3, 4]], Layout("cyclic", 0, "list"))


@given(st.integers(0, 3000), engines, st.one_of(st.none(), st.integers(1, 500)))
def test_pieces_of_a_map_are_complete_and_in_order(n, k, size):
    pieces = list(columns.pieces((range(n), [str(i) for i in range(n)]), k, size))
    assert [i for piece in pieces for i in piece[0]] == list(range(n))
    assert [i for piece in pieces for i in piece[1]] == [str(i) for i in range(n)]
    if size is None and n:
        assert len(pieces) <= k * columns.PIECES_PER_ENGINE
    elif n:
        assert all(len(piece[0]) == size for piece in pieces[:-1])


@given(st.integers(0, 300), st.one_of(st.none(), st.integers(1, 50)))
def test_pieces_of_a_generator_are_complete_and_in_order(n, size):
    pieces = columns.pieces(((i for i in range(n)), range(1000)), 4, size)
    assert [pair for piece in pieces for pair in zip(*piece, strict=True)] == [(i, i) for i in range(n)]


def test_large_maps_have_pieces_of_bounded_size():
    assert columns.piece_size(10**7, 4) == columns.MAX_PIECE
    assert columns.piece_size(3, 4) == 1
    assert columns.piece_size(0, 0) == 1


@pytest.mark.parametrize(
    ("reason", "signal", "code", "detail", "text"),
    [
        (m.EndReason.SIGNAL, 9, -1, "", "was killed by signal 9 (SIGKILL)"),
        (m.EndReason.SIGNAL, 9, -1, "was killed by SIGKILL", "was killed by signal 9 (SIGKILL)"),
        (m.EndReason.SIGNAL, 9, -1, "was killed by SIGKILL (memory)", "was killed by signal 9 (SIGKILL) (memory)"),
        (m.EndReason.SIGNAL, 99, -1, "", "was killed by signal 99"),
        (m.EndReason.EXIT, -1, 3, "", "exited with status 3"),
        (m.EndReason.EXIT, -1, -1, "", "exited"),
        (m.EndReason.GOODBYE, -1, -1, "said goodbye: Ctrl-C", "said goodbye: Ctrl-C"),
        (m.EndReason.VANISHED, -1, -1, "", "vanished: neither its process nor its host answers"),
    ],
)
def test_ends_are_described(reason, signal, code, detail, text):
    end = m.End(3, 1, "n2", 4711, reason, signal, code, detail)
    assert describe_end(end) == f"engine 3 (rank 1, host n2, pid 4711) {text}"


def test_a_waker_wakes_until_it_is_quiet():
    watch, waker = Watch(), Waker()
    watch.add(waker.fileno())
    watch.add(waker.fileno())
    assert watch.wait(0) == []
    waker.ring()
    waker.ring()
    assert watch.wait(1) == [waker.fileno()]
    waker.quiet()
    assert watch.wait(0) == []
    waker.ring()
    watch.remove(waker.fileno())
    watch.remove(waker.fileno())
    assert watch.wait(0) == []
