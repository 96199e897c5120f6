"""Objects of one rank that all ranks of a team are to have, without the controller: from engine to engine by MPI."""

from collections.abc import Callable, Mapping
from typing import Any

from hpc.engine.namespace import Namespace
from hpc.errors import HpcError
from hpc.wire import objects


class Sharing:
    """What ranks do together about objects that one of them has.

    Parameters
    ----------
    namespace : Namespace
        Of this engine.
    collectives : hpc.mpi.collectives.Collectives or None
        None without MPI: then the operation says so.
    """

    def __init__(self, namespace: Namespace, collectives: Any) -> None:
        self._namespace = namespace
        self._collectives = collectives
        self.builtins: Mapping[bytes, Callable[..., Any]] = {b"!share": self.share}

    def __repr__(self) -> str:
        return f"<Sharing of {self._namespace.identity}>"

    def share(self, ranks: list[int], root: int, names: Mapping[str, str]) -> None:
        """Bind new names on all ranks of a team to copies of objects of the root.

        Collective: all ranks have to call it. All of them raise if one cannot.

        Parameters
        ----------
        root
            Which of ``ranks`` has the objects.
        names
            New name -> what it is called on the root.
        """
        if self._collectives is None:
            raise HpcError(f"{self._namespace.identity} was started without MPI")
        import numpy

        with self._collectives.team(ranks) as team:
            frames, problem = list[Any](), None
            try:
                if team.rank == root:
                    frames = objects.dumps({new: self._namespace.lookup(name) for new, name in names.items()})
            except Exception as error:
                problem = error
            team.agree(problem)
            sizes = team.exchange([memoryview(frame).nbytes for frame in frames])[root]
            try:
                mine = [numpy.empty(nbytes, "u1") for nbytes in sizes]
                for copy, frame in zip(mine, frames, strict=False):  # what the root keeps is a copy, too
                    copy[:] = numpy.frombuffer(frame, "u1")
            except MemoryError as error:
                problem = error
            team.agree(problem)
            team.bcast(mine, root)
        buffers: list[Any] = mine[1:]
        self._namespace.push(objects.loads([mine[0].tobytes(), *buffers]))
