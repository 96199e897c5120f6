"""The background thread of a client: it receives while nobody waits, sends open bundles, and gets connections back."""

import atexit
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from hpc.client.inbox import HOLD_S
from hpc.client.roster import log
from hpc.client.waiting import jitter
from hpc.errors import ConnectError

if TYPE_CHECKING:
    from hpc.client.link import Link

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0
# How often a connection over TCP is looked after, and how long zmq may try to get it back before it is made anew.
TCP_CHECK_S = 1.0
TCP_DOWN_S = 3.0
# So many transmissions are taken in before the background thread looks at its other duties.
MAX_AT_ONCE = 64
# How often it looks whether a streak of waits is over.
NAP_S = 0.002


class Background:
    """A daemon thread that serves one link until that is over."""

    def __init__(self, link: "Link") -> None:
        self._link = link
        self._down_since = 0.0
        self._thread = threading.Thread(target=self._run, name="hpc-client", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Background of {self._link!r}>"

    def join(self) -> None:
        """Wait until the thread has ended, unless it is the caller."""
        if self._thread is not threading.current_thread():
            self._thread.join(2.0)

    def _run(self) -> None:
        link = self._link
        me = threading.get_ident()
        try:
            while link.fault is None:
                link.watch.wait(self._pause_s())
                link.wake.quiet()
                link.outbox.flush()
                if link.lent:
                    link.reclaim()
                if link.inbox.held:
                    with link.lock:
                        link.inbox.release_old()
                    link.interrupt.ring()
                self._look_after_tcp()
                if link.abandoned and not link.inbox.bundles:
                    link.close()
                    break
                with link.lock:
                    if link.receiver or (link.lent and link.conn is not None and not link.restless()):
                        continue
                    link.receiver = me
                try:
                    self._serve()
                finally:
                    link.receiver = 0
                    link.pass_on()
        except BaseException as error:
            log.exception("the background thread of the client failed")
            link.end(ConnectError(f"the background thread of the client failed: {error!r}"))
            raise
        finally:
            self._clean_up()

    def _pause_s(self) -> float | None:
        """Return after what time there may be something to do that no descriptor tells of."""
        link = self._link
        if link.lent:
            return NAP_S
        if link.inbox.held:
            return HOLD_S
        return TCP_CHECK_S if link.route == "tcp" else None

    def _look_after_tcp(self) -> None:
        """Notice that a connection over TCP is gone: zmq itself would try for ever, at the same address."""
        link, conn = self._link, self._link.conn
        if conn is None or conn.route == "unix" or link.is_up():
            self._down_since = 0.0
            return
        now = time.monotonic()
        self._down_since = self._down_since or now
        if now - self._down_since > TCP_DOWN_S:
            self._down_since = 0.0
            link.doubt(conn)

    def _serve(self) -> None:
        link = self._link
        if link.conn is None and link.fault is None:
            self._reconnect()
        if link.inbox.calls:
            link.inbox.run_calls()
        for _ in range(MAX_AT_ONCE):
            conn = link.conn
            if conn is None or not link.step(conn):
                break

    def _reconnect(self) -> None:
        """Get the connection back; the session is resumed by what then comes in."""
        link = self._link
        began = time.monotonic()
        pause_s = FIRST_PAUSE_S
        while link.fault is None:
            try:
                link.adopt(link.opener(LONGEST_PAUSE_S))
            except ConnectError as error:
                if pause_s == FIRST_PAUSE_S:
                    log.warning("the connection to the controller is lost; trying to get it back: %s", error)
                left_s = began + link.reconnect_s - time.monotonic()
                if left_s <= 0:
                    link.end(
                        ConnectError(
                            f"the connection to the controller was lost and did not come back within"
                            f" {link.reconnect_s:g} s. {error}"
                        )
                    )
                    return
                link.watch.wait(min(left_s, pause_s * jitter()))
                link.wake.quiet()
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                if pause_s > FIRST_PAUSE_S:
                    log.warning("connected to the controller again after %.1f s", time.monotonic() - began)
                return

    def _clean_up(self) -> None:
        link = self._link
        conn = link.conn
        if conn is not None:
            link.drop(conn)


# ---------------------------------------------------------------- processes: exit and fork

_links: "weakref.WeakSet[Link]" = weakref.WeakSet()
_hooked = False
_orphans: list[Any] = []


def remember(link: "Link") -> None:
    """Have a link closed at exit, and cut off in a child that this process forks."""
    global _hooked  # noqa: PLW0603 - the hooks are per process
    _links.add(link)
    if not _hooked:
        _hooked = True
        atexit.register(_close_all)
        os.register_at_fork(after_in_child=_cut_off_all)


def _close_all() -> None:
    for link in list(_links):
        if link.fault is None:
            link.close()


def _cut_off_all() -> None:
    """In a forked child: the connections are the parent's. No byte may go out here."""
    for link in list(_links):
        _links.discard(link)
        _orphans.append(link)  # whatever its destructors would do, they must not do it to the parent's sockets
        link.cut_off()
