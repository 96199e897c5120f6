"""The debugger of the standard library on what the last failed task left, one command at a time.

Commands come as tasks, so that nothing is blocked between two of them. The frames are those of the exception; what has
run since has changed the objects that they refer to, if anything has.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hpc.engine.current import Identity
from hpc.engine.lookout import Lookout, describe_error

if TYPE_CHECKING:
    from hpc.engine.pdbsession import Session


class PostMortem:
    """The session of an engine: there is one at a time, the latest."""

    def __init__(self, lookout: Lookout, identity: Identity) -> None:
        self._lookout = lookout
        self._identity = identity
        self._session: Session | None = None
        self.builtins: Mapping[bytes, Callable[..., Any]] = {b"!debug": self.debug}

    def __repr__(self) -> str:
        return f"<PostMortem of {self._identity}, {self._session or 'no session'}>"

    def debug(self, line: str | None) -> tuple[str, bool]:
        """Carry out a command; return what it prints, and whether the session goes on. None begins one."""
        if line is None:
            error = self._lookout.error
            if error is None:
                return f"no task has failed on {self._identity} since it was started", False
            from hpc.engine.pdbsession import Session

            self._session = Session(error)
            return f"{describe_error(error)}\n{self._session.where()}", True
        if self._session is None:
            return f"the debugging session on {self._identity} was ended from elsewhere\n", False
        text, goes_on = self._session.carry_out(line)
        if not goes_on:
            self._session = None
        return text, goes_on
