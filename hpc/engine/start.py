"""An engine from its start to its end."""

import getpass
import importlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hpc import __version__
from hpc.engine import current, hooks
from hpc.engine.about import engine_info
from hpc.engine.capture import Capture
from hpc.engine.channel import Channel
from hpc.engine.collective import GroupWork
from hpc.engine.control import FETCH_S, Control
from hpc.engine.departure import Departure
from hpc.engine.dialer import Dialer
from hpc.engine.interrupts import Bell, Interrupts, Leave
from hpc.engine.ledger import Ledger
from hpc.engine.loop import Loop
from hpc.engine.namespace import Namespace
from hpc.engine.resources import labels_of, resources_of
from hpc.engine.sharing import Sharing
from hpc.engine.walltime import Allocation, find_allocation
from hpc.engine.workplace import Workplace
from hpc.errors import ConnectError, HpcError
from hpc.security.host import hostname
from hpc.security.memory import no_core_file
from hpc.security.peek import prepare
from hpc.transport.parcels import Parcels
from hpc.wire.codec import PROTOCOL
from hpc.wire.messages import EndReason, Hello, Notice

DEFAULT_PORT: Final = 10000
# Long enough for a scheduler that starts the controller after its engines, short against a night.
WAIT_S: Final = 600.0
# A controller that is restarted is back within seconds.
LEASE_S: Final = 60.0
# After this long without a controller it is time to say what is being waited for, and again each time as much later.
SILENT_S: Final = 3.0
FINALIZE_S: Final = 10.0
ABORT_S: Final = 0.05

