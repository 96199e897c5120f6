"""The process that a controller is: its signals, its garbage collector, its limit of open files."""

import gc
import logging
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hpc.security.memory import close_to_others, no_core_file

log = logging.getLogger("hpc.controller")


@contextmanager
def own_process(stop: Callable[[str], None]) -> Iterator[socket.socket | None]:
    """Take over signals, collector and memory of the process; yield a socket that is readable after a signal.

    ``stop`` is called, from the signal handler, with the reason why the process is to end. In a thread other than the
    main one, as in tests, take over neither.
    """
    if threading.current_thread() is not threading.main_thread():
        yield None
        return
    no_core_file()
    close_to_others()
    # What is there now stays: the collector need not look at it again, nor touch the pages shared with the parent.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)

    def on_signal(signum: int, _: object) -> None:
        stop(f"stopped by {signal.Signals(signum).name}")

    # Waiting goes on after a signal (PEP 475): a byte in the socket ends it.
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    # Started with nohup, it is to outlive its terminal.
    hang_up = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else []
    old = {signum: signal.signal(signum, on_signal) for signum in (signal.SIGTERM, signal.SIGINT, *hang_up)}
    old_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(old_fd)
        for signum, handler in old.items():
            signal.signal(signum, handler)
        reader.close()
        writer.close()


def raise_file_limit() -> None:
    """Allow as many connections as the system permits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError) as error:
            # macOS says "unlimited" and means a number.
            log.debug("the limit of open files stays at %d: %s", soft, error)
