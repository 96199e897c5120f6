"""What can go wrong, and what to do about it."""

__all__ = ["JobScriptError", "QueryError", "SchedulerError", "SpecError"]


class JobScriptError(Exception):
    """Base of all errors of this package."""


class SpecError(JobScriptError, ValueError):
    """A wish that is unknown, contradicts another, or that a scheduler cannot express.

    Attributes
    ----------
    field : str
        The field of `JobSpec`, or the key of a site's profile, that has to change.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class SchedulerError(JobScriptError):
    """A command of the scheduler failed, or said what nobody understands.

    Attributes
    ----------
    transient : bool
        The scheduler could not be reached, or was too busy: the same command may work later. A submission is never
        repeated by itself, because it may have been accepted.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class QueryError(SchedulerError):
    """The states of jobs cannot be told at the moment. `Runner.poll` survives it; `Runner.trouble` has its text."""
