"""Engines that were started together."""

from typing import TYPE_CHECKING

from hpc.client.view import DirectView
from hpc.errors import ranges
from hpc.wire import messages as m

if TYPE_CHECKING:
    from hpc.client.remote import RemoteController


class Group:
    """The engines of one launch, as they were when the group was asked for; under MPI they share a communicator.

    Attributes
    ----------
    id : str
        Its unique name.
    ids : list of int
        The engines, in the order of their ranks.
    size : int
        How many were started.
    mpi : str
        The MPI library, '' where there is none.
    hosts : list of str
        Where they run, in the order of the ranks, each once.
    """

    def __init__(self, rc: "RemoteController", rows: list[m.EngineRow]) -> None:
        rows = sorted(rows, key=lambda row: (row.rank, row.id))
        self._rc = rc
        self.id = rows[0].group
        self.ids = [row.id for row in rows]
        self.size = rows[0].size
        self.mpi = rows[0].mpi
        self.hosts = list(dict.fromkeys(row.host for row in rows))

    def __repr__(self) -> str:
        with_mpi = f", {self.mpi}" if self.mpi else ""
        return f"<Group of engines {ranges(sorted(self.ids))} on {', '.join(self.hosts)}{with_mpi}>"

    def __len__(self) -> int:
        return len(self.ids)

    def restart(self, timeout: float | None = 60.0) -> None:
        """Give the group new processes under the same ids; see `RemoteController.restart_engines`."""
        self._rc.restart_engines(self.ids, timeout)

    def set_policy(self, policy: str) -> None:
        """Say what comes of it when an engine of the group crashes: ``"report"`` or ``"restart"``.

        ``"survivors"`` is for a group that was started so: elsewhere its launcher ends the other ranks.
        """
        self._rc.order("policy", targets=self.ids, policy=policy)

    @property
    def root(self) -> int:
        """The engine with rank 0."""
        return self.ids[0]

    @property
    def view(self) -> DirectView:
        """A direct view of the group, in the order of the ranks."""
        return DirectView(self._rc, list(self.ids))
