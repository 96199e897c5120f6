"""How arrays are taken apart for pickle, and put together again.

numpy sends contiguous arrays of simple types out of band by itself. Here is the rest: strided arrays (copied once, to
be packed), dates and structures with dates, masked and record arrays, memory maps, `array.array`, `memoryview`, and
arrays of other packages that speak DLPack. Nothing is imported: who has no numpy array to send needs no numpy.
"""

import copyreg
import importlib
import sys
from array import array
from collections.abc import Callable
from pickle import PickleBuffer
from typing import Any, Final

# Below this a buffer rides in the pickle: a memcpy is cheaper than one more frame, and the sender may reuse it at once.
OUT_OF_BAND_NBYTES: Final = 32 * 1024
# Programs that make classes without end must not fill the memory with them.
_MAX_TYPES: Final = 4096
# DLPack's kDLCPU, kDLCUDAHost and kDLROCMHost: memory that this process can read.
_READABLE: Final = (1, 3, 11)

_Reducer = Callable[[Any], Any]


def _plainly(obj: Any) -> Any:
    registered = copyreg.dispatch_table.get(type(obj))
    return obj.__reduce_ex__(5) if registered is None else registered(obj)


class Reducers(dict[type, _Reducer]):
    """A dispatch table for picklers. What it does for a type is found out when the type is first met."""

    def __missing__(self, kind: type) -> _Reducer:
        if issubclass(kind, type):
            raise KeyError(kind)  # pickle knows what to do with classes, whatever their metaclass
        if len(self) >= _MAX_TYPES:
            self.clear()
        found = self[kind] = _find(kind)
        return found


class SpecialReducers(Reducers):
    """The same without the types for which there is nothing special to do: for use in front of another table."""

    def __missing__(self, kind: type) -> _Reducer:
        found = reducers[kind]
        if found is _plainly:
            raise KeyError(kind)
        return found


reducers: Final = Reducers()


def _find(kind: type) -> _Reducer:
    if kind is array:
        return _reduce_array_array
    if kind is memoryview:
        return _reduce_memoryview
    numpy = sys.modules.get("numpy")
    if numpy is not None and hasattr(numpy, "ndarray") and issubclass(kind, numpy.ndarray):
        if kind in (numpy.ndarray, numpy.memmap):
            return reduce_ndarray
        if kind is numpy.ma.MaskedArray:
            return _reduce_masked
        return _reduce_view if kind in (numpy.recarray, numpy.matrix) else _plainly
    if hasattr(kind, "__dlpack__") and hasattr(kind, "__dlpack_device__"):
        return _reduce_dlpack
    return _plainly


# ---------------------------------------------------------------- numpy


def reduce_ndarray(a: Any) -> Any:
    """Take an array apart so that its items are one dense buffer, unless they are Python objects."""
    numpy = sys.modules["numpy"]
    a, dtype = a if type(a) is numpy.ndarray else a.view(numpy.ndarray), a.dtype
    small = a.nbytes < OUT_OF_BAND_NBYTES
    # Small ones have to be quick; those with strides have to come out as large ones do.
    of_objects = dtype.hasobject or dtype.kind == "T"
    if not a.nbytes or (a.flags.c_contiguous and (small or of_objects)):
        return a.__reduce_ex__(5)
    axes = _dense_axes(a)
    if axes is None:
        a = a.copy(order="K")  # the one copy that packing costs
        axes = _dense_axes(a)
    packed = a.transpose(axes)
    if of_objects:
        return _transpose_back, (packed, axes)
    buffer = PickleBuffer(packed.reshape(-1).view(numpy.uint8))
    return _rebuild_ndarray, (buffer, dtype, a.shape, None if a.flags.c_contiguous else axes)


def _dense_axes(a: Any) -> tuple[int, ...] | None:
    """Return the order of the axes in which the items lie in memory without holes; None if there is no such order."""
    axes = tuple(range(a.ndim))
    if not a.flags.c_contiguous:
        axes = tuple(sorted(axes, key=lambda axis: -a.strides[axis]))
        if not a.transpose(axes).flags.c_contiguous:
            return None
    return axes


def _rebuild_ndarray(buffer: Any, dtype: Any, shape: tuple[int, ...], axes: tuple[int, ...] | None) -> Any:
    import numpy

    items = numpy.frombuffer(writable(buffer), dtype)
    if axes is None:
        return items.reshape(shape)
    return _transpose_back(items.reshape([shape[axis] for axis in axes]), axes)


