"""The names that live on an engine, and the operations on them that need no function to be sent."""

import builtins
import linecache
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from hpc.engine.current import Identity
from hpc.wire.objects import Reference, loads
from hpc.wire.session import Frame

# Sources of executed code that tracebacks can show; older ones are forgotten.
REMEMBERED_SOURCES: Final = 1000


class EngineId(int):
    """An engine's id as the name ``id`` in its namespace: a number that can still be called, as the built-in can."""

    __slots__ = ()

    def __call__(self, obj: object, /) -> int:
        """Do what the built-in function does."""
        return builtins.id(obj)

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        return int, (int(self),)


class Namespace:
    """The ``__dict__`` of a fresh ``__main__``, so that classes and functions defined by tasks pickle right."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.module = types.ModuleType("__main__", "The namespace of an hpc engine.")
        self.names: dict[str, Any] = self.module.__dict__
        self.names["__builtins__"] = builtins
        self.builtins: Mapping[bytes, Callable[..., Any]] = {
            b"!run": self.run,
            b"!push": self.push,
            b"!pull": self.pull,
            b"!export": self.export,
        }
        self.brought: dict[Reference, Any] = {}
        # Values under names that no program can have, each for whoever looks it up first.
        self.kept: dict[str, Any] = {}
        self._sources: deque[str] = deque()
        self.introduce()

    def __repr__(self) -> str:
        return f"<Namespace of {self.identity}, {len(self.names)} names>"

    def install(self) -> None:
        """Become this process's ``__main__``."""
        sys.modules["__main__"] = self.module

    def introduce(self) -> None:
        """Put ``id``, ``rank``, ``size`` and ``comm`` where tasks find them."""
        identity = self.identity
        self.names.update(id=EngineId(identity.id), rank=identity.rank, size=identity.size, comm=identity.comm)

    def execute(self, code: str, filename: str) -> None:
        """Execute statements; ``filename`` is what tracebacks show."""
        self.remember(code, filename)
        exec(compile(code, filename, "exec", dont_inherit=True), self.names)  # noqa: S102 - what an engine is for

    def run(self, text: str, filename: str) -> None:
        """Execute a script as if it were started here: ``__name__`` is ``"__main__"``, ``__file__`` its name."""
        before = self.names.get("__file__")
        self.names["__file__"] = filename
        try:
            self.execute(text, filename)
        finally:
            if before is None:
                self.names.pop("__file__", None)
            else:
                self.names["__file__"] = before

    def push(self, names: Mapping[str, Any]) -> None:
        """Bind names, dotted ones as attributes of what exists."""
        for name, value in names.items():
            owner, _, attribute = name.rpartition(".")
            # What was brought is a copy, also where it comes from.
            bound = self.brought[value] if type(value) is Reference and value in self.brought else self.resolve(value)
            if owner:
                setattr(self.lookup(owner), attribute, bound)
            else:
                self.names[name] = bound

    def pull(self, names: Sequence[str]) -> list[Any]:
        """Return the values of names, which may be dotted."""
        return [self.lookup(name) for name in names]

    def export(self, names: Sequence[str]) -> dict[Reference, Any]:
        """Return what names mean here, for other engines to `bring`."""
        return {Reference(name, self.identity.id): self.lookup(name) for name in names}

    def lookup(self, name: str) -> Any:
        """Return what a dotted name means here.

        Raises
        ------
        NameError
            It is not defined; the text names it and the engine.
        """
        if name in self.kept:
            return self.kept.pop(name)
        first, *rest = name.split(".")
        try:
            found = self.names[first]
        except KeyError:
            found = getattr(builtins, first, self)
            if found is self:
                raise NameError(f"name {first!r} is not defined on {self.identity}", name=first) from None
        for attribute in rest:
            found = getattr(found, attribute)
        return found

    def resolve(self, value: Any) -> Any:
        """Return the object that a `Reference` names, anything else as it is.

        What is on another engine has been brought. A name of this engine means the object itself.
        """
        if type(value) is not Reference:
            return value
        if value.engine in (None, self.identity.id):
            return self.lookup(value.name)
        if value not in self.brought:
            raise NameError(f"{value!r} was not sent to {self.identity}", name=value.name)
        return self.brought[value]

    def bring(self, exports: Iterable[Sequence[Frame]]) -> None:
        """Hold what other engines export, until `forget`, for references to be resolved."""
        for frames in exports:
            self.brought.update(loads(frames))

    def forget(self) -> None:
        """Let go of what was brought."""
        self.brought.clear()

    def remember(self, code: str, filename: str) -> None:
        """Keep the text of code that is about to run, so that tracebacks show it."""
        # An entry without a modification time is one that linecache.checkcache() leaves alone.
        if filename not in linecache.cache:
            self._sources.append(filename)
            if len(self._sources) > REMEMBERED_SOURCES:
                linecache.cache.pop(self._sources.popleft(), None)
        linecache.cache[filename] = (len(code), None, code.splitlines(keepends=True), filename)
