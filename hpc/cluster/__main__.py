"""The supervisor process: ``python -m hpc.cluster NAME``. Started by `hpc.cluster.starter`, not by people.

The first line of its stdin are the options; its stdout carries events.
"""

import gc
import os
import signal
import sys

from hpc.cluster.options import ClusterOptions, Event
from hpc.errors import HpcError


def main() -> int:
    """Run as the supervisor until the cluster's end; in a forked child, as controller or engine until theirs."""
    gc.disable()  # nothing that imports make is garbage, and looking for some would take as long again
    search_path = _without_directory()
    from hpc.cluster.children import Become

    try:
        return _supervise(search_path)
    except Become as child:
        run = child.run
    sys.path[:] = search_path
    gc.enable()
    return run()


def _supervise(search_path: list[str]) -> int:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # whatever thread started us may have blocked some
    options = ClusterOptions.from_json(_read_line())
    lifeline = os.dup(0)
    events = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.dup2(2, 1)  # whatever prints is no event
    os.close(nothing)
    try:
        from hpc.cluster.supervisor import Supervisor

        supervisor = Supervisor(options, events, lifeline)
    except (HpcError, OSError, ValueError) as error:
        os.write(events, Event("ended", str(error), failed=True).to_json())
        return 1
    return supervisor.run()


def _read_line() -> bytes:
    """Read one line of stdin and not a byte more: what follows is the lifeline's."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            raise SystemExit("hpc.cluster: no options on stdin: this program is started by ipcluster and hpc.Cluster")
        line += byte
    return line


def _without_directory() -> list[str]:
    """Take the current directory off the search path while the supervisor imports; return the path as it was.

    Engines shall import modules that lie there; a file ``logging.py`` there shall not become ours.
    """
    before = list(sys.path)
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if sys.path and sys.path[0] in ("", os.getcwd()) and sys.path[0] != home:
        del sys.path[0]
    return before


if __name__ == "__main__":
    sys.exit(main())
