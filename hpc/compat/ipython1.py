"""The API of IPython1 (2006), whose commands and names this package keeps.

::

    import hpc.compat.ipython1 as kernel
    rc = kernel.RemoteController(("host0", 10000))    # does not connect at this point
    rc.getIDs()
    rc.executeAll("import math")
    rc.pushAll(a=10, b=[1, 2])
    rc.pullAll("a")
    rc.map([0, 1], "lambda x: x ** 2", range(10))

Targets are an id, ids or ``"all"``; every method has a form for all, with ``All`` at its end and without targets. As
in 2006, what fails on the engines is raised there; unlike 2006 it is raised here, too.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import hpc
from hpc.client.asyncresult import AsyncResult
from hpc.client.view import DirectView

Targets = int | Iterable[int] | str


class NotDefined:
    """Stands for a name that an engine does not know."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"NotDefined: {self.name}"


class RemoteController:
    """A cluster, as IPython1 knew it.

    Parameters
    ----------
    address : tuple of (str, int), optional
        Host and port of the controller; by default the newest cluster of this user.

    Attributes
    ----------
    block : bool
        Whether `execute`, `run` and so on wait until the engines are through, and print what they printed.
    """

    def __init__(self, address: tuple[str, int] | None = None) -> None:
        self._rc = hpc.RemoteController(address)
        self.block = True
        self._commands: dict[int, list[tuple[str, AsyncResult]]] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of IPython1: {self._rc!r}>"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        # executeAll(source) is execute("all", source), and so for all methods that take targets.
        if name.endswith("All") and name[:-3] in _OF_TARGETS:
            return partial(getattr(self, name[:-3]), "all")
        raise AttributeError(f"IPython1's RemoteController has no {name!r}")

    # ------------------------------------------------------------ connection and engines

    def connect(self) -> bool:
        """Connect now; return True."""
        self._rc.connect()
        return True

    def disconnect(self) -> bool:
        """Close the connection; the engines keep running."""
        self._rc.close()
        return True

    def isConnected(self) -> bool:  # noqa: N802 - its name in 2006, as those below
        """Say whether there is a connection."""
        return self._rc._link.ready

    def getIDs(self) -> list[int]:  # noqa: N802
        """Return the ids of the engines."""
        return self._rc.ids

    getMappedIDs = getIDs  # noqa: N815

    def __len__(self) -> int:
        return len(self._rc)

    def _view(self, targets: Targets) -> DirectView:
        return self._rc[:] if targets == "all" else self._rc[targets]  # type: ignore[index]

    # ------------------------------------------------------------ code

    def execute(self, targets: Targets, source: str, block: bool | None = None) -> bool:
        """Execute code on the engines; when blocking, wait and print what came of it."""
        result = self._view(targets).execute(source, block=False)
        engines = self._record(source, result)
        if self.block if block is None else block:
            result.wait()
            for engine in engines:
                self.printResult(engine)
            result.get()
        return True

    def _record(self, source: str, result: AsyncResult) -> list[int]:
        """Note a command for `getResult`; return which engines run it."""
        engines: list[int] = result.targets if hasattr(result, "targets") else [result.engine_id]
        for engine in engines:
            self._commands.setdefault(engine, []).append((source, result))
        return engines

    def run(self, targets: Targets, fname: str, block: bool | None = None) -> bool:
        """Execute a file of this machine on the engines; an error of syntax is found before anything is sent."""
        with open(fname, encoding="utf-8") as file:
            text = file.read()
        compile(text, fname, "exec", dont_inherit=True)
        return self.execute(targets, text, block)

    def getResult(self, targets: Targets, i: int | None = None) -> Any:  # noqa: N802
        """Return ``(id, number, source, stdout, stderr)`` of a command, by default the last; a list for several ids."""
        found = []
        for engine in self._view(targets)._choose(None)[0]:
            commands = self._commands.get(engine, [])
            number = len(commands) - 1 if i is None else i
            if not 0 <= number < len(commands):
                raise IndexError(f"engine {engine} has run {len(commands)} commands of this client, not {number}")
            source, result = commands[number]
            result.wait()
            rows, shown = result.metadata, result.outputs
            if not isinstance(rows, dict):
                place = result.targets.index(engine)
                rows, shown = rows[place], shown[place]
            found.append((engine, number, source, rows["stdout"] + repr(shown), rows["stderr"]))
        return found[0] if isinstance(targets, int) else found

    def printResult(self, targets: Targets, i: int | None = None) -> None:  # noqa: N802
        """Print a command of the engines, and what came of it."""
        found = self.getResult(targets, i)
        for engine, number, source, stdout, stderr in [found] if isinstance(found, tuple) else found:
            host = self._rc._link.roster.place(engine)[1]
            print(f"[{host}:{engine}] In [{number}]: {source}")
            for name, text in (("Out", stdout), ("Err", stderr)):
                if text:
                    print(f"[{host}:{engine}] {name}[{number}]: {text.rstrip()}")

    def reset(self, targets: Targets) -> bool:
        """Forget all names on the engines but those that they had at the start."""
        self._view(targets).clear(block=True)
        return True

    def kill(self, targets: Targets, controller: bool = False) -> bool:
        """End engines, and the controller if asked."""
        self._rc.shutdown(targets if targets == "all" else self._view(targets)._choose(None)[0], controller=controller)
        return True

    def status(self, targets: Targets) -> dict[int, Any]:
        """Return what waits and runs on each of the engines."""
        wanted = set(self._view(targets)._choose(None)[0])
        queues = self._rc.queue_status()
        return {engine: state for engine, state in queues.items() if engine in wanted}

    # ------------------------------------------------------------ objects

    def push(self, targets: Targets, *keys: str, **names: Any) -> bool:
        """Bind names on the engines: those of the keywords, and the caller's own of the names given."""
        caller = sys._getframe(1)
        while caller.f_code.co_filename == __file__ or "functools" in caller.f_code.co_filename:
            caller = caller.f_back  # type: ignore[assignment]
        for key in keys:
            try:
                names[key] = caller.f_locals[key] if key in caller.f_locals else caller.f_globals[key]
            except KeyError:
                raise NameError(f"name {key!r} is not defined here", name=key) from None
        self._view(targets).push(names, block=True)
        return True

    def pull(self, targets: Targets, *keys: str) -> Any:
        """Return objects by name: one value, a list for several names, tuples for several engines."""
        rows = self._pulled(targets, keys)
        columns = [tuple(column) for column in zip(*rows, strict=True)]
        if isinstance(targets, int):
            return columns[0][0] if len(keys) == 1 else [column[0] for column in columns]
        return columns[0] if len(keys) == 1 else columns

    def pullNamespace(self, targets: Targets, *keys: str) -> Any:  # noqa: N802
        """Return a dict of objects by name; a list of dicts for several engines."""
        rows = [dict(zip(keys, row, strict=True)) for row in self._pulled(targets, keys)]
        return rows[0] if isinstance(targets, int) else rows

    def _pulled(self, targets: Targets, keys: Sequence[str]) -> list[list[Any]]:
        if not keys:
            raise TypeError("give the names to pull")
        view = self._view(targets)
        rows = view.apply_sync(_look_up, keys)
        rows = [rows] if isinstance(targets, int) else rows
        return [
            [NotDefined(key) if found is None else found[0] for key, found in zip(keys, row, strict=True)]
            for row in rows
        ]

    def scatter(self, targets: Targets, key: str, seq: Any, style: str = "basic", flatten: bool = False) -> bool:
        """Divide a sequence among the engines."""
        _check(style)
        self._view(targets).scatter(key, seq, flatten=flatten, block=True)
        return True

    def gather(self, targets: Targets, key: str, style: str = "basic") -> Any:
        """Put a divided sequence together again."""
        _check(style)
        return self._view(targets).gather(key, block=True)

    # ------------------------------------------------------------ functions

    def map(self, targets: Targets, functionSource: str | Callable[..., Any], seq: Any, style: str = "basic") -> Any:  # noqa: N803
        """Call a function, given as source or by its name on the engines, for every item."""
        _check(style)
        view = self._view(targets)
        if callable(functionSource):
            return view.map_sync(functionSource, seq)
        view.scatter("_ipython1_seq", seq, block=True)
        view.execute(f"_ipython1_result = list(map({functionSource}, _ipython1_seq))", block=True)
        return view.gather("_ipython1_result", block=True)

    def parallelize(self, targets: Targets, functionName: str) -> Callable[[Any], Any]:  # noqa: N803
        """Return a function of a sequence that maps a function of that name on the engines."""
        return lambda seq: self.map(targets, functionName, seq)

    # ------------------------------------------------------------ as a mapping, and magics

    def __getitem__(self, key: Any) -> Any:
        return self.pull("all", key) if isinstance(key, str) else _EngineProxy(self, key)

    def __setitem__(self, key: str, value: Any) -> None:
        self.push("all", **{key: value})

    def activate(self) -> None:
        """Have ``%px``, ``%pn``, ``%autopx`` and ``%result`` in IPython work on these engines."""
        from IPython.core.error import UsageError
        from IPython.core.getipython import get_ipython

        from hpc.magics import activate

        activate(_RecordingView(self))
        shell = get_ipython()

        def pn(line: str) -> None:
            """Execute a line on one engine: ``%pn 0 a = 1``."""
            engine, _, code = line.strip().partition(" ")
            if not engine.isdigit() or int(engine) not in self.getIDs():
                raise UsageError(f"%pn ID CODE: there is no engine {engine!r}, there are {self.getIDs()}")
            self.execute(int(engine), code, block=True)

        def result(line: str) -> None:
            """Show what came of a command: ``%result``, ``%result 3``; of engines that have run as many."""
            number = int(line) if line.strip().isdigit() else None
            least = 1 if number is None else number + 1
            engines = [engine for engine in self.getIDs() if len(self._commands.get(engine, [])) >= least]
            if not engines or (number is None and line.strip()):
                raise UsageError("%result [NUMBER]: no engine has run such a command here")
            self.printResult(engines, number)

        for magic in (pn, result):
            shell.register_magic_function(magic, "line")


