"""Schedulers that are not installed, programs on PATH that replay what real ones once said, and a time of their own."""

import json
import os
from pathlib import Path
from typing import Any

from jobscripts import Output

FAKE_PROGRAMS = Path(__file__).parent.parent / "fakes" / "bin"


class Fakes:
    """What the programs of a scheduler will answer, and how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = os.environ | {
            "PATH": f"{FAKE_PROGRAMS}{os.pathsep}{os.environ['PATH']}",
            "FAKE_SCHEDULER": str(folder),
        }

    def __repr__(self) -> str:
        return f"<Fakes {self.folder}: {len(self.calls())} calls>"

    def answer(self, program: str, *outputs: Output) -> None:
        """Lay down answers; the last is given from then on."""
        for old in self.folder.glob(f"{program}.*.json"):
            old.unlink()
        for number, output in enumerate(outputs):
            (self.folder / f"{program}.{number}.json").write_text(json.dumps(output))

    def calls(self, *programs: str) -> list[list[str]]:
        """Return the command lines so far, of these programs or of all."""
        path = self.folder / "calls"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if not programs or line[0] in programs]


class Clock:
    """A time that passes only by waiting."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def write_ending(path: Path, **fields: Any) -> None:
    ending = {"code": 0, "started": 100, "ended": 200, "host": "n1", "reason": "", "job": "1"} | fields
    path.write_text("".join(f"{name}={value}\n" for name, value in ending.items()))
