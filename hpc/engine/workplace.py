"""What the runners of calls and of spans share."""

from collections.abc import Callable
from dataclasses import dataclass

from hpc.engine.capture import Capture
from hpc.engine.functions import Held
from hpc.engine.interrupts import Interrupts
from hpc.engine.ledger import Ledger
from hpc.engine.namespace import Namespace
from hpc.engine.results import pack_error, split_text
from hpc.wire.messages import Entry, Status


@dataclass(slots=True)
class Workplace:
    """What running tasks needs. ``flush`` sends what the ledger holds, ``wake`` has the control thread set its timer."""

    ledger: Ledger
    capture: Capture
    interrupts: Interrupts
    namespace: Namespace
    flush: Callable[[], None]
    wake: Callable[[], None]

    def failure(self, error: BaseException, function: Held, started: float, ended: float) -> Entry:
        """Return the entry of a task that raised."""
        return Entry(Status.FAILED, started, ended, pack_error(error, function.explain(error)))

    def add_output(self, first: Entry, last: Entry) -> None:
        """Give what was printed to the entries of a task, or of the slice of a span: pieces sent, text that was not."""
        with self.ledger.lock:
            pieces = self.capture.take()
            first.n_outputs, self.ledger.streamed = self.ledger.streamed, 0
        last.stdout, last.stderr = split_text(pieces)
