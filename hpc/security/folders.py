"""Where things are kept: private directories, checked before they are trusted."""

import contextlib
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import Final

import platformdirs

from hpc.errors import SecurityError

SOCKET_NAME: Final = "controller.sock"
# The kernel takes 107 bytes (macOS 103) for the path of a unix socket; some is left for a longer name.
MAX_SOCKET_PATH: Final = 99
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


def base_dir() -> Path:
    """Return this user's directory of the package, ``$HPC_DIR`` if that is set; made if it is missing."""
    configured = os.environ.get("HPC_DIR")
    return private(Path(configured) if configured else platformdirs.user_data_path("hpc"))


def clusters_dir() -> Path:
    """Return the directory in which every cluster has its own."""
    return private(base_dir() / "clusters")


def cluster_dir(name: str) -> Path:
    """Return the directory of the cluster with that name; made if it is missing.

    It holds ``client.json``, ``engine.json`` and ``monitor.json`` (connection files), ``controller.json`` and
    ``supervisor.json`` (what runs), and ``logs``.
    """
    check_name(name)
    return private(clusters_dir() / name)


def check_name(name: str) -> None:
    """Raise ValueError unless the name can be that of a cluster, and so of a directory."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot be the name of a cluster: letters, digits, '_', '-' and '.' are allowed, at most 64,"
            " and no '.' or '-' in front"
        )


def runtime_dir(cluster_id: str) -> Path:
    """Return the directory of a cluster's unix socket, short and on a local disk; made if it is missing."""
    short = cluster_id[:8]
    candidates = []
    given = os.environ.get("XDG_RUNTIME_DIR")
    if given and os.access(given, os.W_OK):
        candidates.append(Path(given) / f"hpc-{short}")
    parents = (tempfile.gettempdir(), "/tmp")  # noqa: S108 - what is made there is private, and checked
    candidates += [Path(parent) / f"hpc-{os.geteuid()}-{short}" for parent in parents]
    for path in candidates:
        if len(os.fsencode(path / SOCKET_NAME)) <= MAX_SOCKET_PATH:
            return private(path)
    raise SecurityError(f"every path for a unix socket is too long: {', '.join(map(str, candidates))}")


def private(path: Path) -> Path:
    """Return the directory after making sure that it is there, owned by this user, and closed to all others.

    Raises
    ------
    SecurityError
        It belongs to somebody else, others may write to it, or it is no directory.
    """
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = os.stat(path) if path.is_symlink() and _own(os.lstat(path)) else os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise SecurityError(f"{path} is no directory: remove it, or set HPC_DIR to another place")
    if not _own(found):
        raise SecurityError(
            f"{path} belongs to user {found.st_uid}, not to you: set HPC_DIR to a directory of your own"
        )
    if found.st_mode & 0o077:
        if found.st_mode & 0o022:
            raise SecurityError(f"others may write to {path}: chmod 700 {path}")
        path.chmod(0o700)
    return path


def _own(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid()