log = logging.getLogger("hpc.engine")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How to start an engine.

    Attributes
    ----------
    name : str, optional
        The cluster; by default the newest that lives.
    controller_ip, controller_port : str and int, optional
        Where its controller listens; each has a default once the other one is given.
    connection_file : path, optional
        Instead of all these.
    mpi : bool, optional
        Whether to take part in MPI; by default if an MPI launcher started the process.
    label : str
        What whoever starts the group calls it.
    replaces : str
        The group whose ids this one is to have.
    resources : tuple of str
        What tasks may ask it for: ``gpu=2``.
    labels : str
        Names of kinds of engines that it is one of, separated by commas.
    wait_s : float
        How long to wait for a controller at the start.
    lease_s : float
        How long to go on without one later.
    log_level : str
        ``debug``, ``info``, ``warning`` or ``error``; the log goes to standard error.
    """

    name: str | None = None
    controller_ip: str | None = None
    controller_port: int | None = None
    connection_file: str | Path | None = None
    mpi: bool | None = None
    label: str = ""
    replaces: str = ""
    resources: tuple[str, ...] = ()
    labels: str = ""
    wait_s: float = WAIT_S
    lease_s: float = LEASE_S
    log_level: str = "info"

    @property
    def address(self) -> tuple[str, int] | None:
        """Where the controller was said to be."""
        if self.controller_ip is None and self.controller_port is None:
            return None
        return self.controller_ip or "127.0.0.1", self.controller_port or DEFAULT_PORT


def preload() -> None:
    """Import everything that an engine imports, so that forked children need not."""
    for name in ("linecache", "traceback", "hpc.transport.unix", "hpc.wire.functions"):
        importlib.import_module(name)


def run_engine(options: EngineOptions) -> int:
    """Be an engine until told to stop; return the exit status. For the main thread, in a forked child too.

    It takes over SIGINT, SIGTERM, sys.stdout, sys.stderr and ``sys.modules["__main__"]``, and gives back all but that.
    """
    _log_to_stderr(options.log_level)
    no_core_file()
    membership = None
    try:
        membership = _join_mpi(options.mpi)
        return _serve(options, membership)
    except HpcError as error:
        log.error("%s", error)
        return 1
    except Exception:
        log.exception("the engine fails: please report this")
        return 70  # EX_SOFTWARE of sysexits.h
    finally:
        if membership is not None:
            from hpc.mpi import group

            group.leave(membership, FINALIZE_S)


def _join_mpi(wanted: bool | None) -> Any:
    if wanted is False:
        return None
    from hpc.mpi import launch

    found = launch.detect()
    if found is None and not wanted:
        return None
    from hpc.mpi import group

    return group.join(found)


def _serve(options: EngineOptions, membership: Any) -> int:
    identity = current.Identity()
    prepare()
    if membership is not None:
        identity.rank, identity.size, identity.comm = membership.rank, membership.size, membership.comm
    bell = Bell()
    ledger, interrupts, namespace = Ledger(), Interrupts(log.warning), Namespace(identity)
    interrupts.on_leave = bell.ring
    interrupts.since = lambda: ledger.running_since
    collectives = _add_group_work(namespace, interrupts, membership)

    def wake() -> None:
        ledger.armed = True
        bell.ring()

    def printed() -> None:
        if not (ledger.armed or ledger.listening) or capture.crowded:
            wake()

    capture = Capture((sys.stdout, sys.stderr), printed)
    place = Workplace(ledger, capture, interrupts, namespace, flush=lambda: None, wake=wake, collectives=collectives)
    allocation = _allocation(membership)
    departure = Departure(allocation)
    hello = _hello(membership, options, allocation)
    dialer = Dialer(options.name, options.address, options.connection_file)
    parcels = Parcels()
    work, control = Channel(hello("work"), dialer, parcels), Channel(hello("control"), dialer, parcels)
    if membership is not None:
        from hpc.mpi.worldcomm import world_comm_class

        world_comm_class().before_abort = staticmethod(lambda: _tell_of_abort(work))
    loop = Loop(work, place, identity, options.lease_s)
    helper = Control(control, work, place, bell, departure=departure, lease_s=options.lease_s)
    current.engine, current.departure = identity, departure
    os.register_at_fork(before=interrupts.before_fork, after_in_parent=interrupts.after_fork)
    for forked in (capture.forked, ledger.forked, interrupts.forked):
        os.register_at_fork(after_in_child=forked)
    with _taken_over(bell, interrupts, capture, namespace), loop.shell.offered():
        farewell_said = False
        try:
            _first_connection(work, interrupts, options.wait_s)
            helper.start()
            loop.run()
        except Leave as leave:
            interrupts.leaving = interrupts.leaving or str(leave)
            if departure.given:
                loop.say_goodbye(departure.goodbye("", hooks.run_hooks()))
                farewell_said = True
        finally:
            interrupts.leaving = interrupts.leaving or "an error in the engine"
            if helper.ident is not None:
                helper.release(1.0 + FETCH_S, farewell_said)
            work.drop()
    if helper.refusal is not None:
        raise helper.refusal
    return 0


def _tell_of_abort(work: Channel) -> None:
    """Let the controller know that user code calls MPI_Abort, for nothing can be said afterwards."""
    if work.lock.acquire(timeout=ABORT_S):  # the thread of the task has it only where no user code runs
        try:
            work.send(Notice(EndReason.MPI_ABORT))
        finally:
            work.lock.release()
    time.sleep(ABORT_S)  # for a message by TCP to leave the process


def _allocation(membership: Any) -> Allocation:
    allocation = find_allocation(os.environ, time.time())
    if allocation.trouble:
        log.warning("%s", allocation.trouble)
    if membership is not None:
        # An mpirun need not pass its environment on to other hosts; rank 0 is where the job script runs.
        allocation = membership.runtime_comm.bcast(allocation, 0)
    return allocation


def _add_group_work(namespace: Namespace, interrupts: Interrupts, membership: Any) -> Any:
    collectives = None
    if membership is not None:
        from hpc.mpi.collectives import Collectives

        collectives = Collectives(membership.runtime_comm, lambda: interrupts.leaving)
    for work in (GroupWork(namespace, collectives), Sharing(namespace, collectives)):
        namespace.builtins = {**namespace.builtins, **work.builtins}
    return collectives


def _hello(membership: Any, options: EngineOptions, allocation: Allocation) -> Any:
    uuid = os.urandom(16).hex()
    info = engine_info(uuid, membership, options.label, allocation, replaces=options.replaces)
    try:
        info.resources = resources_of(os.environ, options.resources)
    except ValueError as error:
        raise HpcError(str(error)) from None
    info.labels = labels_of(os.environ, options.labels)

    def hello(channel: str) -> Hello:
        return Hello(PROTOCOL, __version__, "engine", uuid, channel, 0, info.host, info.pid, getpass.getuser(), info)

    return hello


@contextmanager
def _taken_over(bell: Bell, interrupts: Interrupts, capture: Capture, namespace: Namespace) -> Iterator[None]:
    streams = sys.stdout, sys.stderr
    namespace.install()
    restore_signals = interrupts.install(bell.write_fd)
    sys.stdout, sys.stderr = capture.streams
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
        restore_signals()
        bell.close()


def _first_connection(channel: Channel, interrupts: Interrupts, wait_s: float) -> None:
    """Connect, whichever of controller and engine was started first."""
    started, said = time.monotonic(), 0.0
    interrupts.waiting = True
    try:
        while True:
            try:
                channel.dial()
            except ConnectError as error:
                waited = time.monotonic() - started
                if waited >= wait_s:
                    raise ConnectError(f"no controller within {wait_s:g} s. The last attempt: {error}") from None
                if waited > max(SILENT_S, 2 * said):
                    said = waited
                    log.warning("waiting for a controller: %s", error)
            else:
                return
            time.sleep(min(channel.delay_s(), max(0.0, wait_s - waited)))
    finally:
        interrupts.waiting = False


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter(f"%(asctime)s ipengine on {hostname()} [{os.getpid()}] %(levelname)s: %(message)s")
    )
    log.handlers[:] = [handler]
    log.setLevel(level.upper())
    log.propagate = False
