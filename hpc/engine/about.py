"""What an engine says of itself when it registers."""

import math
import os
import platform
from typing import Any

from hpc.engine.walltime import ENDLESS, Allocation
from hpc.security import host
from hpc.wire.messages import EngineInfo


def engine_info(
    uuid: str, membership: Any = None, label: str = "", allocation: Allocation = ENDLESS, *, replaces: str = ""
) -> EngineInfo:
    """Describe this process; ``membership`` is that of `hpc.mpi.group`, None without MPI.

    ``label`` is what whoever starts the group calls it; the group's name begins with it. ``replaces`` is the name of
    the group whose ids it is to have.
    """
    # Without MPI an engine is a group of its own.
    group = membership.group if membership else uuid
    return EngineInfo(
        uuid=uuid,
        group=f"{label}-{group[:12]}" if label else group,
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
        deadline=allocation.end if allocation.end < math.inf else 0.0,
        notice_s=allocation.notice_s,
        replaces=replaces,
    )