_CODE = ("execute", "run", "getResult", "printResult", "reset", "kill", "status")
_OBJECTS = ("push", "pull", "pullNamespace", "scatter", "gather", "map", "parallelize")
_OF_TARGETS = frozenset(_CODE + _OBJECTS)


class _RecordingView(DirectView):
    """What ``%px`` works on, so that ``%result`` knows of it."""

    def __init__(self, controller: RemoteController) -> None:
        super().__init__(controller._rc, "all")
        self._controller = controller

    def _cell(self, code: str, targets: Any = None) -> AsyncResult:
        result = super()._cell(code, targets)
        self._controller._record(code, result)
        return result


class _EngineProxy:
    """Some engines: ``rc[0]["b"] = 3``, ``rc[0:4].execute(...)``."""

    def __init__(self, controller: RemoteController, key: int | slice | Iterable[int]) -> None:
        self._controller = controller
        self._targets: Targets = controller.getIDs()[key] if isinstance(key, slice) else key

    def __repr__(self) -> str:
        return f"<engines {self._targets} of {self._controller!r}>"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in _OF_TARGETS:
            raise AttributeError(f"engines of IPython1 have no {name!r}")
        return partial(getattr(self._controller, name), self._targets)

    def __getitem__(self, key: str) -> Any:
        return self._controller.pull(self._targets, key)

    def __setitem__(self, key: str, value: Any) -> None:
        self._controller.push(self._targets, **{key: value})


def _check(style: str) -> None:
    if style != "basic":
        raise ValueError(f"the only style is 'basic', not {style!r}; v.scatter(dist='cyclic') of hpc deals items out")


def _look_up(keys: Sequence[str]) -> list[Any]:
    """Return each name's value in a list of one, None for a name that is not there. Runs on an engine."""
    names = sys.modules["__main__"].__dict__
    return [[names[key]] if key in names else None for key in keys]
