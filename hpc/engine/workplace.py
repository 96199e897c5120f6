"""What the runners of calls and of spans share."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from hpc.engine.capture import Capture
from hpc.engine.functions import Held
from hpc.engine.interrupts import Interrupts
from hpc.engine.ledger import Ledger
from hpc.engine.namespace import Namespace
from hpc.engine.results import own, pack_error, split_text
from hpc.errors import TaskTimeout
from hpc.wire.messages import Entry, Status

# How many tasks that fail for one and the same reason get its traceback: there may be a million of them.
MAX_TRACEBACKS: Final = 8


@dataclass(slots=True)
class Workplace:
    """What running tasks needs. ``flush`` sends what the ledger holds, ``wake`` sets the control thread's timer.

    ``ship`` takes the large buffers of a result, and the route that was asked for, and returns frames that no later
    task can change.
    """

    ledger: Ledger
    capture: Capture
    interrupts: Interrupts
    namespace: Namespace
    flush: Callable[[], None]
    wake: Callable[[], None]
    ship: Callable[[list[Any], str], list[Any]] = lambda buffers, _: own(buffers)

    def failure(self, error: BaseException, function: Held | None, started: float, ended: float) -> Entry:
        """Return the entry of a task that raised."""
        if self.interrupts.expired:
            self.interrupts.expired = False
            if isinstance(error, KeyboardInterrupt):
                text = f"ran longer than {self.ledger.limit_s:g} s (run_timeout) on {self.namespace.identity}"
                error = TaskTimeout(text).with_traceback(error.__traceback__)
        note = "" if function is None else function.explain(error)
        return Entry(Status.FAILED, started, ended, pack_error(error, note))

    def fail_rest(self, error: BaseException, function: Held | None = None) -> None:
        """End everything that is left of the run with one error."""
        now, n = time.time(), 0
        entry = self.failure(error, function, now, now)
        while (offset := self.ledger.claim()) >= 0:
            n += 1
            if n == MAX_TRACEBACKS:
                entry = Entry(Status.FAILED, now, now, pack_error(error.with_traceback(None)))
            self.ledger.hold_entry(offset, entry, None)
            if n % 1024 == 0:
                self.flush()

    def add_output(self, first: Entry, last: Entry) -> None:
        """Give what was printed to the entries of a task, or of the slice of a span: pieces sent, text that was not."""
        if self.capture.in_child:
            # User code forked, and the child comes out of the task: it must not go on as a second engine.
            os._exit(last.status)
        with self.ledger.lock:
            pieces = self.capture.take()
            first.n_outputs, self.ledger.streamed = self.ledger.streamed, 0
        last.stdout, last.stderr = split_text(pieces)
