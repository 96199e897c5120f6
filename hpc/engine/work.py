"""Running the calls of a bundle: bodies to calls, calls to entries."""

import time
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from hpc.dataplane.arrival import route_of
from hpc.engine.capture import STREAMS
from hpc.engine.functions import Held
from hpc.engine.results import pack_value
from hpc.engine.span import SpanRunner
from hpc.engine.workplace import Workplace
from hpc.errors import ProtocolError
from hpc.wire import codec, objects
from hpc.wire.messages import Entry, Kind, Run, Status
from hpc.wire.objects import Reference
from hpc.wire.session import Frame

_DONE: Final = Status.DONE


class Runner:
    """Runs bundles in the main thread.

    User code runs only where ``interrupts.in_task`` is set, which is only inside a ``try`` that takes every exception:
    a KeyboardInterrupt has nowhere else to appear. CPython looks for signals after calls and at backward jumps, so none
    is handled between the start of an ``except`` clause and the assignment that stands first in it.
    """

    def __init__(self, place: Workplace) -> None:
        self._place = place
        self._spans = SpanRunner(place)

    def __repr__(self) -> str:
        return f"<Runner {self._place.ledger!r}>"

    def run(self, run: Run, held: list[Held], body: Sequence[Frame]) -> None:
        """Run what is left of a bundle's part; its last results stay in the ledger."""
        ledger, capture = self._place.ledger, self._place.capture
        if not ledger.begin(run):
            return
        capture.active = True
        try:
            if not held:
                raise ProtocolError("a bundle names no function")
            if run.kind == Kind.SPAN:
                self._spans.run(run, held[0], body)
            else:
                self._run_calls(run, held, body)
        except ProtocolError as error:
            self._place.fail_rest(error)
        finally:
            capture.active = False
            ledger.finish()
        if self._place.lookout.is_fresh:
            self._place.lookout.release()
        if capture:
            for stream, text in capture.take():  # of a thread that outlived its task
                capture.write_original(STREAMS.index(stream), text)

    # ------------------------------------------------------------ CALLS and EACH

    def _run_calls(self, run: Run, held: list[Held], body: Sequence[Frame]) -> None:
        place, now = self._place, time.time
        ledger, interrupts, capture, resolve = place.ledger, place.interrupts, place.capture, place.namespace.resolve
        calls = codec.decode_calls(body[0])
        positions = call_positions(calls) if len(body) > 1 else None
        each = run.kind == Kind.EACH
        if not calls or (not each and run.stop > len(calls)):
            raise ProtocolError(f"a bundle of {len(calls)} calls cannot hold tasks up to {run.stop}")
        brought = take_values(calls, body)
        route = route_of([frame for frames in brought for frame in frames[1:]]) if brought else ""
        offset, function = ledger.claim(), held[0]
        started = ledger.running_since = now()
        while offset >= 0:
            index = 0 if each else offset
            which, n_buffers, payload = calls[index]
            try:
                function = held[which]
                interrupts.in_task = not function.together
                frames: list[Frame] = [payload]
                if n_buffers and positions:
                    frames += body[positions[index] : positions[index] + n_buffers]
                if brought:
                    place.namespace.bring(brought)
                args, kwargs = objects.loads(frames)
                if args:
                    for argument in args:
                        if type(argument) is Reference:
                            args = tuple(map(resolve, args))
                            break
                if kwargs:
                    kwargs = {name: resolve(value) for name, value in kwargs.items()}
                if function.binds:
                    function.prepare()
                value = function.call(*args, **kwargs)
                packed, buffers = pack_value(value)
                interrupts.in_task = False
            except BaseException as error:
                interrupts.in_task = False
                entry = place.failure(error, function, started, now())
                buffers = []
                ended = entry.completed
            else:
                ended = now()
                entry = Entry(_DONE, started, ended, packed, route=route)
                if buffers or n_buffers:
                    args = kwargs = value = frames = None  # type: ignore[assignment]  # large: not to outlive the task
                if buffers:
                    buffers = place.ship(buffers, run.route)
                    entry.n_buffers = len(buffers)
            if capture or ledger.streamed:
                place.add_output(entry, entry)
            offset = ledger.step(offset, entry, buffers)
            started = ledger.running_since = ended
            if offset >= 0:
                if not 0 <= ended - ledger.held_since < ledger.hold_s:
                    place.flush()
                    started = ledger.running_since = now()
                elif not ledger.armed:
                    place.wake()
        if brought:
            place.namespace.forget()


def take_values(calls: list[tuple[int, int, bytes]], body: Sequence[Frame]) -> list[list[Frame]]:
    """Remove from the end of the calls what is none: values from other engines; return the frames of each."""
    values: list[list[Frame]] = []
    end = len(body)
    while calls and calls[-1][0] < 0:
        _, n_buffers, payload = calls.pop()
        values.append([payload, *body[end - n_buffers : end]])
        end -= n_buffers
    return values


def call_positions(calls: list[tuple[int, int, bytes]]) -> list[int]:
    """Return at which frame of the body each call's buffers start."""
    return list(accumulate((n_buffers for _, n_buffers, _ in calls), initial=1))
