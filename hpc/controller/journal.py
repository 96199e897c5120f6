"""What the controller logs: one line for each thing that happened, and no secrets."""

import logging
import os
import sys

from hpc.controller.contacts import Contact, software
from hpc.controller.files import Files
from hpc.controller.membership import describe_end
from hpc.controller.moderation import Moderation, OneLine
from hpc.controller.options import ControllerOptions
from hpc.errors import ranges
from hpc.security.host import hostname
from hpc.wire import messages as m

log = logging.getLogger("hpc.controller")
# What others can cause as often as they like.
_caused = log.getChild("peers")

_IN_ORDER = (m.EndReason.GOODBYE, m.EndReason.SHUTDOWN, m.EndReason.WALLTIME, m.EndReason.PREEMPTED)


def set_up_log(options: ControllerOptions) -> None:
    """Log to the file that the options name, else to standard error."""
    handler = logging.FileHandler(options.log_file) if options.log_file else logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        OneLine(f"%(asctime)s ipcontroller on {hostname()} [{os.getpid()}] %(levelname)s: %(message)s")
    )
    for old in log.handlers:
        old.close()
    log.handlers[:] = [handler]
    log.setLevel(options.log_level.upper())
    log.propagate = False
    _caused.filters[:] = [Moderation()]


class Journal:
    """Writes the lines. Knows which engines it has named, to tell newcomers from those that are back."""

    def __init__(self) -> None:
        self._known: set[int] = set()

    def __repr__(self) -> str:
        return f"<Journal of {len(self._known)} engines>"

    def started(self, files: Files) -> None:
        """Say where the controller listens."""
        log.info(
            "hpc %s, cluster %r: listening at %s and %s; connection files are in %s",
            software(),
            files.options.name,
            " ".join(files.addresses),
            files.unix,
            files.directory,
        )

    def leaving(self, reason: str) -> None:
        """Say why the controller ends."""
        log.info("ending: %s", reason)

    def engines(self, message: m.Engines) -> None:
        """Name the engines that came, went out of reach, or are back."""
        new = []
        for row in message.joined:
            if row.id not in self._known:
                new.append(row)
            elif row.state == "unreachable":
                log.warning("engine %d (rank %d, pid %d on %s) is unreachable", row.id, row.rank, row.pid, row.host)
            elif row.state == "leaving":
                log.info("engine %d (rank %d, pid %d on %s) gets no more work", row.id, row.rank, row.pid, row.host)
            else:
                log.info("engine %d (rank %d, pid %d on %s) is back", row.id, row.rank, row.pid, row.host)
        if len(new) == 1:
            row = new[0]
            log.info("engine %d has joined: pid %d on %s", row.id, row.pid, row.host)
        elif new:
            hosts = " ".join(dict.fromkeys(row.host for row in new))
            log.info("engines %s have joined: group %s on %s", ranges([row.id for row in new]), new[0].group, hosts)
        self._known.update(row.id for row in new)

    def lost(self, end: m.End) -> None:
        """Say how an engine ended."""
        self._known.discard(end.id)
        log.log(logging.INFO if end.reason in _IN_ORDER else logging.WARNING, "%s", describe_end(end))

    def client(self, contact: Contact) -> None:
        """Name a client or monitor that has come."""
        log.debug("%s has come", contact)

    def client_gone(self, contact: Contact, reason: str) -> None:
        """Say that a client or monitor will not be back."""
        log.debug("%s has gone: %s", contact, reason)

    def group(self, group: m.Group) -> None:
        """Say what the launcher reports of a launch."""
        if group.error:
            log.error("%d engines of %s: %s", group.n, group.group, group.error)
        else:
            log.info("%d engines of %s were started", group.n, group.group)

    def keys(self, contact: Contact, what: str, role: str, name: str) -> None:
        """Say who has changed which key; never the key itself."""
        log.info("keys: %s %s %s, for %s", what, role, name, contact)

    def refused(self, who: str, why: str) -> None:
        """Say who was refused, and why."""
        _caused.warning("refused %s: %s", who, why)

    def gap(self, contact: object, what: str) -> None:
        """Say that a peer was asked to resume its session."""
        _caused.info("asking %s to send again: %s", contact, what)

    def mistake(self, where: str) -> None:
        """Write the traceback of an error in the controller itself."""
        _caused.exception("an error in hpc, please report it; going on after what %s said", where)

    def noise(self, detail: str) -> None:
        """Pass on what the transport says of somebody who is no peer."""
        _caused.warning("%s", detail)
