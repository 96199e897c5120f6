"""Functions as frames: by reference where the engine can import them, by value where it cannot.

A function of ``__main__`` runs with the receiver's ``__main__`` namespace as its globals, so ``x`` means the engine's
own ``x``. The globals that it uses come along and are bound where the receiver does not have them; data over
`MAX_GLOBAL_NBYTES`, and what cannot be pickled, stays at home: if the receiver lacks it, the NameError says why.
"""

import contextlib
import hashlib
import importlib
import io
import pickle
import sys
import sysconfig
import types
import weakref
from collections import ChainMap
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import cloudpickle
from cloudpickle import cloudpickle as _cp

from hpc.errors import SerializationError
from hpc.wire import blame, lastresort
from hpc.wire.arrays import SpecialReducers
from hpc.wire.objects import describe, not_picklable

# How an error says which part of an object it is about.
FOUND_AT: Final = "it stands at "
MAX_GLOBAL_NBYTES: Final = 1024 * 1024

_IMMUTABLE: Final = (int, float, complex, str, bytes, bool, type(None), types.ModuleType, types.BuiltinFunctionType)


class FunctionBlob(NamedTuple):
    """A function that is ready to travel; ``digest`` names its two pickles, either of which may be empty."""

    digest: bytes
    name: str
    by_reference: bytes
    by_value: bytes


class StayedBehind:
    """Stands for a global that did not come along; ``why`` completes the sentence "name 'x' ..."."""

    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        self.why = why


