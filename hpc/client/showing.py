"""What tasks print, shown to a person: when they have ended, or as it comes."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from hpc.client.waiting import Parker

if TYPE_CHECKING:
    from hpc.client.asyncresult import AsyncResult

STREAMS = ("stdout", "stderr")
GROUPINGS = ("type", "engine", "order")


def _file(stream: str) -> TextIO:
    return sys.stdout if stream == "stdout" else sys.stderr


def _who(result: "AsyncResult", target: int) -> str:
    """Name an engine in a heading: by its rank too, where that is another number."""
    row = result._link.roster.engines.get(target)
    return f"{target}, rank {row.rank}" if row is not None and row.size > 1 and row.rank != target else f"{target}"


def display(result: "AsyncResult", groupby: str = "type") -> None:
    """Print what the tasks of a result printed; with a heading for each engine, if there are several tasks.

    Parameters
    ----------
    groupby : {"type", "engine", "order"}
        All of stdout before all of stderr; or all of an engine together, by id, or in the order of the targets.
    """
    if groupby not in GROUPINGS:
        raise ValueError(f"groupby must be one of {', '.join(GROUPINGS)}, not {groupby!r}")
    rows = []
    for task, (target, outcome, index) in enumerate(result._slots()):
        engine = outcome.engine if outcome is not None and outcome.engine >= 0 else target
        rows.append((engine, {stream: result._printed(task, outcome, index, stream) for stream in STREAMS}))
    if result._is_one():
        for stream in STREAMS:
            print_headed(rows[0][1][stream], "", stream)
        return
    if groupby == "engine":
        rows.sort(key=lambda row: row[0])
    if groupby == "type":
        for stream in STREAMS:
            for engine, texts in rows:
                print_headed(texts[stream], f"[{stream}:{_who(result, engine)}]", stream)
        return
    for engine, texts in rows:
        for stream in STREAMS:
            print_headed(texts[stream], f"[{stream}:{_who(result, engine)}]", stream)


def print_headed(text: str, heading: str, stream: str) -> None:
    """Print text where its stream is here, on the line of its heading if it is one short line itself."""
    if text.strip():
        file = _file(stream)
        if heading:
            print(heading, end="\n" if text.count("\n") > 1 or len(text) > 60 else " ", file=file)
        print(text, end="" if text.endswith("\n") else "\n", file=file, flush=True)


@contextmanager
def streaming(result: "AsyncResult") -> Iterator[None]:
    """Print output as it comes, each line with its engine, for as long as the ``with`` block lasts."""
    printer = _Printer(result)
    result._listener = printer.bell.wake
    thread = threading.Thread(target=printer.run, name="hpc-stream", daemon=True)
    thread.start()
    try:
        yield
    finally:
        result._listener = None
        printer.over = True
        printer.bell.wake()
        thread.join()


class _Printer:
    """Prints what is new whenever it is woken; whole lines, so that those of several engines do not mix."""

    def __init__(self, result: "AsyncResult") -> None:
        self.over = False
        self.bell = Parker()
        self._result = result
        self._shown: dict[tuple[int, str], int] = {}

    def run(self) -> None:
        while not self.over:
            self.show(whole_lines=True)
            self.bell.wait(None)
        self.show(whole_lines=False)

    def show(self, whole_lines: bool) -> None:
        result = self._result
        several = not result._is_one()
        for task, (target, outcome, index) in enumerate(result._slots()):
            for stream in STREAMS:
                text = result._printed(task, outcome, index, stream)
                shown = self._shown.get((task, stream), 0)
                end = len(text) if outcome is not None or not whole_lines else text.rfind("\n") + 1
                if end > shown:
                    self._shown[task, stream] = end
                    self._lines(text[shown:end], f"[{stream}:{_who(result, target)}] " if several else "", stream)

    def _lines(self, text: str, prefix: str, stream: str) -> None:
        file = _file(stream)
        for line in text.splitlines(keepends=True):
            file.write(prefix + line)
        if not text.endswith("\n"):
            file.write("\n")
        file.flush()
