"""Words for a shell and values for directives: two languages, and each scheduler has its own second one."""

import re
import shlex
from collections.abc import Iterable
from typing import Final

from jobscripts.errors import SpecError

__all__ = ["command_line", "pbs_value", "shell_word", "slurm_value"]

_PLAIN: Final = re.compile(r"[A-Za-z0-9_@%+=:,./\[\]{}^-]+\Z")


def shell_word(text: str) -> str:
    """Return a word that bash reads as exactly this text."""
    return shlex.quote(text)


def command_line(words: Iterable[str]) -> str:
    """Return a line that bash reads as exactly these words."""
    return shlex.join(words)


def slurm_value(field: str, text: str) -> str:
    """Return a value as sbatch reads it in an ``#SBATCH`` line: a backslash escapes even in quotes, ``#`` ends it."""
    one_line(field, text)
    if _PLAIN.match(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def pbs_value(field: str, text: str) -> str:
    """Return a value as qsub reads it in a ``#PBS`` line: quotes hold everything but themselves, as in a shell."""
    one_line(field, text)
    return text if _PLAIN.match(text) else shlex.quote(text)


def one_line(field: str, text: str) -> None:
    """Refuse what no directive can hold.

    Raises
    ------
    SpecError
        There is a newline or another control character in it.
    """
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise SpecError(
            field, f"{text!r} has a control character, which no directive can hold; use another path or name"
        )
