"""Errors that people see, each with what to do about it."""

from collections.abc import Iterator, Mapping

__all__ = [
    "CollectiveStalled",
    "CompositeError",
    "ConnectError",
    "DependencyError",
    "EngineLost",
    "HpcError",
    "KeyRefused",
    "MpiMismatch",
    "MpiUnavailable",
    "NoCommunicator",
    "NoEngines",
    "ProtocolError",
    "RemoteError",
    "SecurityError",
    "SerializationError",
    "TaskAborted",
    "TaskTimeout",
]


class HpcError(Exception):
    """Base of all errors that this package raises by itself."""


class ConnectError(HpcError, ConnectionError):
    """The controller cannot be reached, or refuses."""


class KeyRefused(ConnectError):  # noqa: N818 - says what happened
    """The key in the connection file is not the one that the other side expects: trying again does not help."""


class SecurityError(HpcError):
    """A key, a file mode or an owner is not as it must be."""


class ProtocolError(HpcError):
    """What came in over a connection is not of the protocol."""


class SerializationError(HpcError, TypeError):
    """An object cannot travel; the message names it."""


class NoEngines(HpcError):  # noqa: N818 - a public name
    """There is no engine to do the work."""


class NoCommunicator(HpcError):  # noqa: N818 - a public name
    """The engine was started without MPI."""


class MpiUnavailable(HpcError):  # noqa: N818 - a public name
    """mpi4py, or the MPI library that it needs, cannot be loaded."""


class MpiMismatch(HpcError):  # noqa: N818 - a public name
    """Launcher and MPI library do not belong together: the ranks did not find each other."""


class TaskAborted(HpcError):  # noqa: N818 - a public name
    """The task was aborted before it ran."""


class TaskTimeout(HpcError, TimeoutError):  # noqa: N818 - a public name
    """The task waited, or ran, longer than it may."""


class DependencyError(HpcError):
    """What the task depends on can no longer be met."""


class CollectiveStalled(HpcError):  # noqa: N818 - a public name
    """A collective operation of a group cannot complete: some ranks wait in MPI for others that will not come.

    Attributes
    ----------
    stacks : mapping of int to frames, optional
        Where the engines of the group were; its text is the picture that stands in the message, too.
    """

    stacks: Mapping[int, object] | None = None


class EngineLost(HpcError):  # noqa: N818 - a public name
    """The engine that held the task is gone.

    Attributes
    ----------
    engine_id, rank, host, pid : int, int, str, int
        Which engine it was; ``engine_id`` is -1 where none was involved yet.
    reason : str
        ``signal``, ``out_of_memory``, ``mpi_abort``, ``exit``, ``vanished``, ``shutdown``, ``group``, ``goodbye``,
        ``walltime`` or ``preempted``.
    signal, exit_code : int or None
        The signal that ended it, or its exit status, where it is known.
    stderr : str
        The last lines that it, or its launcher, wrote there, '' where they are not known.
    """

    def __init__(
        self,
        text: str,
        *,
        engine_id: int = -1,
        rank: int = 0,
        host: str = "",
        pid: int = 0,
        reason: str = "",
        signal: int | None = None,
        exit_code: int | None = None,
        stderr: str = "",
    ) -> None:
        super().__init__(text)
        self.engine_id, self.rank, self.host, self.pid = engine_id, rank, host, pid
        self.reason, self.signal = reason, signal
        self.exit_code, self.stderr = exit_code, stderr


class RemoteError(HpcError):
    """Code raised on an engine. It is also an instance of the built-in type that was raised there.

    Attributes
    ----------
    ename, evalue : str
        Name and text of the original exception.
    traceback : str
        Its traceback, as the engine printed it.
    engine_id, rank, host : int, int, str
        Where it was raised.
    """

    ename: str = ""
    evalue: str = ""
    traceback: str = ""
    engine_id: int = -1
    rank: int = 0
    host: str = ""

    def where(self) -> str:
        """Name engine, rank and host."""
        return f"engine {self.engine_id} (rank {self.rank} on {self.host})"

    def __str__(self) -> str:
        return f"{self.ename}: {self.evalue}\n[{self.where()}]\n{self.traceback}".rstrip()

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows: where it was raised, not how the client learnt of it."""
        return [*self.traceback.rstrip().splitlines(), f"[{self.where()}]"]


class CompositeError(HpcError):
    """Several engines failed. Indexing by engine id gives each one's error.

    Attributes
    ----------
    errors : dict of int to Exception
        The error of each engine that failed.
    """

    def __init__(self, errors: Mapping[int, BaseException], what: str = "") -> None:
        self.errors = dict(errors)
        self.what = what
        super().__init__(self._describe())

    def __len__(self) -> int:
        return len(self.errors)

    def __iter__(self) -> Iterator[int]:
        return iter(self.errors)

    def __getitem__(self, engine_id: int) -> BaseException:
        return self.errors[engine_id]

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows."""
        return str(self).splitlines()

    def raise_exception(self, engine_id: int | None = None) -> None:
        """Raise the error of one engine, by default that of the lowest id."""
        raise self.errors[min(self.errors) if engine_id is None else engine_id]

    def _describe(self) -> str:
        alike: dict[tuple[str, str, str], list[int]] = {}
        for engine_id, error in sorted(self.errors.items()):
            if isinstance(error, RemoteError):
                key = (error.ename, error.evalue, error.traceback)
            else:
                key = (type(error).__name__, str(error), "")
            alike.setdefault(key, []).append(engine_id)
        n = len(self.errors)
        lines = [f"{n} engine{'s' * (n != 1)} failed{self.what and ' in ' + self.what}:"]
        for (ename, evalue, traceback), ids in alike.items():
            lines.append(f"[{self._who(ids)}] {ename}: {evalue}")
            if traceback:
                lines += ["    " + line for line in traceback.rstrip().splitlines()]
        return "\n".join(lines)

    def _who(self, ids: list[int]) -> str:
        """Name engines that failed alike, with their ranks and, if it is one and the same, their host."""
        where = [error for i in ids if isinstance(error := self.errors[i], RemoteError | EngineLost)]
        text = f"engine{'s' * (len(ids) != 1)} {ranges(ids)}"
        if len(where) != len(ids):
            return text
        ranks = sorted({error.rank for error in where})
        hosts = sorted({error.host for error in where})
        on = f" on {hosts[0]}" if len(hosts) == 1 and hosts[0] else f" on {len(hosts)} hosts" * (len(hosts) > 1)
        return f"{text}: rank{'s' * (len(ranks) != 1)} {ranges(ranks)}{on}"


def ranges(ids: list[int]) -> str:
    """Write sorted ids as ``0-3,7``."""
    parts: list[list[int]] = []
    for i in ids:
        if parts and i == parts[-1][-1] + 1:
            parts[-1][1:] = [i]
        else:
            parts.append([i])
    return ",".join("-".join(map(str, part)) for part in parts)
