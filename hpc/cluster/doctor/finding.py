"""What a check has found."""

import enum
from dataclasses import dataclass
from typing import Final


class Verdict(enum.Enum):
    """How a check went; only FAILED keeps a cluster from working."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "FAILED"
    SKIPPED = "skipped"


_NEED_A_REMEDY: Final = (Verdict.WARNING, Verdict.FAILED)


@dataclass(frozen=True)
class Finding:
    """A line of the doctor's report.

    Attributes
    ----------
    check : str
        What was looked at, in a word or two.
    text : str
        What was found, or why nobody looked.
    remedy : str
        What to do about it: never empty where something is wrong.
    """

    check: str
    verdict: Verdict
    text: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.verdict in _NEED_A_REMEDY and not self.remedy:
            raise ValueError(f"{self.check} is {self.verdict.value} ({self.text}), and nobody says what to do about it")


def ok(check: str, text: str) -> Finding:
    """Say that all is well."""
    return Finding(check, Verdict.OK, text)


def warning(check: str, text: str, remedy: str) -> Finding:
    """Say that it works, but not as well as it could, or not with everything."""
    return Finding(check, Verdict.WARNING, text, remedy)


def failed(check: str, text: str, remedy: str) -> Finding:
    """Say that it will not work."""
    return Finding(check, Verdict.FAILED, text, remedy)


def skipped(check: str, text: str) -> Finding:
    """Say that there was nothing to look at, or that it was not wanted."""
    return Finding(check, Verdict.SKIPPED, text)
