"""Arrays that are announced before their bytes are there: message, answer and copy are under way at the same time.

The client sends ``!bind`` with arrays in shared memory that it is still writing. The engine makes the arrays and
answers; then, before it takes in anything else, it waits for the client's word that they are written, and binds them.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hpc.engine.namespace import Namespace
from hpc.transport.shared import LATE, Handle, SharedFrame, memory_of

log = logging.getLogger("hpc.engine")


class Late:
    """Names that wait for the bytes of their arrays; true while there are any."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._handles: list[Handle] = []
        self._names: dict[str, Any] = {}
        self.builtins: Mapping[bytes, Callable[..., Any]] = {b"!bind": self.bind}

    def __repr__(self) -> str:
        return f"<Late {', '.join(self._names) or 'nothing'}>"

    def __bool__(self) -> bool:
        return bool(self._handles)

    def expect(self, body: Sequence[Any]) -> Sequence[Any]:
        """Return a body as memory, of which what is late must not be looked at before `settle`."""
        late = {id(f.handle): f.handle for f in body if type(f) is SharedFrame and f.handle.flags & LATE}
        if not late:
            return body
        self._handles = list(late.values())
        return [_early(frame) if type(frame) is SharedFrame else frame for frame in body]

    def bind(self, names: Mapping[str, Any]) -> None:
        """Bind names to arrays, when their bytes are there."""
        if self._handles:
            self._names = dict(names)
        else:
            self._namespace.push(names)

    def settle(self) -> None:
        """Wait until what is late is there, and bind it; not if its sender was killed or interrupted on the way."""
        if all(handle.is_written() for handle in self._handles):
            self._namespace.push(self._names)
        else:
            log.warning("%s: the client ended while it sent, so nothing was bound", ", ".join(self._names))
        self._handles, self._names = [], {}


def _early(frame: SharedFrame) -> Any:
    if not frame.handle.flags & LATE:
        return frame
    return memory_of(lambda: frame.handle.early_view()[frame.offset : frame.offset + frame.nbytes], frame.nbytes)
