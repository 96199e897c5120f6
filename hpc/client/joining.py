"""Putting the parts of arrays and tables together: types, orders, masks and byte orders stay what they are."""

from typing import Any

from hpc import partition
from hpc.partition import Distribution
from hpc.wire.arrays import maker_of, rebuild_dlpack


def is_array(thing: Any) -> bool:
    """Say whether something is sliced as an array is: numpy's, or of a package that does as numpy does."""
    return (
        hasattr(thing, "shape") and hasattr(thing, "dtype") and hasattr(type(thing), "__getitem__")
    ) and not is_table(thing)


def is_matrix(thing: Any) -> bool:
    """Say whether something is a `numpy.matrix`, an item of which is a matrix with the same number of axes."""
    return type(thing).__module__.startswith("numpy") and type(thing).__name__ == "matrix"


def is_table(thing: Any) -> bool:
    """Say whether something is a DataFrame or a Series, whose rows and columns have names."""
    return hasattr(thing, "iloc") and hasattr(thing, "shape")


def tables(parts: list[Any], dist: Distribution, axis: int) -> Any:
    """Return one DataFrame or Series."""
    import numpy
    import pandas

    lengths = [part.shape[axis] for part in parts]
    whole = pandas.concat([part for part in parts if part.shape[axis]] or parts[:1], axis=axis)
    if dist == "block":
        return whole
    n = partition.total(lengths, "cyclic")
    places = numpy.concatenate([numpy.arange(n)[piece] for piece in partition.slices(n, len(parts), "cyclic")])
    order = numpy.argsort(places)
    return whole.iloc[partition.along(axis, 2, order)] if whole.ndim > 1 else whole.iloc[order]  # type: ignore[arg-type]


def stack(parts: list[Any], flat: tuple[bool, ...], dist: Distribution, axis: int, dtype: Any) -> Any:
    """Return one array of parts some of which are items: arrays that lack the axis, or numbers, or any objects."""
    import numpy

    module = next(filter(None, map(_foreign, parts)), None)
    boxed = []
    for part, bare in zip(parts, flat, strict=True):
        item = _item(part, dtype) if bare else numpy.from_dlpack(part) if _foreign(part) else part
        if bare:
            item = numpy.expand_dims(item, axis) if item.ndim else item.reshape(1)
        # An item alone forgets how long strings may be, and its byte order.
        kinds = item.dtype.kind, getattr(dtype, "kind", "")
        if item.dtype != dtype and kinds[0] == kinds[1] and numpy.can_cast(item.dtype, dtype, "safe"):
            item = item.astype(dtype)
        boxed.append(item)
    whole = arrays(boxed, dist, axis)
    if module is not None:
        return rebuild_dlpack(module, whole)
    return whole.view(numpy.recarray) if whole.dtype.type is numpy.record else whole


def _item(part: Any, dtype: Any) -> Any:
    """Return an item that was sent alone as an array without the axis, of the ``dtype`` that all of them had."""
    import numpy

    if _foreign(part):
        return numpy.from_dlpack(part)
    kind = getattr(dtype, "kind", "")
    if kind == "O" and not isinstance(part, numpy.ndarray):  # which may look like an array to numpy
        item = numpy.empty((), object)
        item[()] = part
        return item
    if kind == "T" and isinstance(part, str):
        return numpy.array(part, dtype)
    return numpy.asanyarray(part)


def _foreign(part: Any) -> str:
    """Return the module that makes arrays like this one, '' if that is numpy or none."""
    return "" if type(part).__module__.partition(".")[0] == "numpy" else maker_of(part)


def arrays(parts: list[Any], dist: Distribution, axis: int) -> Any:
    """Return one array. The type is kept where all parts have the same; numpy finds a common one where not."""
    import numpy

    if not all(len(part.shape) for part in parts):  # numbers, as a reduction leaves them
        return numpy.asarray(parts)
    if not any(isinstance(part, numpy.ndarray) for part in parts):
        module = maker_of(parts[0])
        if module and all(type(part) is type(parts[0]) for part in parts):
            return rebuild_dlpack(module, arrays([numpy.from_dlpack(part) for part in parts], dist, axis))
        parts = [numpy.asarray(part) for part in parts]
    if any(isinstance(part, numpy.ma.MaskedArray) for part in parts):
        return _masked(parts, dist, axis)
    shape = list(parts[0].shape)
    alike = all(part.dtype == parts[0].dtype and _others(part.shape, axis) == _others(shape, axis) for part in parts)
    if not alike:
        parts = [numpy.concatenate(parts, axis=axis)] if dist == "block" else _common(parts)
    lengths = [part.shape[axis] for part in parts]
    shape[axis] = n = partition.total(lengths, dist)
    whole = numpy.empty(shape, parts[0].dtype, order=_order(parts))
    slices = partition.slices(n, len(parts), dist)
    if dist == "block":  # on engines they may have become longer or shorter
        stops = [sum(lengths[: i + 1]) for i in range(len(lengths))]
        slices = [slice(stop - length, stop) for stop, length in zip(stops, lengths, strict=True)]
    for piece, part in zip(slices, parts, strict=True):
        whole[partition.along(axis, whole.ndim, piece)] = part
    kinds = {type(part) for part in parts}
    return whole.view(kinds.pop()) if kinds <= {numpy.recarray} or kinds <= {numpy.matrix} else whole


def _others(shape: Any, axis: int) -> list[int]:
    lengths = list(shape)
    del lengths[axis]
    return lengths


def _common(parts: list[Any]) -> list[Any]:
    import numpy

    dtype = numpy.result_type(*parts)
    return [part.astype(dtype) for part in parts]


def _order(parts: list[Any]) -> Any:
    fortran = all(part.flags.f_contiguous for part in parts)
    return "F" if fortran and not all(part.flags.c_contiguous for part in parts) else "C"


def _masked(parts: list[Any], dist: Distribution, axis: int) -> Any:
    import numpy

    ma: Any = numpy.ma
    first: Any = next(part for part in parts if isinstance(part, ma.MaskedArray))
    data = arrays([ma.getdata(part) for part in parts], dist, axis)
    mask: Any = ma.nomask
    if any(ma.getmask(part) is not ma.nomask for part in parts):
        mask = arrays([ma.getmaskarray(part) for part in parts], dist, axis)
    whole = ma.MaskedArray(data, mask, copy=False, hard_mask=first.hardmask)
    if first._fill_value is not None:
        whole.fill_value = first._fill_value
    return whole
