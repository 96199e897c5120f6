"""The lines of code that a traceback shows, where the engine did not have them but this process does.

Functions of a session, or of a file that is only here, run on engines that cannot read their source.
"""

import itertools
import linecache
import re
from typing import Final

_FRAME: Final = re.compile(r'  File "(.+)", line (\d+)')


def with_sources(traceback: str) -> str:
    """Return the text of a traceback, with the line of code under each frame that has none."""
    lines = traceback.splitlines()
    completed = []
    for line, following in itertools.zip_longest(lines, lines[1:], fillvalue=""):
        completed.append(line)
        frame = _FRAME.match(line)
        if frame is not None and not following.startswith("    "):
            code = linecache.getline(frame[1], int(frame[2])).strip()
            if code:
                completed.append(f"    {code}")
    return "\n".join(completed) + "\n" * traceback.endswith("\n")
