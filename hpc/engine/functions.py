"""The functions that an engine holds, by digest."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from hpc.wire.messages import TOGETHER

# One more than this, and the oldest has to go: `Need` brings it back.
MAX_FUNCTIONS: Final = 4096


class Held:
    """A function that was sent, loaded when it is first needed.

    Attributes
    ----------
    call : callable
        What runs, valid after `prepare`.
    binds : bool
        Whether `prepare` has something to do before each call.
    together : bool
        Whether other engines do the same and wait for this one: then it is not interrupted.
    item_s : float
        How long an item of a span took lately, 0 if unknown.
    """

    __slots__ = ("_blobs", "_loaded", "binds", "call", "item_s", "name", "together")

    def __init__(self, name: str, call: Callable[..., Any] | None = None, blobs: tuple[bytes, bytes] = (b"", b"")):
        self.name = name
        self.item_s = 0.0
        self.together = False
        self._blobs = blobs
        self._loaded: Any = None
        self.binds = call is None
        self.call: Callable[..., Any] = call if call is not None else self._unprepared

    def __repr__(self) -> str:
        return f"<Held {self.name}{'' if self.call != self._unprepared else ', not loaded'}>"

    def _unprepared(self, *_args: Any, **_kwargs: Any) -> Any:
        raise AssertionError(f"{self!r} was called before prepare()")

    def prepare(self) -> None:
        """Load the function if that has not succeeded yet, and bind the names that came along with it.

        May import modules, take long and raise anything: it counts as part of the task.
        """
        if self._loaded is None:
            if not self.binds:
                return  # a built-in
            from hpc.wire.functions import load_function

            self._loaded = load_function(self.name, *self._blobs)
            self.call = self._loaded.call
            self.binds = bool(self._loaded.captured)
            self._blobs = (b"", b"")
        self._loaded.prepare()

    def explain(self, error: BaseException) -> str:
        """Return what is to be said about an error beyond its own text, mostly nothing."""
        return "" if self._loaded is None else str(self._loaded.explain(error))


class FunctionTable:
    """Digest to function; digests that start with ``!`` are the engine's own operations."""

    def __init__(self, builtins: Mapping[bytes, Callable[..., Any]]) -> None:
        self._held = {digest: Held(digest.decode(), call) for digest, call in builtins.items()}
        self._n_builtins = len(self._held)
        for digest in TOGETHER & self._held.keys():
            self._held[digest].together = True

    def __repr__(self) -> str:
        return f"<FunctionTable of {len(self._held) - self._n_builtins} functions>"

    def define(self, digest: bytes, name: str, by_reference: bytes, by_value: bytes) -> None:
        """Take in a function that was sent; nothing of it is loaded yet."""
        if digest.startswith(b"!") or digest in self._held:
            return
        if len(self._held) >= self._n_builtins + MAX_FUNCTIONS:
            oldest = next(digest for digest in self._held if not digest.startswith(b"!"))
            del self._held[oldest]
        self._held[digest] = Held(name, blobs=(by_reference, by_value))

    def find(self, digests: list[bytes]) -> tuple[list[Held], list[bytes]]:
        """Return the functions, and the digests of those that are not here."""
        held = [self._held[digest] for digest in digests if digest in self._held]
        if len(held) == len(digests):
            return held, []
        return held, [digest for digest in digests if digest not in self._held]
