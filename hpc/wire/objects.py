"""Python objects as frames, and back (docs/protocol.md, section 7).

Frame 0 is a pickle of protocol 5; large buffers (arrays, bytes) follow out of band, one frame each, uncopied unless
they have holes. Plain pickle is tried first because it is some thirty times faster; cloudpickle takes what pickle
cannot name.

Arrays always arrive writable, whatever their size and whatever the sender's flags were.
"""

import importlib
import io
import pickle
import sys
from collections.abc import Sequence
from typing import Any, Final

from hpc.errors import SerializationError
from hpc.wire import absent, arrays, gaps, lastresort
from hpc.wire.session import Frame

OUT_OF_BAND_NBYTES: Final = arrays.OUT_OF_BAND_NBYTES

_MAIN: Final = b"__main__"
# Types that need neither a look at what they name nor out-of-band buffers.
_NUMBERS: Final = frozenset((int, float, bool, complex, type(None)))
_NUMPY_REBUILD: Final = b"_frombuffer"
_NUMERIC: Final = "numpy._core.numeric"  # numpy.core.numeric before numpy 2


class Reference:
    """A name in the engine's namespace, in place of an argument.

    Parameters
    ----------
    name : str
        The name, dotted if wanted; it is looked up when the task starts.
    engine : int, optional
        The engine that holds it, if it is not the one that runs the task.
    """

    __slots__ = ("engine", "name")

    def __init__(self, name: str, engine: int | None = None) -> None:
        self.name = name
        self.engine = engine

    def __repr__(self) -> str:
        return f"Reference({self.name!r})" if self.engine is None else f"Reference({self.name!r}, engine={self.engine})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and (self.name, self.engine) == (other.name, other.engine)

    def __hash__(self) -> int:
        return hash((self.name, self.engine))


def dumps(obj: Any) -> list[Frame]:
    """Return the frames of an object: its pickle, then its large buffers.

    The buffers are views of the object's own memory: do not change it before they are sent.

    Raises
    ------
    SerializationError
        Something in the object cannot be pickled; the message says what.
    """
    kind = type(obj)
    if kind in _NUMBERS or (kind is str and len(obj) < OUT_OF_BAND_NBYTES):
        return [pickle.dumps(obj, 5)]
    buffers: list[Frame] = []

    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if raw.nbytes < OUT_OF_BAND_NBYTES:
            return True
        buffers.append(raw)
        return False

    sink = gaps.Sink()
    try:
        _Pickler(sink, 5, buffer_callback=keep_in_band).dump(obj)
        first = sink.pieces[0]
        if len(sink.pieces) == 1 and len(first) < gaps.GAP_NBYTES and _MAIN not in first:
            return [first, *buffers]  # as all but the largest
        if not sink.mentions(_MAIN):
            return [*sink.frames(), *buffers]
    except (pickle.PicklingError, TypeError, AttributeError, ValueError, RecursionError, NotImplementedError):
        pass  # lambdas, local classes, ...: the slower way either takes them or says what is wrong
    buffers.clear()
    from hpc.wire import functions

    sink = gaps.Sink()
    try:
        functions.dump_into(sink, obj, keep_in_band)
    except SerializationError:
        if lastresort.dumps is None:
            raise
        return [lastresort.dumps(obj)]
    return [*sink.frames(), *buffers]


class _Pickler(pickle.Pickler):
    dispatch_table = arrays.reducers


def loads(frames: Sequence[Frame]) -> Any:
    """Return the object that the frames hold; arrays are views of the frames' memory, and writable.

    Functions and classes of the sender's ``__main__`` get this process's ``__main__`` as their globals.

    Raises
    ------
    MemoryError
        There was no memory for one of the frames when it arrived.
    """
    payload = frames[0]
    if len(frames) > 1 or not payload:
        absent.check(frames)
    if payload[:1] == gaps.MARK:
        source, buffers = gaps.fill(frames)
        return _Unpickler(source, buffers=buffers).load()
    # Only the rebuilding of arrays needs our own unpickler, which costs some microseconds more.
    if _NUMPY_REBUILD not in bytes(payload):
        return pickle.loads(payload, buffers=frames[1:])
    return _Unpickler(io.BytesIO(payload), buffers=frames[1:]).load()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name == "_frombuffer" and module.startswith("numpy"):
            super().find_class(module, name)  # imports it
            return _writable_frombuffer
        return super().find_class(module, name)


def _writable_frombuffer(buffer: Any, dtype: Any, shape: Any, order: str, *axis_order: Any) -> Any:
    numeric = importlib.import_module(_NUMERIC if _NUMERIC in sys.modules else "numpy.core.numeric")
    return numeric._frombuffer(arrays.writable(buffer), dtype, shape, order, *axis_order)


def describe(obj: Any) -> str:
    """Name an object in an error message, in at most a line."""
    try:
        text = repr(obj)
    except Exception as error:
        text = f"<repr raised {type(error).__name__}>"
    text = text if len(text) <= 80 else text[:77] + "..."
    return f"{type(obj).__module__}.{type(obj).__qualname__} {text}"


def not_picklable(obj: Any, error: BaseException) -> SerializationError:
    """Return the error to raise where an object cannot travel."""
    return SerializationError(
        f"cannot pickle {describe(obj)}: {type(error).__name__}: {error}."
        " Send what it was made from instead, or create it on the engines with execute()"
    )
