"""What an engine says of itself when it registers."""

import os
import platform
from typing import Any

from hpc.security import host
from hpc.wire.messages import EngineInfo


def engine_info(uuid: str, membership: Any = None) -> EngineInfo:
    """Describe this process; ``membership`` is that of `hpc.mpi.group`, None without MPI."""
    return EngineInfo(
        uuid=uuid,
        # Without MPI an engine is a group of its own.
        group=membership.group if membership else uuid,
        rank=membership.rank if membership else 0,
        size=membership.size if membership else 1,
        host=host.hostname(),
        pid=os.getpid(),
        started=host.own_start_ticks(),
        boot_id=host.boot_id(),
        mpi=membership.mpi if membership else "",
        cwd=os.getcwd(),
        python=platform.python_version(),
        launcher=membership.launcher if membership else "",
    )
