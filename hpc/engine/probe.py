"""``python -m hpc.engine.probe``: one line of JSON on what an engine would find where this was started.

For ``ipcluster doctor``, as a rank of the launcher that it examines. ``--library`` looks at the MPI library alone and
initialises nothing.
"""

import argparse
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any, Final

from hpc.errors import MpiMismatch, MpiUnavailable
from hpc.mpi import group

MARK: Final = "hpc-probe "
CONNECT_S: Final = 3.0


def main() -> int:
    """Print what was found; 0, because what is wrong is a finding too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", action="store_true")
    parser.add_argument("--address", action="append", default=[], metavar="HOST:PORT", help="try to connect to it")
    parser.add_argument("--file", type=Path, help="see whether it is there")
    options = parser.parse_args()
    found = library() if options.library else rank()
    found |= {
        "host": socket.gethostname(),
        "node": os.environ.get("SLURMD_NODENAME", ""),
        "clock_s": time.time(),
        "python": sys.executable,
    }
    found["reached"] = [address for address in options.address if reaches(address)]
    found["sees_file"] = options.file is not None and options.file.exists()
    # One write a rank: what several print at once stays apart.
    os.write(1, f"{MARK}{json.dumps(found)}\n".encode())
    return 0


def library() -> dict[str, Any]:
    """Return which MPI library mpi4py loads, and the mpirun that belongs to it."""
    try:
        found = group.loaded_library()
    except MpiUnavailable as error:
        return {"error": str(error)}
    return {"name": found.name, "family": found.family, "path": found.path, "mpirun": found.mpirun}


def rank() -> dict[str, Any]:
    """Join the group that this process was started in."""
    launch = group.detect()
    started = {"launcher": launch.launcher if launch else "", "rank": launch.rank if launch else 0}
    try:
        membership = group.join(launch)
    except (MpiMismatch, MpiUnavailable) as error:
        return started | {"error": str(error)}
    total = membership.runtime_comm.allreduce(1)
    found = {"rank": membership.rank, "size": membership.size, "sum": total, "name": membership.mpi}
    group.leave(membership)
    return started | found


def reaches(address: str) -> bool:
    """Say whether a connection to an address comes about."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), CONNECT_S):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    raise SystemExit(main())
