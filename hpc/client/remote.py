"""`RemoteController`: a person's handle on a cluster."""

import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hpc.client.asyncresult import AsyncResult
from hpc.client.balanced import LoadBalancedView
from hpc.client.connecting import Address, Target, new_peer
from hpc.client.group import Group
from hpc.client.link import Link
from hpc.client.outcome import lost_engine
from hpc.client.parts import Layout
from hpc.client.roster import describe_end
from hpc.client.view import DirectView
from hpc.client.waitengines import wait_for_engines
from hpc.errors import EngineLost, NoEngines, ranges
from hpc.wire import messages as m

# How long engines may take to leave after they were told to.
SHUTDOWN_S = 10.0


class RemoteController:
    """A cluster, as seen by its client. It connects at first use, not when it is made.

    Indexing gives direct views: ``rc[0]`` of one engine, ``rc[:]``, ``rc[::2]``, ``rc[[1, 3]]`` of several.

    Parameters
    ----------
    address : tuple of (str, int), optional
        Host and port of the controller.
    name : str, optional
        Name of the cluster.
    connection_file : path, optional
        Its client's connection file. Without any of the three: the newest cluster of this user.
    timeout : float
        Seconds to wait for the controller to be there.
    reconnect : float
        Seconds to try to get a lost connection back; after them everything under way ends with `ConnectError`.
    """

    def __init__(
        self,
        address: Address | None = None,
        *,
        name: str | None = None,
        connection_file: str | os.PathLike[str] | None = None,
        timeout: float = 10.0,
        reconnect: float = 30.0,
    ) -> None:
        if sum(way is not None for way in (address, name, connection_file)) > 1:
            raise TypeError("give one of address, name and connection_file")
        if address is not None and (not isinstance(address, tuple) or len(address) != 2):
            raise TypeError(f"address must be (host, port), not {address!r}")
        path = None if connection_file is None else Path(connection_file).expanduser()
        self._target = Target(address, name, path)
        self._timeout_s = timeout
        self._reconnect_s = reconnect
        self._layouts: dict[str, Layout] = {}
        self._callbacks: list[Callable[[EngineLost], None]] = []
        self._link = self._new_link()

    def __repr__(self) -> str:
        link = self._link
        if link.fault is not None:
            return f"<RemoteController {self._target}, over: {link.fault}>"
        if not link.roster.known:
            return f"<RemoteController {self._target}, not connected yet>"
        ids = list(link.roster.engines)
        engines = f"engines {ranges(ids)}" if ids else "no engines"
        route = f"by {link.route}" if link.route else "connection lost, trying to get it back"
        return f"<RemoteController {self._target}, {engines}, {route}>"

    # ------------------------------------------------------------ connection

    def _new_link(self) -> Link:
        link = Link(self._target.open, new_peer(), self._reconnect_s)
        link.roster.on_lost = [lambda end: [callback(lost_engine(end)) for callback in list(callbacks)]]
        callbacks = self._callbacks
        # Tasks that are under way when nobody holds this object any more still end; then the connection is closed.
        weakref.finalize(self, link.abandon).atexit = False
        return link

    def _connected(self) -> Link:
        link = self._link
        if link.roster.known and link.fault is None:
            return link
        if link.orphaned:  # this is a forked child: it becomes a client of its own
            link = self._link = self._new_link()
        if link.fault is not None:
            raise link.fault
        link.start(self._timeout_s)
        return link

    def connect(self) -> Self:
        """Connect now, and return this object."""
        self._connected()
        return self

    def close(self) -> None:
        """End this client: what it has under way ends with `ConnectError`; the cluster goes on."""
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------ engines

    @property
    def ids(self) -> list[int]:
        """The ids of the engines that are there now."""
        return list(self._connected().roster.engines)

    def getIDs(self) -> list[int]:  # noqa: N802 - its name since 2006
        """Return the ids of the engines that are there now."""
        return self.ids

    def __len__(self) -> int:
        return len(self.ids)

    def __bool__(self) -> bool:
        return True  # a cluster without engines is still one

    def __iter__(self) -> Iterator[DirectView]:
        for engine_id in self.ids:
            yield DirectView(self, engine_id)

    def __getitem__(self, key: int | slice | Iterable[int]) -> DirectView:
        if isinstance(key, slice):
            return DirectView(self, self.ids[key])
        return DirectView(self, self._targets_of(key))

    def _targets_of(self, key: Any) -> int | list[int] | str:
        """Return what a view may hold: an id, ids or ``"all"``; negative ids count from the end."""
        if isinstance(key, str):
            if key != "all":
                raise TypeError(f"targets are ids or 'all', not {key!r}; names are on views, such as rc[:][{key!r}]")
            return key
        if hasattr(key, "__index__"):
            number = key.__index__()
            if number < 0:
                try:
                    number = self.ids[number]
                except IndexError:
                    raise IndexError(f"there are only {len(self)} engines, no engine {number}") from None
            self._ids_of(number)
            return int(number)
        return self._ids_of(key)

    def _ids_of(self, targets: Any) -> list[int]:
        """Return a list of ids, all of which are there; raises the reason if one is not."""
        roster = self._connected().roster
        if isinstance(targets, str):
            targets = list(roster.engines)
        ids = [targets] if isinstance(targets, int) else [int(target) for target in targets]
        if not ids:
            raise NoEngines("there are no engines: start some, or wait for them with rc.wait_for_engines()")
        for engine_id in ids:
            if engine_id in roster.engines:
                continue
            there = f"there are engines {ranges(list(roster.engines))}" if roster.engines else "there are no engines"
            if engine_id in roster.departed:
                end = roster.departed[engine_id]
                raise EngineLost(
                    f"{describe_end(end)}; {there}",
                    **{
                        name: getattr(lost_engine(end), name) for name in ("engine_id", "rank", "host", "pid", "reason")
                    },
                )
            raise IndexError(f"there is no engine {engine_id}; {there}")
        return ids

    @property
    def groups(self) -> list[Group]:
        """The engines by launch, in the order of their ids."""
        rows: dict[str, list[m.EngineRow]] = {}
        for row in self._connected().roster.engines.values():
            rows.setdefault(row.group, []).append(row)
        return [Group(self, members) for members in rows.values()]

    @property
    def lost(self) -> list[EngineLost]:
        """How engines went that nobody had asked to go, in the order in which that was noticed."""
        return [lost_engine(end) for end in self._connected().roster.lost]

    def on_engine_lost(self, callback: Callable[[EngineLost], None]) -> None:
        """Have a function called when an engine is lost, in whichever thread hears of it."""
        self._callbacks.append(callback)

    def wait_for_engines(self, n: int | None = None, timeout: float | None = None) -> Self:
        """Wait until there are ``n`` engines (by default one), and return this object.

        Raises
        ------
        TimeoutError
            ``timeout`` seconds have passed; it says how many there are.
        """
        wait_for_engines(self._connected(), 1 if n is None else n, timeout)
        return self

    # ------------------------------------------------------------ views

    def direct_view(self, targets: int | Iterable[int] | str = "all", *, block: bool = True) -> DirectView:
        """Return a view of certain engines; ``"all"`` also sees engines that come later."""
        return DirectView(self, self._targets_of(targets), block)

    broadcast_view = direct_view  # what is the same for all engines travels once in any case

    def load_balanced_view(
        self,
        targets: int | Iterable[int] | str | None = None,
        *,
        retries: int = 0,
        expected_s: float = 0.0,
        block: bool = True,
        **flags: Any,
    ) -> LoadBalancedView:
        """Return a view that gives tasks to engines as they become free; by default to all that there are.

        All attributes of the view can be given.
        """
        ids = None if targets is None or targets == "all" else self._ids_of(targets)
        return LoadBalancedView(self, ids, retries=retries, expected_s=expected_s, block=block).set_flags(**flags)

    # ------------------------------------------------------------ control

    def status(self) -> dict[str, Any]:
        """Return what the controller knows of itself, the engines and the clients."""
        answer: dict[str, Any] = self._connected().request(lambda number: m.Query(number, "status"))
        return answer

    def queue_status(self, targets: int | Iterable[int] | str = "all") -> dict[Any, Any]:
        """Count tasks: for each engine id ``queue``, ``tasks``, ``completed``, ``failed``; ``"unassigned"`` in all.

        ``"short_of_time"`` lists those that wait because no engine will be there for the seconds that they take
        (``tasks``, ``expected_s``), and how long the engine with the most time will be (``longest_s``). ``"stranded"``
        lists those for which no engine has what they ask for (``tasks``, ``why``), ``"dependent"`` counts those that
        wait for other tasks.
        """
        answer = self._connected().request(lambda number: m.Query(number, "queue_status"))
        chosen = None if targets == "all" else set(self._ids_of(targets))
        engines = {int(key): counts for key, counts in answer["engines"].items()}
        return {key: value for key, value in engines.items() if chosen is None or key in chosen} | {
            name: answer[name] for name in ("unassigned", "short_of_time", "stranded", "dependent")
        }

    def abort(self, results: AsyncResult | Iterable[AsyncResult] | None = None) -> None:
        """End tasks that no engine has begun: those of the given results, by default all of this client."""
        self._abort(results, [], everything=True)

    def _abort(
        self, results: AsyncResult | Iterable[AsyncResult] | None, targets: list[int] | None, everything: bool = False
    ) -> None:
        link = self._connected()
        if results is not None:
            for result in [results] if isinstance(results, AsyncResult) else results:
                result.abort()
        else:
            link.outbox.flush()
            for bundle in list(link.inbox.bundles.values()):
                if everything or bundle.placement.concerns(targets):
                    link.order(m.Abort(bundle.first, 0, bundle.count))
        # When this is answered the controller has ended everything that no engine held.
        link.request(lambda number: m.Query(number, "ping"))

    def interrupt(self, targets: int | Iterable[int] | str = "all") -> None:
        """Raise KeyboardInterrupt in what the engines run now."""
        self._connected().order(m.Interrupt(self._ids_of(targets)))

    def order(self, what: str, **arguments: Any) -> Any:
        """Ask the supervisor of the cluster, by way of the controller; `hpc.Cluster` says what can be asked.

        Raises
        ------
        HpcError
            It cannot be done, or there is no supervisor; it says why.
        """
        return self._connected().request(lambda number: m.Order(number, what, arguments))

    def shutdown(self, targets: int | Iterable[int] | str = "all", controller: bool = False) -> None:
        """End engines, and with ``controller`` the whole cluster; return when they are gone."""
        link = self._connected()
        ids = None if targets == "all" else self._ids_of(targets)
        going = set(link.roster.engines if ids is None else ids)
        link.request(lambda number: m.Shutdown(number, ids, controller))
        if controller:
            # What was still under way has ended by then with an error that says so.
            link.wait_for_end(SHUTDOWN_S)
        elif not link.wait(lambda: going.isdisjoint(link.roster.engines), SHUTDOWN_S):
            left = ranges(sorted(going & set(link.roster.engines)))
            raise TimeoutError(f"engines {left} were told to end {SHUTDOWN_S:g} s ago and are still there")


def connect(
    target: str | os.PathLike[str] | Address | None = None, *, timeout: float = 0.0, **options: Any
) -> RemoteController:
    """Connect to a running cluster.

    Parameters
    ----------
    target : str, path or tuple of (str, int), optional
        The cluster's name, its client's connection file, or host and port; by default the newest of this user.
    timeout : float
        Seconds to wait for it to be there.
    **options
        As for `RemoteController`.

    Raises
    ------
    ConnectError
        There is none; it says what was looked for and what to do.
    """
    rc = RemoteController(timeout=timeout, **options)
    rc._target.__dict__.update(Target.of(target).__dict__)
    return rc.connect()
