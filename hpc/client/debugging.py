"""``rc.debug(engine)``: a person at the debugger of an engine."""

from typing import TYPE_CHECKING, Final

from hpc.client import placement
from hpc.errors import CompositeError, HpcError, RemoteError

if TYPE_CHECKING:
    from hpc.client.link import Link

DEBUG: Final = b"!debug"
PROMPT: Final = "(Pdb) "


def engine_of(what: int | RemoteError | CompositeError) -> int:
    """Return the engine that a person means: by its id, or by the error that it raised."""
    if isinstance(what, CompositeError):
        return min(what.errors)
    return what.engine_id if isinstance(what, RemoteError) else int(what)


def debug(link: "Link", engine_id: int) -> None:
    """Read commands and print what they say, until ``quit`` or the end of the input."""
    text, goes_on = _ask(link, engine_id, None)
    if not goes_on:
        raise HpcError(text)
    print(f"engine {engine_id}: {text}", end="")
    before = ""
    while goes_on:
        try:
            line = input(PROMPT)
        except KeyboardInterrupt:
            print()
            continue
        except EOFError:
            print()
            line = "quit"
        before = line or before  # an empty line repeats the command, as in any Pdb
        text, goes_on = _ask(link, engine_id, before)
        print(text, end="")


def _ask(link: "Link", engine_id: int, line: str | None) -> tuple[str, bool]:
    answer: tuple[str, bool] = placement.call_one(link, engine_id, DEBUG, ((line,), {}), "debug").get()
    return answer