# ---------------------------------------------------------------- sending


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle, with functions of ``__main__`` bound to the receiver's ``__main__``."""

    dispatch_table = ChainMap(SpecialReducers(), *cloudpickle.Pickler.dispatch_table.maps)

    def __init__(self, file: Any, buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self.captured: list[tuple[dict[str, Any], str, Any]] = []
        self.cells: list[tuple[Any, Any]] = []
        self.plain = True

    def _dynamic_function_reduce(self, func: types.FunctionType) -> Any:
        reduced = super()._dynamic_function_reduce(func)
        main = sys.modules["__main__"].__dict__
        self._note(func)
        if func.__globals__ is not main:
            return reduced
        code, _, _, _, closure = reduced[1]
        state, slots = reduced[2]
        captured = slots.pop("__globals__")
        self.captured += [(main, name, value) for name, value in captured.items()]
        slots["__globals__"] = {name: _portable(name, value) for name, value in captured.items()}
        return _make_main_function, (code, closure), (state, slots), None, None, _set_main_function_state

    def reducer_override(self, obj: Any) -> Any:
        # What a function of the session uses of the person's own files may be missing where it arrives.
        if isinstance(obj, (types.FunctionType, type, types.ModuleType)) and _is_of_a_local_module(obj):
            name = obj.__name__ if isinstance(obj, types.ModuleType) else obj.__module__
            qualname = "" if isinstance(obj, types.ModuleType) else obj.__qualname__
            with contextlib.suppress(SerializationError):  # then it has to be there
                by_value = _dump_module_by_value(obj)[0]
                if len(by_value) <= MAX_GLOBAL_NBYTES:
                    return _import_or_build, (name, qualname, by_value)
        return super().reducer_override(obj)

    def _note(self, func: types.FunctionType) -> None:
        """Remember what a later dump of the same function would have to compare."""
        if func.__dict__ or func.__globals__ is not sys.modules["__main__"].__dict__:
            self.plain = False
        for cell in func.__closure__ or ():
            try:
                self.cells.append((cell, cell.cell_contents))
            except ValueError:
                self.plain = False
        for value in (func.__defaults__ or ()) + tuple((func.__kwdefaults__ or {}).values()):
            self.plain = self.plain and _is_immutable(value)


def _portable(name: str, value: Any) -> Any:
    """Return a global that comes along, or what tells the receiver why it does not."""
    if isinstance(value, (*_IMMUTABLE, types.FunctionType, type)) and not isinstance(value, (str, bytes)):
        return value
    try:
        nbytes = len(dump_by_value(value, None))
    except SerializationError as error:
        return StayedBehind(f"cannot come along from the client ({error})")
    if nbytes > MAX_GLOBAL_NBYTES:
        return StayedBehind(
            f"has {nbytes / 2**20:.1f} MiB at the client, too much to come along with a function"
            f" (limit {MAX_GLOBAL_NBYTES / 2**20:.0f} MiB): push it first, v.push({{{name!r}: {name}}})"
        )
    return value


def dump_by_value(obj: Any, buffer_callback: Callable[[pickle.PickleBuffer], Any] | None) -> bytes:
    """Pickle an object that plain pickle cannot name; `SerializationError` if nothing can."""
    return _dump(obj, buffer_callback)[0]


def dump_into(file: Any, obj: Any, buffer_callback: Callable[[pickle.PickleBuffer], Any] | None) -> _Pickler:
    """Do the same, into what has a method ``write``."""
    pickler = _Pickler(file, buffer_callback)
    try:
        pickler.dump(obj)
    except SerializationError:
        raise
    except Exception as error:
        path, part, why = blame.find(obj, cloudpickle.dumps)
        refused = not_picklable(part, why or error)
        if path:
            refused.args = (f"{refused.args[0]} ({FOUND_AT}{path.lstrip()})",)
        raise refused from error
    return pickler


def _dump(obj: Any, buffer_callback: Callable[[pickle.PickleBuffer], Any] | None) -> tuple[bytes, _Pickler]:
    with io.BytesIO() as file:
        try:
            pickler = dump_into(file, obj, buffer_callback)
        except SerializationError:
            if lastresort.dumps is None:
                raise
            pickler = _Pickler(file)
            pickler.plain = False  # what it looked at is not known: it is pickled anew each time
            return lastresort.dumps(obj), pickler
        return file.getvalue(), pickler


class _Cached(NamedTuple):
    blob: FunctionBlob
    code: Any
    captured: list[tuple[dict[str, Any], str, Any]]
    cells: list[tuple[Any, Any]]

    def is_current(self, func: Any) -> bool:
        if getattr(func, "__code__", None) is not self.code:
            return False
        for namespace, name, value in self.captured:
            if namespace.get(name) is not value:
                return False
        for cell, value in self.cells:
            if cell.cell_contents is not value:
                return False
        return not getattr(func, "__dict__", None)


_cache: "weakref.WeakKeyDictionary[Any, _Cached]" = weakref.WeakKeyDictionary()


def dump_function(func: Callable[..., Any]) -> FunctionBlob:
    """Return a callable ready to travel; unchanged functions are pickled once.

    Raises
    ------
    SerializationError
        The function, or something in its closure, cannot be pickled.
    """
    cacheable = isinstance(func, (types.FunctionType, types.BuiltinFunctionType, type))
    if cacheable:
        cached = _cache.get(func)
        if cached is not None and cached.is_current(func):
            return cached.blob
    by_reference = _dump_by_reference(func)
    by_value, captured, cells = b"", [], []
    if not by_reference or not _is_installed(func):
        by_value, pickler = _dump_module_by_value(func)
        if not by_reference:
            captured, cells = pickler.captured, pickler.cells
            cacheable = cacheable and pickler.plain and all(_is_immutable(v) for *_, v in captured + cells)
    digest = hashlib.blake2b(by_reference + b"\0" + by_value, digest_size=16).digest()
    if digest.startswith(b"!"):  # reserved for the engine's built-ins
        digest = b"?" + digest[1:]
    name = getattr(func, "__qualname__", type(func).__qualname__)
    blob = FunctionBlob(digest, name, by_reference, by_value)
    if cacheable:
        _cache[func] = _Cached(blob, getattr(func, "__code__", None), captured, cells)
    return blob


def _dump_by_reference(func: Any) -> bytes:
    if getattr(func, "__module__", None) == "__main__":
        return b""
    try:
        payload = pickle.dumps(func, 5)
    except Exception:
        return b""
    return b"" if b"__main__" in payload else payload


def _is_of_a_local_module(obj: Any) -> bool:
    """Say whether plain pickle would name this by a module that only this process may be able to import."""
    name = _module_name(obj)
    root = name.partition(".")[0]
    if root in ("__main__", "__mp_main__", "builtins", "hpc") or root in cloudpickle.list_registry_pickle_by_value():
        return False
    if sys.modules.get(name) is None or _is_installed(obj):
        return False
    found: Any = sys.modules[name]
    for part in () if isinstance(obj, types.ModuleType) else obj.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is obj


def _module_name(obj: Any) -> str:
    if isinstance(obj, types.ModuleType):
        return obj.__name__
    return getattr(obj, "__module__", None) or type(obj).__module__


def _is_installed(func: Any) -> bool:
    """Say whether the module of a function lies where every Python of this installation finds it."""
    name = _module_name(func)
    module = sys.modules.get(name.partition(".")[0])
    file = getattr(module, "__file__", None)
    if file is None:
        return name.partition(".")[0] in sys.stdlib_module_names
    paths = sysconfig.get_paths()
    return str(file).startswith(tuple(paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")))


def _dump_module_by_value(func: Any) -> tuple[bytes, _Pickler]:
    """Pickle by value, together with what it uses of its own top-level package."""
    root = sys.modules.get(_module_name(func).partition(".")[0])
    by_value = root is not None and root.__name__ not in ("__main__", "builtins", "hpc") and not _is_installed(func)
    registered = by_value and root is not None and root.__name__ not in cloudpickle.list_registry_pickle_by_value()
    if registered:
        cloudpickle.register_pickle_by_value(root)
    try:
        return _dump(func, None)
    finally:
        if registered:
            cloudpickle.unregister_pickle_by_value(root)


def _is_immutable(value: Any) -> bool:
    if isinstance(value, tuple | frozenset):
        return all(map(_is_immutable, value))
    if isinstance(value, types.FunctionType):
        return not value.__dict__  # what it captures is among the captured itself
    if isinstance(value, type):
        return value.__module__ != "__main__"  # a class of the session may get other attributes at any time
    return isinstance(value, _IMMUTABLE)


# ---------------------------------------------------------------- receiving


# What came along and was bound in this process's __main__: a newer version may replace it, but nothing of its own.
_brought: dict[str, Any] = {}
_loading: list[dict[str, Any]] = []
_ABSENT: Final = object()


class LoadedFunction:
    """A function that arrived, with the globals that came along.

    Call `prepare` before each run: two functions may bring different objects under one name.
    """

    __slots__ = ("call", "captured", "name", "stayed_behind")
    _last: "LoadedFunction | None" = None

    def __init__(self, name: str, call: Callable[..., Any], captured: dict[str, Any]) -> None:
        self.name = name
        self.call = call
        self.captured = {k: v for k, v in captured.items() if not isinstance(v, StayedBehind)}
        self.stayed_behind = {k: v.why for k, v in captured.items() if isinstance(v, StayedBehind)}

    def __repr__(self) -> str:
        return f"<LoadedFunction {self.name}, brings {sorted(self.captured)}>"

    def prepare(self) -> None:
        """Bind what came along with this function, where ``__main__`` has nothing of its own."""
        if self.captured and LoadedFunction._last is not self:
            _bind(self.captured)
            LoadedFunction._last = self

    def explain(self, error: BaseException) -> str:
        """Return why a name is missing, if ``error`` is a NameError for one that stayed behind; else ''."""
        name = getattr(error, "name", None) if isinstance(error, NameError) else None
        why = self.stayed_behind.get(name or "")
        return f"name {name!r} {why}" if why else ""


def load_function(name: str, by_reference: bytes, by_value: bytes) -> LoadedFunction:
    """Return the function of a `FunctionBlob`: imported if possible, else from its value.

    Raises
    ------
    SerializationError
        Neither can be loaded here; the message says why.
    """
    captured: dict[str, Any] = {}
    problem: Exception | None = None
    for payload in (by_reference, by_value):
        if not payload:
            continue
        _loading.append(captured)
        try:
            return LoadedFunction(name, pickle.loads(payload), captured)
        except Exception as error:
            problem = error
        finally:
            _loading.pop()
    raise SerializationError(
        f"function {name} cannot be loaded on the engine: {type(problem).__name__}: {problem}."
        " Install its module there, or define the function in your session"
    ) from problem


def _bind(captured: dict[str, Any]) -> None:
    main = sys.modules["__main__"].__dict__
    for name, value in captured.items():
        present = main.get(name, _ABSENT)
        if present is _ABSENT or present is _brought.get(name, _ABSENT):
            main[name] = _brought[name] = value


def _make_main_function(code: types.CodeType, closure: Any) -> types.FunctionType:
    return types.FunctionType(code, sys.modules["__main__"].__dict__, None, None, closure)


def _import_or_build(module: str, qualname: str, by_value: bytes) -> Any:
    try:
        found: Any = importlib.import_module(module)
        for part in qualname.split(".") if qualname else ():
            found = getattr(found, part)
        return found
    except (ImportError, AttributeError):
        return pickle.loads(by_value)


def _set_main_function_state(func: types.FunctionType, state: Any) -> None:
    captured = state[1]["__globals__"]
    arrived = {name: value for name, value in captured.items() if not isinstance(value, StayedBehind)}
    state[1]["__globals__"] = {}  # cloudpickle would overwrite what the receiver has of its own
    _cp._function_setstate(func, state)
    _bind(arrived)
    if _loading:
        _loading[-1].update(captured)


__all__ = [
    "FunctionBlob",
    "LoadedFunction",
    "StayedBehind",
    "describe",
    "dump_by_value",
    "dump_function",
    "load_function",
]
