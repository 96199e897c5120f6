"""Exceptions as bytes: what was raised on an engine becomes a `RemoteError` at the client."""

import builtins
import pickle
import sys
from typing import Any, Final, cast

import msgspec

from hpc.errors import ProtocolError, RemoteError

MAX_TEXT: Final = 1024 * 1024

# Raised at the client these would end the interpreter or a generator instead of being reported.
_NEVER: Final = ("SystemExit", "GeneratorExit")


class _Failure(msgspec.Struct, array_like=True, frozen=True):
    ename: str
    evalue: str
    traceback: str
    module: str
    qualname: str
    builtin: str
    arguments: bytes
    engine: int = -1


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Failure)


def dump_error(error: BaseException, traceback: str, engine: int = -1) -> bytes:
    """Return an exception as bytes; ``traceback`` is its text, as people will read it.

    ``engine`` is the id of the engine that raised it, if it is not the one that answers.
    """
    kind = type(error)
    try:
        text = str(error)
    except Exception as broken:
        text = f"<str() of the exception raised {type(broken).__name__}>"
    try:
        arguments = pickle.dumps(error.args, 5)
        if b"__main__" in arguments or len(arguments) > MAX_TEXT:
            arguments = b""
    except Exception:
        arguments = b""
    builtin = next(k.__name__ for k in kind.__mro__ if k.__module__ == "builtins")
    names = kind.__module__, kind.__qualname__, builtin
    return _encoder.encode(_Failure(kind.__name__, _clip(text), _clip(traceback), *names, arguments, engine))


def with_more(payload: bytes, lines: list[str]) -> bytes:
    """Return a dumped error with lines added to its traceback."""
    failure = _decoder.decode(payload)
    traceback = "\n".join([failure.traceback.rstrip(), *lines, ""])
    return _encoder.encode(msgspec.structs.replace(failure, traceback=traceback))


def raised_on(payload: bytes) -> int:
    """Return the id of the engine that raised a dumped error, -1 if it is the one that answers."""
    try:
        return _decoder.decode(payload).engine
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return -1  # who loads it says what is wrong


def _clip(text: str) -> str:
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT // 2] + "\n[...]\n" + text[-MAX_TEXT // 2 :]


def load_error(payload: bytes, *, engine_id: int = -1, rank: int = 0, host: str = "") -> RemoteError:
    """Return the error, an instance of `RemoteError` and of the built-in type that was raised.

    It is also an instance of the original class where the client has imported that class.
    """
    try:
        failure = _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProtocolError(f"malformed error from engine {engine_id}: {error}") from None
    remote = _build(failure)
    remote.engine_id, remote.rank, remote.host = engine_id, rank, host
    return remote


def _build(failure: _Failure) -> RemoteError:
    arguments: tuple[Any, ...] = (failure.evalue,) if failure.evalue else ()
    if failure.arguments:
        try:
            arguments = pickle.loads(failure.arguments)
        except Exception:
            arguments = (failure.evalue,)
    remote: Any
    for base in _bases(failure):
        try:
            kind = type(failure.ename, (RemoteError, base), {"__module__": failure.module, "__reduce__": _reduce})
            remote = _new(kind, arguments)
        except TypeError:  # layouts that do not combine
            continue
        break
    else:
        remote = RemoteError()
    remote.args = arguments
    remote.ename, remote.evalue, remote.traceback = failure.ename, failure.evalue, failure.traceback
    remote.__dict__["_failure"] = failure
    return cast(RemoteError, remote)


def _new(kind: Any, arguments: tuple[Any, ...]) -> BaseException:
    try:
        made: BaseException = kind.__new__(kind, *arguments)
    except TypeError:  # a __new__ that wants more, or that of MemoryError, which refuses classes of two bases
        made = Exception.__new__(kind, *arguments)
    return made


def _bases(failure: _Failure) -> list[type]:
    if failure.builtin in _NEVER:
        return []
    bases: list[type] = []
    found: Any = sys.modules.get(failure.module)
    for part in failure.qualname.split("."):
        found = getattr(found, part, None)
    if isinstance(found, type) and issubclass(found, BaseException) and found.__module__ != "__main__":
        bases.append(found)
    builtin = getattr(builtins, failure.builtin, None)
    if isinstance(builtin, type) and issubclass(builtin, BaseException):
        bases.append(builtin)
    return bases


def _reduce(error: Any) -> Any:
    return _rebuild, (_encoder.encode(error._failure), error.engine_id, error.rank, error.host)


def _rebuild(payload: bytes, engine_id: int, rank: int, host: str) -> RemoteError:
    return load_error(payload, engine_id=engine_id, rank=rank, host=host)
