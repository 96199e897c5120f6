"""What others may do to a log: cause a bounded number of lines, and put no line of their own making into it."""

import logging
import time
from typing import Final

MAX_LINES: Final = 100
PERIOD_S: Final = 10.0


class OneLine(logging.Formatter):
    """Shows what is not printable in what others call themselves as an escape: no line can be forged."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name that logging calls
        """Return the line."""
        text = super().formatMessage(record)
        return text if text.isprintable() else "".join(map(_shown, text))


def _shown(letter: str) -> str:
    return letter if letter.isprintable() else letter.encode("unicode_escape").decode()


class Moderation(logging.Filter):
    """Lets so many records of a logger pass in a period, and the next one after that say how many did not."""

    def __init__(self) -> None:
        super().__init__()
        self._until = 0.0
        self._passed = self._dropped = 0

    def __repr__(self) -> str:
        return f"<Moderation: {self._passed} lines passed, {self._dropped} were dropped>"

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is to be written."""
        now = time.monotonic()
        if now >= self._until:
            dropped = self._dropped
            self._until, self._passed, self._dropped = now + PERIOD_S, 0, 0
            if dropped:
                record.msg = f"{record.getMessage()} (before that, {dropped} more lines like this one)"
                record.args = ()
        self._passed += 1
        if self._passed <= MAX_LINES:
            return True
        self._dropped += 1
        return False
