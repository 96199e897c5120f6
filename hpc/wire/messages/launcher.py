"""Between launcher and controller (docs/protocol.md, section 6), both ways."""

from hpc.wire.messages.base import Message


class Exited(Message, tag=80):
    """Launcher to controller: a process it started has ended (``signal`` 0: by itself, with ``exit_code``).

    ``detail`` has the last lines of its stderr; ``oom`` says that it was killed because memory ran out.
    """

    host: str
    pid: int
    exit_code: int
    signal: int
    detail: str = ""
    oom: bool = False


class Group(Message, tag=81):
    """Launcher to controller: ``n`` engines of this group were started, or, with ``error``, could not be.

    With ``ended`` all that was started for this group has ended; ``stderr`` has the last lines of it.
    """

    group: str
    n: int
    error: str = ""
    ended: bool = False
    stderr: str = ""


class Start(Message, tag=82):
    """Controller to launcher: start ``n`` more engines; with ``replaces``, new processes for that group's ids."""

    n: int
    replaces: str = ""
