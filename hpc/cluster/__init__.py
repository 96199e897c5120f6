"""Start, watch and end the processes of a cluster: a controller and groups of engines.

``supervisor`` runs in a process of its own (``python -m hpc.cluster``) and is the parent of all others, ``starter``
starts it from elsewhere and listens to it, ``cluster`` is the public face of both. ``record`` is what a cluster leaves
on disk while it lives, so that it can be found, asked and ended later.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpc.cluster.cluster import Cluster

__all__ = ["Cluster"]


def __getattr__(name: str) -> Any:
    # Lazy: the supervisor process imports this package too and has no use for the client.
    if name == "Cluster":
        from hpc.cluster.cluster import Cluster

        return Cluster
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
