"""Values, errors and printed text of tasks as entries and messages."""

import pickle
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from hpc.engine.ledger import Segment
from hpc.transport.framing import HUGE_NBYTES, allocate
from hpc.wire import codec, objects
from hpc.wire.failures import dump_error
from hpc.wire.messages import Results

_PACKAGE: Final = str(Path(__file__).parent.parent) + "/"


def pack_value(value: Any) -> tuple[bytes, list[Any]]:
    """Return the pickle of a value and its out-of-band buffers, which are views of the value's own memory.

    Raises
    ------
    SerializationError
        It cannot be pickled; the text names it.
    """
    payload, *buffers = objects.dumps(value)
    return bytes(payload), buffers


def pack_displayed(outputs: list[dict[str, Any]]) -> bytes:
    """Return what a task displayed as it travels in an entry; what cannot travel is replaced by a word about it."""
    try:
        return pickle.dumps(outputs, 5)
    except Exception as error:
        text = f"<what was displayed cannot be sent: {type(error).__name__}: {error}>"
        return pickle.dumps([{"output_type": "display_data", "data": {"text/plain": text}, "metadata": {}}], 5)


def own(buffers: list[Any]) -> list[Any]:
    """Return buffers that no later task can change: those that others refer to are copied.

    A result may wait to be sent, and is kept until the controller has it, while the next task runs. Call it when
    nothing of the task is referred to any more.
    """
    return [view if _is_private(view) else _copy(view) for view in buffers]


def _copy(view: Any) -> Any:
    if view.nbytes < HUGE_NBYTES:
        return bytearray(view)
    memory = allocate(view.nbytes)
    memory[:] = view
    return memory


def _is_private(view: Any) -> bool:
    owner = view.obj
    if type(owner) is bytes:
        return True
    # Referred to by the view, `owner`, and the argument of getrefcount; for a base: by the array instead of the view.
    while sys.getrefcount(owner) <= 3:
        if type(owner) is bytearray:
            return True
        if type(owner).__module__ != "numpy" or not hasattr(owner, "base"):
            return False
        if owner.base is None:
            return bool(owner.flags.owndata)
        owner = owner.base
    return False


def transmission(segment: Segment) -> tuple[Results, list[Any]]:
    """Return the message of a segment, and its frames."""
    message = Results(
        segment.client,
        segment.first,
        segment.start,
        segment.stop,
        segment.packed,
        segment.failed,
        segment.seconds,
    )
    return message, [codec.encode_entries(segment.entries), *segment.buffers]


def pack_error(error: BaseException, note: str = "", engine: int = -1) -> bytes:
    """Return an exception as the payload of an entry; ``note`` replaces its text, ``engine`` is where it was raised."""
    if note:
        error.args = (note, *error.args[1:])
    return dump_error(error, traceback_text(error), engine)


def traceback_text(error: BaseException) -> str:
    """Return a traceback as Python prints it, without the engine's own frames at its top."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        frames = frames.tb_next
    try:
        return "".join(traceback.format_exception(type(error), error, frames))
    except Exception as broken:
        # The exception's own methods may be what is wrong.
        return f"{type(error).__name__}: <its traceback cannot be shown: {type(broken).__name__}>\n"


def split_text(pieces: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Return what pieces of output say on stdout and on stderr."""
    stdout = "".join(text for stream, text in pieces if stream == "stdout")
    stderr = "".join(text for stream, text in pieces if stream == "stderr")
    return stdout, stderr
