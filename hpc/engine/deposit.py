"""Arrays on their way into one buffer of the client, to which all engines write at the same time.

In two steps, both operations that every engine has: `describe` says what there is, `deposit` writes it to its place.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Final

from hpc.engine.mappings import Mappings
from hpc.engine.namespace import Namespace
from hpc.transport.shared import SharedFrame

# Described arrays that no deposit has asked for yet.
MAX_PINNED: Final = 16


class Deposits:
    """What an engine needs to write arrays into segments of clients."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._tickets = itertools.count(1)
        self._pinned: dict[int, Any] = {}
        self._mappings = Mappings()
        self.builtins: Mapping[bytes, Callable[..., Any]] = {
            b"!describe": self.describe,
            b"!deposit": self.deposit,
        }

    def __repr__(self) -> str:
        return f"<Deposits, {len(self._pinned)} arrays described, {self._mappings!r}>"

    def describe(self, name: str, least_nbytes: int) -> tuple[int, Any]:
        """Say what a name holds, for a later `deposit`.

        Returns
        -------
        ticket, description
            If it is a plain array of so many bytes: a number above 0, and its type, shape and whether it is in Fortran
            order. Else 0 and the value itself.
        """
        value = self._namespace.lookup(name)
        kind = type(value)
        if kind.__module__ != "numpy" or kind.__name__ != "ndarray" or value.nbytes < least_nbytes:
            return 0, value
        if value.dtype.hasobject or not value.ndim:
            return 0, value
        ticket = next(self._tickets)
        # What the name means when the deposit is made is another matter.
        self._pinned[ticket] = value
        while len(self._pinned) > MAX_PINNED:
            del self._pinned[next(iter(self._pinned))]
        return ticket, (value.dtype, value.shape, bool(value.flags.f_contiguous and not value.flags.c_contiguous))

    def deposit(self, target: Any, dtype: Any, shape: tuple[int, ...], order: Any, places: Mapping[int, Any]) -> Any:
        """Write a described array to its place in a whole that stands in ``target``.

        ``places`` holds, for each engine id, the ticket and the index of its part. Returns None, or the part itself
        where the target is no memory that the client shares.
        """
        import numpy

        ticket, index = places[self._namespace.identity.id]
        part = self._pinned.pop(ticket)
        if type(target) is not SharedFrame:
            return part
        whole: Any = numpy.ndarray(shape, dtype, buffer=self._mappings.memory(target), order=order)
        numpy.copyto(whole[index], part, casting="no")
        return None
