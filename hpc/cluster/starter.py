"""Start a supervisor from any process, and listen to it."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from hpc.cluster.options import DETACH, ClusterOptions, Event, check
from hpc.errors import HpcError


class StartError(HpcError):
    """A cluster could not be started; the message carries the last lines of its logs."""


class Starter:
    """A supervisor as its starter sees it: a process, and the events that it reports.

    The supervisor, in a session of its own, hears no Ctrl-C of this terminal. It ends the cluster when this process
    ends, however that happens, unless it was told to `detach`.
    """

    def __init__(self, options: ClusterOptions) -> None:
        check(options)
        self.options = options
        self.name = options.name
        self.logs = ""
        self.ready: Event | None = None
        self.ended: Event | None = None
        self._events: list[Event] = []
        self._rest = b""
        # Its stderr until it has a log of its own: then only what keeps Python from starting is to be found here.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this object
        command = [sys.executable, "-m", "hpc.cluster", *([options.name] if options.name else [])]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,
            bufsize=0,
        )
        assert self.process.stdin is not None  # noqa: S101 - as asked for above
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(options.to_json())

    def __repr__(self) -> str:
        state = "ended" if self.ended else "ready" if self.ready else "starting"
        return f"<Starter of {self.name or '(unnamed)'}, supervisor {self.process.pid}, {state}>"

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when the supervisor has something to say."""
        assert self.process.stdout is not None  # noqa: S101
        return self.process.stdout.fileno()

    def receive(self) -> list[Event]:
        """Return the events that have come, waiting for one if there is none; [] after the last one."""
        while not self._events and self.ended is None:
            piece = os.read(self.fileno(), 65536)
            *lines, self._rest = (self._rest + piece).split(b"\n")
            self._events += [self._note(Event.from_json(line)) for line in lines]
            if not piece and self.ended is None:
                self._events.append(self._note(self._unreported_end()))
        events, self._events = self._events, []
        return events

    def events(self, timeout_s: float | None = None) -> Iterator[Event]:
        """Yield events as they come; stop after the last one, or once nothing came for ``timeout_s``."""
        while self._events or (self.ended is None and select.select([self], [], [], timeout_s)[0]):
            self._events = self.receive()
            while self._events:
                yield self._events.pop(0)

    def wait_ready(self, show: Callable[[Event], None] | None = None) -> Event:
        """Wait until all engines are registered, showing each event; return the one that says so.

        Raises
        ------
        StartError
            The cluster has ended instead.
        """
        for event in self.events():
            if show is not None:
                show(event)
            if event.kind == "ready":
                return event
        assert self.ended is not None  # noqa: S101 - or the iteration would go on
        raise StartError(describe(self.ended))

    def stop(self, timeout_s: float = 15.0) -> Event:
        """End the cluster, wait until nothing is left of it, and return the event that says how that went."""
        if self.ended is None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        for _ in self.events(timeout_s):
            if time.monotonic() > deadline:
                break
        if self.ended is None:
            self.process.kill()
            self._note(
                Event("ended", f"its supervisor did not end within {timeout_s:g} s", failed=True, logs=self.logs)
            )
        self.close()
        assert self.ended is not None  # noqa: S101
        return self.ended

    def interrupt(self) -> None:
        """Ask the supervisor, by signal, to end the cluster; asked twice, it ends it without grace."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def notice(self) -> None:
        """Let the engines know that the walltime of the job that all this runs in is about to end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGUSR1)

    def detach(self) -> None:
        """Leave the cluster to itself: it goes on when this process ends."""
        assert self.process.stdin is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(DETACH)
        self.close()

    def close(self) -> None:
        """Stop listening; this ends the cluster, unless it was detached."""
        for stream in (self.process.stdin, self.process.stdout, self._stderr):
            if stream is not None:
                stream.close()
        if self.ended is not None:
            self.process.wait()
        else:
            # It is no child to wait for any more: it outlives this process.
            self.process.returncode = 0

    def _note(self, event: Event) -> Event:
        if event.kind == "claimed":
            self.name, self.logs = event.name, event.logs
        elif event.kind == "ready":
            self.ready = event
        elif event.kind == "ended":
            self.ended = event
        return event

    def _unreported_end(self) -> Event:
        """Describe the end of a supervisor that could not do it itself."""
        code = self.process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        if not lines and self.logs:
            from hpc.cluster.processes import tail

            lines = list(tail(os.path.join(self.logs, "supervisor.log")))
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        text = f"its supervisor (pid {self.process.pid}) has ended: {how}"
        return Event("ended", text, failed=True, logs=self.logs, tail=tuple(lines[-20:]))


def describe(ended: Event) -> str:
    """Say how a cluster ended: the reason, the last lines of the log that tells, and where the logs are."""
    lines = [ended.text, *(f"    {line}" for line in ended.tail)]
    if ended.logs:
        lines.append(f"logs: {ended.logs}")
    return "\n".join(lines)
