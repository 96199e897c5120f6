"""What is special about some tasks: a condition to be met where they run, and how long each may take."""

import time
from collections.abc import Sequence
from typing import Any, NoReturn

from hpc.engine.functions import Held
from hpc.engine.interrupts import Interrupts
from hpc.engine.work import Runner
from hpc.engine.workplace import Workplace
from hpc.errors import DependencyError
from hpc.wire.messages import Declined, Run
from hpc.wire.session import Frame


def needed(run: Run) -> list[bytes]:
    """Return the digests of the functions that a run needs; its condition comes last."""
    if run.terms is None or not run.terms.condition:
        return run.functions
    return [*run.functions, run.terms.condition]


def run_on_terms(runner: Runner, place: Workplace, run: Run, held: list[Held], body: Sequence[Frame]) -> list[Declined]:
    """Run tasks if their condition is met; return what is to be said if it is not. For the main thread."""
    if run.terms is None:
        runner.run(run, held, body)
        return []
    ledger = place.ledger
    if run.terms.condition:
        name = held[0].name
        answer = _ask(place.interrupts, held.pop())
        if isinstance(answer, str):
            return [Declined(run.client, run.first, *part, answer) for part in ledger.decline(run)]
        if answer is not None:
            held = [_failing(name, answer)] * len(held)
    if run.terms.limit_s:
        ledger.running_since, ledger.limit_s = time.time(), run.terms.limit_s
        place.wake()
    try:
        runner.run(run, held, body)
    finally:
        ledger.limit_s = 0.0
    return []


def _ask(interrupts: Interrupts, condition: Held) -> str | BaseException | None:
    """Return None if the condition is met, why it is not, or what asking has raised."""
    try:
        interrupts.in_task = True
        condition.prepare()
        met = condition.call()
        interrupts.in_task = False
    except DependencyError as unmet:
        interrupts.in_task = False
        return str(unmet)
    except BaseException as error:
        interrupts.in_task = False
        return error
    return "" if met is False else None


def _failing(name: str, error: BaseException) -> Held:
    traceback = error.__traceback__

    def fail(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise error.with_traceback(traceback)

    return Held(name, fail)
