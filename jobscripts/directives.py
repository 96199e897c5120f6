"""The lines at the top of a job script, and the wish not to write some of them."""

from jobscripts.errors import SpecError

__all__ = ["Directives"]


class Directives:
    """Collects directives, each under the name by which a spec may skip it.

    Parameters
    ----------
    prefix : str
        ``#SBATCH`` or ``#PBS``.
    known : frozenset of str
        All names that this scheduler's directives go by.
    skip : tuple of str
        Names not to write.

    Raises
    ------
    SpecError
        A name to skip is none that could be written: most likely it is misspelt.
    """

    def __init__(self, prefix: str, known: frozenset[str], skip: tuple[str, ...]) -> None:
        for name in skip:
            if name not in known:
                raise SpecError("skip", f"{name!r} is no directive of these: {', '.join(sorted(known))}")
        self._prefix = prefix
        self._skip = frozenset(skip)
        self._lines: list[str] = []

    def __repr__(self) -> str:
        return f"<Directives {self._prefix}: {len(self._lines)} lines>"

    def wants(self, name: str) -> bool:
        """Say whether a directive, or a part of one, is to be written."""
        return name not in self._skip

    def add(self, name: str, text: str) -> None:
        """Write a directive, unless it is to be skipped."""
        if self.wants(name):
            self.raw(text)

    def raw(self, text: str) -> None:
        """Write a directive as it is."""
        self._lines.append(f"{self._prefix} {text}")

    def text(self) -> str:
        """Return all lines."""
        return "".join(f"{line}\n" for line in self._lines)
