"""The parts are complete, disjoint and in order, whatever the lengths."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc import partition

lengths = st.integers(0, 200)
parts = st.integers(1, 17)
dists = st.sampled_from(partition.DISTRIBUTIONS)


@given(lengths, parts)
def test_counts_are_balanced_and_the_first_are_longer(n, p):
    counts = partition.counts(n, p)
    assert len(counts) == p
    assert sum(counts) == n
    assert max(counts) - min(counts) <= 1
    assert counts == sorted(counts, reverse=True)


@given(lengths, parts, dists)
def test_slices_hold_every_item_once(n, p, dist):
    pieces = [list(range(n))[s] for s in partition.slices(n, p, dist)]
    assert sorted(sum(pieces, [])) == list(range(n))
    assert [len(piece) for piece in pieces] == partition.counts(n, p)


@given(lengths, parts)
def test_block_is_contiguous(n, p):
    assert sum(([*range(n)][s] for s in partition.slices(n, p)), []) == list(range(n))
    assert [s.start for s in partition.slices(n, p)] == partition.displacements(n, p)


@given(st.integers(1, 200), parts, dists, st.data())
def test_locate_agrees_with_slices(n, p, dist, data):
    index = data.draw(st.integers(0, n - 1))
    part, offset = partition.locate(index, n, p, dist)
    assert list(range(n))[partition.slices(n, p, dist)[part]][offset] == index


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_along_takes_the_slice_of_one_axis(shape, data):
    np = pytest.importorskip("numpy")
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    a = np.arange(np.prod(shape)).reshape(shape)
    piece = slice(1, 3)
    assert (a[partition.along(axis, a.ndim, piece)] == a.take(range(*piece.indices(shape[axis])), axis=axis)).all()


@given(lengths, parts, dists)
def test_total_of_the_parts(n, p, dist):
    assert partition.total(partition.counts(n, p), dist) == n


@pytest.mark.parametrize(
    "call",
    [
        lambda: partition.counts(3, 0),
        lambda: partition.counts(-1, 2),
        lambda: partition.slices(3, 2, "random"),
        lambda: partition.slices(3, 0, "cyclic"),
        lambda: partition.along(2, 2, slice(1)),
        lambda: partition.along(-3, 2, slice(1)),
        lambda: partition.total([1, 3], "cyclic"),
    ],
)
def test_nonsense_is_refused(call):
    with pytest.raises(ValueError):
        call()


def test_locate_refuses_what_is_outside():
    with pytest.raises(IndexError):
        partition.locate(3, 3, 2)
