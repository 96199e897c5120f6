"""Reductions between engines: each engine keeps its value, takes in those of others, and hands on what it has."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from hpc import reduction
from hpc.engine.namespace import Namespace
from hpc.errors import HpcError
from hpc.wire import objects

# Of reductions whose client has gone in between; the oldest are forgotten.
MAX_KEPT: Final = 64


class Partials:
    """What an engine does for reductions: `offer`, `combine` and `drop`.

    A partial result stands in ``namespace.kept`` under the token of its reduction, so that it is a `Reference` by which
    the next engine gets it.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._kept = namespace.kept
        self._lookup = namespace.lookup
        self._own: set[str] = set()
        self.builtins: Mapping[bytes, Callable[..., Any]] = {
            b"!offer": self.offer,
            b"!combine": self.combine,
            b"!drop": self.drop,
        }

    def __repr__(self) -> str:
        return f"<Partials, {len(self._kept)} kept>"

    def offer(self, token: str, name: str, least_nbytes: int) -> tuple[bool, Any]:
        """Keep what a name means, for a reduction.

        Returns
        -------
        is_kept, value
            If it is of so many bytes: True and None. Else False and the value: it is not worth another message.
        """
        value = self._lookup(name)
        if _nbytes(value) < least_nbytes:
            return False, value
        self._kept[token] = value
        while len(self._kept) > MAX_KEPT:
            self.drop(next(iter(self._kept)))
        return True, None

    def combine(self, token: str, op: reduction.Operation, right: Any) -> None:
        """Take a value in: that of the next targets, in their order."""
        if token not in self._kept:
            raise HpcError("the value of this engine is not there any more: an earlier step failed")
        left = self._kept.pop(token)
        # What has been combined here is ours; the first value is the user's.
        self._kept[token] = reduction.combine(left, right, op, spare=left if token in self._own else None)
        self._own.add(token)

    def drop(self, token: str) -> None:
        """Forget a reduction."""
        self._kept.pop(token, None)
        self._own.discard(token)


def _nbytes(value: Any) -> int:
    kind = type(value)
    if kind.__module__ == "numpy" and kind.__name__ == "ndarray" and not value.dtype.hasobject:
        return int(value.nbytes)
    return sum(memoryview(frame).nbytes for frame in objects.dumps(value))
