"""Lines about what strangers do, a bounded number at a time: who is refused again and again must not fill a disk."""

import logging
import time
from typing import Final

MAX_LINES: Final = 100
PERIOD_S: Final = 10.0


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
