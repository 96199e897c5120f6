"""What can be told of data that has arrived."""

from collections.abc import Sequence
from typing import Any

from hpc.dataplane.chooser import SHARED_NBYTES
from hpc.transport.shared import is_mapped


def route_of(buffers: Sequence[Any]) -> str:
    """Return the way that the large buffers of a message took."""
    if any(map(is_mapped, buffers)):
        return "shm"
    return "tcp" if sum(map(len, buffers)) >= SHARED_NBYTES else "inline"