def _transpose_back(packed: Any, axes: tuple[int, ...]) -> Any:
    return packed.transpose(sorted(range(len(axes)), key=axes.__getitem__))


def writable(buffer: Any) -> Any:
    """Return a buffer that may be written to: itself, the memory below it if that is ours alone, or a copy."""
    view = memoryview(buffer)
    if not view.readonly:
        return buffer
    whole = isinstance(view.obj, bytearray) and len(view.obj) == view.nbytes
    return view.obj if whole else bytearray(view)


def _reduce_masked(a: Any) -> Any:
    numpy = sys.modules["numpy"]
    if a._baseclass is not numpy.ndarray:
        return a.__reduce_ex__(5)
    mask = None if a._mask is numpy.ma.nomask else a._mask
    return _rebuild_masked, (a._data, mask, a._fill_value, a._hardmask, a._optinfo)


def _rebuild_masked(data: Any, mask: Any, fill_value: Any, hard: bool, info: dict[str, Any]) -> Any:
    import numpy

    a: Any = numpy.ma.MaskedArray(data, numpy.ma.nomask if mask is None else mask, copy=False, hard_mask=hard)
    if fill_value is not None:
        a.fill_value = fill_value
    a._optinfo.update(info)
    return a


def _reduce_view(a: Any) -> Any:
    numpy = sys.modules["numpy"]
    if a.nbytes < OUT_OF_BAND_NBYTES or a.dtype.hasobject:
        return a.__reduce_ex__(5)
    return _rebuild_view, (a.view(numpy.ndarray), type(a))


def _rebuild_view(a: Any, kind: type) -> Any:
    return a.view(kind)


# ---------------------------------------------------------------- the standard library's


def _reduce_array_array(a: "array[Any]") -> Any:
    if len(a) * a.itemsize < OUT_OF_BAND_NBYTES:
        return a.__reduce_ex__(5)
    return _rebuild_array_array, (a.typecode, PickleBuffer(a))


def _rebuild_array_array(typecode: str, buffer: Any) -> "array[Any]":
    a: array[Any] = array(typecode)
    a.frombytes(memoryview(buffer).cast("B"))
    return a


def _reduce_memoryview(view: memoryview) -> Any:
    if len(view.format.lstrip("@")) != 1:
        raise TypeError(f"cannot pickle a memoryview of format {view.format!r}; numpy.asarray(view) can be sent")
    buffer = PickleBuffer(view if view.c_contiguous else view.tobytes())
    return _rebuild_memoryview, (buffer, view.format, view.shape)


def _rebuild_memoryview(buffer: Any, kind: str, shape: tuple[int, ...]) -> memoryview:
    view = memoryview(writable(buffer)).cast("B")
    return view.cast(kind, shape) if len(shape) != 1 and 0 not in shape else view.cast(kind)  # type: ignore[call-overload, no-any-return]


# ---------------------------------------------------------------- DLPack

_makers: dict[type, str] = {}


def _reduce_dlpack(x: Any) -> Any:
    module = maker_of(x)
    if module and x.__dlpack_device__()[0] in _READABLE:
        import numpy

        try:
            items = numpy.from_dlpack(x)
        except (BufferError, TypeError, ValueError, RuntimeError):
            return _plainly(x)  # a type that numpy lacks, gradients: its own way is the only one
        if items.nbytes >= OUT_OF_BAND_NBYTES:
            return rebuild_dlpack, (module, items)
    return _plainly(x)


def rebuild_dlpack(module: str, items: Any) -> Any:
    """Return what a package makes of a numpy array, without a copy."""
    return importlib.import_module(module).from_dlpack(items)


def maker_of(x: Any) -> str:
    """Return the name of the module whose ``from_dlpack`` makes such arrays, '' if none does."""
    kind = type(x)
    if kind not in _makers:
        _makers[kind] = next(filter(lambda name: _makes(name, kind), _candidates(x)), "")
    return _makers[kind]


def _candidates(x: Any) -> list[str]:
    names = [type(x).__module__, type(x).__module__.partition(".")[0]]
    if hasattr(x, "__array_namespace__"):
        names.insert(0, getattr(x.__array_namespace__(), "__name__", ""))
    return [name for name in names if hasattr(sys.modules.get(name), "from_dlpack")]


def _makes(module: str, kind: type) -> bool:
    import numpy

    try:
        return type(rebuild_dlpack(module, numpy.zeros(1))) is kind
    except (BufferError, TypeError, ValueError, RuntimeError, AttributeError):
        return False
