"""What tasks print: taken from sys.stdout and sys.stderr, kept until the task's entry is made, or streamed.

What they display otherwise, such as pictures, is kept here, too.
"""

import io
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TextIO

PIECE: Final = 64 * 1024
# Beyond this much unsent text whoever prints has to wait for the network. In characters.
BACKLOG: Final = 1024 * 1024

STREAMS: Final = ("stdout", "stderr")


class Capture:
    """The text of the task that runs now, whichever thread of the process printed it.

    Writing takes no lock: a deque's ends are atomic, so that a signal, a fork or an exception in the middle of a print
    leaves nothing held. Whoever takes text away holds the ledger's lock.
    """

    def __init__(self, originals: Sequence[TextIO | None], on_output: Callable[[], None]) -> None:
        self.active = False
        self.in_child = False
        self._pieces: deque[tuple[int, str]] = deque()
        self._backlog = 0
        self._displayed: list[dict[str, Any]] = []
        self._on_output = on_output
        self._originals = tuple(originals)
        self.streams = tuple(TaskStream(self, number, original) for number, original in enumerate(originals))

    def __repr__(self) -> str:
        return f"<Capture {'on' if self.active else 'off'}, {len(self._pieces)} pieces wait>"

    def __bool__(self) -> bool:
        """Say whether the end of a task has anything to see to here."""
        return bool(self._pieces) or self.in_child or bool(self._displayed)

    @property
    def crowded(self) -> bool:
        """Whether so much text waits that it should be sent at once."""
        return self._backlog > BACKLOG // 2

    def write(self, number: int, text: str) -> None:
        """Add text of stream ``number``: to the running task if there is one, else to the original stream."""
        if not self.active:
            self.write_original(number, text)
            return
        first = not self._pieces
        self._pieces.append((number, text))
        self._backlog += len(text)
        if first or self._backlog > BACKLOG // 2:
            self._on_output()
        while self._backlog > BACKLOG and self.active:
            time.sleep(0.001)

    def write_original(self, number: int, text: str) -> None:
        """Write past the capture, to where the engine's log goes."""
        original = self._originals[number]
        if original is not None:
            original.write(text)
            original.flush()

    def take(self) -> list[tuple[str, str]]:
        """Remove what waits; return it as (stream, text) in order of printing, no text longer than `PIECE`."""
        taken = [self._pieces.popleft() for _ in range(len(self._pieces))]
        self._backlog = 0
        return list(_joined(taken))

    def display(self, output: dict[str, Any]) -> None:
        """Keep what the running task displays, laid out as in a notebook; log its text if there is no task."""
        if self.active:
            self._displayed.append(output)
        else:
            self.write_original(0, output["data"].get("text/plain", "") + "\n")

    def clear_displayed(self) -> None:
        """Forget what the running task has displayed so far."""
        self._displayed.clear()

    def take_displayed(self) -> list[dict[str, Any]]:
        """Remove what was displayed, and return it."""
        taken, self._displayed = self._displayed, []
        return taken

    def forked(self) -> None:
        """Let go in a forked child: it is no engine, and what the parent's task printed is not its own."""
        self.active = False
        self.in_child = True
        self._pieces.clear()
        self._displayed.clear()


def _joined(pieces: Iterable[tuple[int, str]]) -> Iterable[tuple[str, str]]:
    number, texts = -1, list[str]()
    for its_number, text in (*pieces, (-1, "")):
        if its_number != number:
            whole = "".join(texts)
            if not whole.isascii():  # lone surrogates cannot travel
                whole = whole.encode("utf-8", "backslashreplace").decode()
            for start in range(0, len(whole), PIECE):
                yield STREAMS[number], whole[start : start + PIECE]
            number, texts = its_number, []
        texts.append(text)


class TaskStream(io.TextIOBase):
    """What sys.stdout or sys.stderr is in an engine."""

    def __init__(self, capture: Capture, number: int, original: TextIO | None) -> None:
        super().__init__()
        self._capture = capture
        self._number = number
        self._original = original
        self._binary: _BinaryStream | None = None

    def __repr__(self) -> str:
        return f"<TaskStream {STREAMS[self._number]}>"

    def write(self, text: str, /) -> int:
        """Add text to the output of the running task."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if text:
            self._capture.write(self._number, text)
        return len(text)

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Return False: nobody sits there."""
        return False

    def fileno(self) -> int:
        """Return the descriptor of the original stream, for subprocesses; what is written there goes to the log."""
        if self._original is None:
            raise io.UnsupportedOperation("fileno: the engine has no such stream")
        return self._original.fileno()

    def close(self) -> None:
        """Do nothing: the next task needs it."""

    def reconfigure(self, **_options: Any) -> None:
        """Accept what scripts ask of a terminal; text travels as UTF-8 whatever they ask."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding that `buffer` decodes."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """What happens to text that UTF-8 cannot encode."""
        return "backslashreplace"

    @property
    def line_buffering(self) -> bool:
        """Return True, as for a terminal."""
        return True

    @property
    def name(self) -> str:
        """The stream's name, as that of the original."""
        return f"<{STREAMS[self._number]}>"

    @property
    def buffer(self) -> "_BinaryStream":
        """A binary stream whose bytes, taken as UTF-8, join the text."""
        if self._binary is None:
            self._binary = _BinaryStream(self)
        return self._binary


class _BinaryStream(io.BufferedIOBase):
    def __init__(self, text: TaskStream) -> None:
        super().__init__()
        self._text = text

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        self._text.write(bytes(view).decode("utf-8", "backslashreplace"))
        return view.nbytes

    def fileno(self) -> int:
        return self._text.fileno()

    def close(self) -> None:
        """Do nothing, as the text stream."""
