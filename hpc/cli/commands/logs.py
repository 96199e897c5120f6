"""``ipcluster logs``: what controller and engines have logged."""

# ruff: noqa: D301 - click leaves a paragraph after \b as it is

import time
from pathlib import Path

import click

from hpc.cli.commands.options import fail, name_option
from hpc.cli.commands.status import choose
from hpc.cluster.record import LOGS
from hpc.security.folders import clusters_dir


@click.command("logs")
@name_option
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C, or until the logs are removed.")
@click.option("--lines", type=click.IntRange(min=0), default=50, show_default=True, help="The last lines of each log.")
@click.argument("which", nargs=-1)
def command(name: str, follow: bool, lines: int, which: tuple[str, ...]) -> None:
    """Show what controller and engines have logged. WHICH names logs, by their beginning; by default all are shown.

    \b
      ipcluster logs
      ipcluster logs controller
      ipcluster logs -f --name heat engine-0 engine-1

    The logs of a cluster that failed stay until the next one of its name starts.
    """
    entry = choose(name)
    directory = entry.directory / LOGS if entry else clusters_dir() / (name or "default") / LOGS
    if not directory.is_dir():
        fail(f"there are no logs: no such directory as {directory}")
    follower = Follower(directory, lines=lines, which=which)
    try:
        while follower.show() or follow:
            if not directory.is_dir():
                return
            if follow:
                time.sleep(0.2)
            else:
                return
    except KeyboardInterrupt:
        raise SystemExit(130) from None


class Follower:
    """Prints what is appended to the logs of a directory, each line after the name of its log."""

    def __init__(self, directory: str | Path, *, lines: int | None = None, which: tuple[str, ...] = ()) -> None:
        self._directory = Path(directory)
        self._lines = lines  # of what is there at first; None: all of it
        self._which = which
        self._read: dict[Path, int] = {}

    def __repr__(self) -> str:
        return f"<Follower of {self._directory}, {len(self._read)} logs>"

    def show(self) -> int:
        """Print what is new since the last call, whole lines only; return how many lines."""
        count = 0
        for path in sorted(self._directory.glob("*.log"), key=_age_of):
            if not self._which or path.stem.startswith(self._which):
                count += self._show(path)
        self._lines = None
        return count

    def _show(self, path: Path) -> int:
        try:
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                data = file.read()
        except OSError:
            return 0  # the cluster has ended and its logs with it
        end = data.rfind(b"\n") + 1
        self._read[path] = self._read.get(path, 0) + end
        lines = data[:end].decode(errors="replace").splitlines()
        if self._lines is not None:
            lines = lines[-self._lines :] if self._lines else []
        for line in lines:
            click.echo(f"{path.stem}: {line}")
        return len(lines)


def _age_of(path: Path) -> tuple[int, str]:
    """Sort the supervisor and the controller before the engines, engines by number."""
    stem, _, number = path.stem.partition("-")
    return ({"supervisor": 0, "controller": 1}.get(stem, 2), number.zfill(6))
