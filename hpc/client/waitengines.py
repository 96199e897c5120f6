"""Waiting for engines, with a picture of how far it has come for whoever looks on."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpc.client.link import Link

# A wait shorter than this is over before anybody has read anything.
SILENT_S = 1.0


def wait_for_engines(link: "Link", n: int, timeout_s: float | None) -> None:
    """Wait for events, not by asking again and again, until ``n`` engines are there; `TimeoutError` if they are not."""
    began = time.monotonic()

    def there() -> bool:
        return len(link.roster.engines) >= n

    quiet_s = SILENT_S if timeout_s is None else min(SILENT_S, timeout_s)
    if link.wait(there, quiet_s):
        return
    with _progress(n) as show:
        while not there():
            seen = link.roster.version
            show(len(link.roster.engines))
            left_s = None if timeout_s is None else began + timeout_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise TimeoutError(
                    f"{len(link.roster.engines)} of {n} engines are there after {timeout_s:g} s;"
                    " their logs may say why the others are not"
                )
            link.wait(lambda seen=seen: link.roster.version != seen, left_s)  # type: ignore[misc]
        show(n)


@contextlib.contextmanager
def _progress(n: int) -> Iterator[Any]:
    """Yield a function that shows how many engines are there: a bar where there is tqdm, a line, or nothing."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    try:
        from tqdm.auto import tqdm
    except ImportError:
        yield lambda k: print(f"\r{k} of {n} engines", end="\n" if k >= n else "", file=sys.stderr, flush=True)
        return
    with tqdm(total=n, unit="engine", leave=False) as bar:

        def show(k: int) -> None:
            bar.n = min(k, n)
            bar.refresh()

        yield show
