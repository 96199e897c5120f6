"""The client: `RemoteController`, its views, and the results that they return.

``link`` and ``line`` do the I/O, ``outbox`` forms bundles, ``inbox`` sorts what comes in; ``remote``, ``view``,
``balanced`` and the results are what people hold in their hands. docs/decisions/0004-client.md says why.
"""

from hpc.client.asyncresult import AsyncResult
from hpc.client.balanced import LoadBalancedView
from hpc.client.group import Group
from hpc.client.groupresult import GroupResult
from hpc.client.mapresult import MapResult
from hpc.client.remote import RemoteController, connect
from hpc.client.view import DirectView

__all__ = [
    "AsyncResult",
    "DirectView",
    "Group",
    "GroupResult",
    "LoadBalancedView",
    "MapResult",
    "RemoteController",
    "connect",
]
