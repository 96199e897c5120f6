"""The options of ``%px`` and ``%%px``."""

import argparse
import re
from typing import Any, Final, NoReturn

GROUPINGS: Final = ("type", "engine", "order")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        from IPython.core.error import UsageError

        raise UsageError(f"{message}\n{self.format_help()}")


def new_parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of the options that a magic of that name takes."""
    parser = _Parser(prog=name, add_help=False, argument_default=argparse.SUPPRESS, allow_abbrev=False)
    add = parser.add_argument
    add("-t", "--targets", help="engines: 0, 1:4, ::2, 0,3 or all")
    add(
        "-b",
        "--block",
        action="store_true",
        help="wait, and show what comes of it (if not given: as the view has it)",
    )
    add("-a", "--noblock", dest="block", action="store_false", help="return the AsyncResult at once")
    add("--stream", action="store_true", help="show output as it comes (the default when waiting)")
    add("--no-stream", dest="stream", action="store_false", help="show output when all is over")
    add("-o", "--out", metavar="NAME", help="bind the AsyncResult to this name")
    add("-g", "--group-outputs", dest="groupby", choices=GROUPINGS, help="how output is ordered if not streamed")
    add("--local", action="store_true", help="run the cell here, too")
    add("-v", "--verbose", action="store_true", help="say where the cell runs")
    add("--no-verbose", dest="verbose", action="store_false", help="say nothing")
    add("--progress-after", type=float, metavar="SECONDS", help="show a bar after this time; -1 for never")
    add("--signal-on-interrupt", choices=("0", "2", "SIGINT"), help="what Ctrl-C sends to the engines; 0 for nothing")
    return parser


def engines_of(text: str) -> Any:
    """Return engines as they are written on a magic's line: "all", an id, ids, or a slice of those that are there.

    Raises
    ------
    UsageError
        It is none of: a number, numbers with commas, a slice, all.
    """
    from IPython.core.error import UsageError

    text = text.strip().strip("[]")
    if text == "all":
        return "all"
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    if re.fullmatch(r"-?\d*:-?\d*(:-?\d*)?", text):
        return slice(*(int(part) if part else None for part in text.split(":")))
    if re.fullmatch(r"-?\d+(\s*,\s*-?\d+)*,?", text):
        return [int(part) for part in text.split(",") if part.strip()]
    raise UsageError(f"engines are written as 0, 1:4, ::2, 0,3 or all, not as {text!r}")
