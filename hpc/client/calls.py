"""Function calls as frames."""

import functools
import pickle
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hpc.errors import SerializationError
from hpc.wire import objects
from hpc.wire.session import Frame

if TYPE_CHECKING:
    from hpc.client.link import Link
    from hpc.wire.functions import FunctionBlob


class _ArrayError(Exception):
    """Plain pickle has met a large buffer."""


# What plain pickle may say of what it cannot take, or what user code may raise when it is pickled.
_PLAIN = (pickle.PicklingError, TypeError, AttributeError, ValueError, RecursionError, NotImplementedError, _ArrayError)

# Of these only the contents tell; what is pushed is a dict.
_PERHAPS_LARGE = frozenset((dict, bytes, bytearray, memoryview))

EXECUTE, RUN, PUSH, PULL, CELL = b"!execute", b"!run", b"!push", b"!pull", b"!cell"
# What `PUSH` does with plain arrays, whose bytes may follow the message.
BIND = b"!bind"


def dump_call(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Frame]:
    """Return the frames of ``(args, kwargs)``: the pickle, then large buffers.

    Plain pickle without the care for large buffers comes first: it is enough for most calls, and three times faster.

    Raises
    ------
    SerializationError
        An argument cannot be pickled; the message names it.
    """
    for argument in args:
        # Not twice, where it is plain to see that it would be.
        if type(argument) in _PERHAPS_LARGE or hasattr(argument, "dtype"):
            return _dumps(args, kwargs)
    try:
        payload = pickle.dumps((args, kwargs), 5, buffer_callback=_stop)
        if len(payload) < objects.OUT_OF_BAND_NBYTES and b"__main__" not in payload and b"numpy" not in payload:
            return [payload]
    except _PLAIN:
        pass  # the slower way either takes it or says what is wrong
    return _dumps(args, kwargs)


def _dumps(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Frame]:
    try:
        return objects.dumps((args, kwargs))
    except SerializationError as error:
        from hpc.wire.functions import FOUND_AT

        text = str(error).replace(f"{FOUND_AT}[0]", f"{FOUND_AT}args").replace(f"{FOUND_AT}[1]", f"{FOUND_AT}kwargs")
        error.args = (text,)
        raise


def _stop(_buffer: pickle.PickleBuffer) -> bool:
    raise _ArrayError


@functools.cache
def _dumper() -> "Callable[[Callable[..., Any]], FunctionBlob]":
    """Import what needs cloudpickle when the first function is sent, and only then."""
    from hpc.wire.functions import dump_function

    return dump_function


def digest_of(link: "Link", function: Callable[..., Any]) -> tuple[bytes, str]:
    """Return digest and name of a function; the engines will know it when a task needs it."""
    blob = _dumper()(function)
    return link.outbox.define(blob), blob.name
