"""The option ``--log-level``, the same for every command."""

from collections.abc import Callable
from typing import Any

import click


def log_level(text: str) -> Callable[[Any], Any]:
    """Return the option: what the command logs, and where that goes, is in the text."""
    levels = click.Choice(("debug", "info", "warning", "error"))
    return click.option("--log-level", type=levels, default="info", show_default=True, help=text)
