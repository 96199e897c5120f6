"""Sites: what is true of one machine for everybody who uses it, as data in TOML files."""

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from jobscripts.errors import SpecError
from jobscripts.launch import Launch
from jobscripts.quoting import shell_word
from jobscripts.spec import JobSpec, parse_duration_s

__all__ = ["Limits", "Profile", "profile_names", "site_folders"]

SYSTEM_FOLDER: Final = Path("/etc/hpc/sites")
# What a site's lines come in addition to; everything else a person's own word replaces.
_ADDED: Final = ("extra", "skip", "prologue")
_NO_DEFAULT: Final = frozenset({"command", "launch", "components", "exit_file", "array", *_ADDED})


@dataclass(frozen=True)
class Limits:
    """What this site does not accept, so that it can be said before anything waits in a queue.

    Attributes
    ----------
    max_array_size : int, optional
        Largest number of elements.
    max_walltime : str, optional
        As in `JobSpec`.
    max_nodes : int, optional
    """

    max_array_size: int | None = None
    max_walltime: str | None = None
    max_nodes: int | None = None

    def check(self, spec: JobSpec, site: str) -> None:
        """Raise `SpecError` for what is beyond them."""
        most_s = parse_duration_s(self.max_walltime, "max_walltime")
        if most_s is not None and spec.walltime_s is not None and spec.walltime_s > most_s:
            raise SpecError("walltime", f"{spec.walltime} is more than the {self.max_walltime} of {site}")
        nodes = sum(part.node_count or 0 for part in spec.components or (spec,))
        if self.max_nodes is not None and nodes > self.max_nodes:
            raise SpecError("nodes", f"{nodes} are more than the {self.max_nodes} of {site}")
        if self.max_array_size is not None and len(spec.array_indices) > self.max_array_size:
            raise SpecError(
                "array",
                f"{len(spec.array_indices)} elements are more than the {self.max_array_size} of {site}; submit several",
            )


@dataclass(frozen=True)
class Profile:
    """One site.

    Attributes
    ----------
    name : str
        The name of its file.
    scheduler : str
        ``slurm``, ``pbs``, ``torque``, ``mpiexec``; '' is the one that is found.
    modules : tuple of str
        To load, in this order.
    prologue : tuple of str
        Lines of bash after that.
    launch : Launch, optional
        How ranks are started.
    interface : str
        The network on which the controller listens, ``ib0``, as `ipcontroller --ip` takes it.
    defaults : mapping
        Fields of `JobSpec`.
    extra, skip : tuple of str
        Directives.
    limits : Limits
    """

    name: str = ""
    scheduler: str = ""
    modules: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()
    launch: Launch | None = None
    interface: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    limits: Limits = Limits()

    @classmethod
    def load(cls, name: str, environ: Mapping[str, str] | None = None) -> "Profile":
        """Return a profile by its name, or by the path of its file.

        Raises
        ------
        SpecError
            There is none; or a key is unknown, or its value of the wrong kind: file and key are named.
        """
        path = _find(name, environ)
        try:
            data = tomllib.loads(path.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SpecError("site", f"{path} is no TOML: {error}") from None
        return read_profile(data, path.stem, str(path))

    def apply(self, spec: JobSpec) -> JobSpec:
        """Return the job as this site wants it: what the spec leaves open is filled in, what the site adds is added.

        Raises
        ------
        SpecError
            The site does not accept it.
        """
        plain = JobSpec()
        open_ = {name: value for name, value in self.defaults.items() if getattr(spec, name) == getattr(plain, name)}
        if isinstance(self.defaults.get("environment"), Mapping):
            open_["environment"] = {**self.defaults["environment"], **spec.environment}
        if spec.components or spec.ranks is not None or spec.nodes is not None:
            # A shape belongs together: half of one from the site would contradict half of one from a person.
            for name in ("nodes", "ranks", *(("ranks_per_node",) if spec.ranks is not None or spec.components else ())):
                open_.pop(name, None)
        if self.launch is not None and spec.launch is None and not isinstance(spec.command, str):
            open_ |= {"launch": self.launch} if spec.total_ranks > 1 else {}
        added = {
            "extra": self.extra + spec.extra,
            "skip": tuple(dict.fromkeys(self.skip + spec.skip)),
            "prologue": (*self.module_lines(), *self.prologue, *spec.prologue),
        }
        spec = spec.replace(**open_, **added)
        self.limits.check(spec, self.name or "this site")
        return spec

    def module_lines(self) -> tuple[str, ...]:
        """Return the lines that load the modules. A job's shell may not have read what defines ``module``."""
        if not self.modules:
            return ()
        loads = tuple(f"module load {shell_word(module)} || exit" for module in self.modules)
        return ("type module >/dev/null 2>&1 || . /etc/profile", *loads)


def site_folders(environ: Mapping[str, str] | None = None) -> list[Path]:
    """Return the folders with profiles, a person's own first: $HPC_SITES_PATH, ~/.config/hpc/sites, /etc/hpc/sites."""
    environ = os.environ if environ is None else environ
    named = [Path(part) for part in environ.get("HPC_SITES_PATH", "").split(os.pathsep) if part]
    config = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", str(Path.home())), ".config")
    return [*named, Path(config) / "hpc" / "sites", SYSTEM_FOLDER]


def profile_names(environ: Mapping[str, str] | None = None) -> dict[str, Path]:
    """Return the profiles that there are: name -> file. A person's own hides one of the system with the same name."""
    found: dict[str, Path] = {}
    for folder in site_folders(environ):
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem, path)
    return found


def _find(name: str, environ: Mapping[str, str] | None) -> Path:
    path = Path(name) if name.endswith(".toml") or os.sep in name else profile_names(environ).get(name)
    if path is None or not path.is_file():
        known = ", ".join(profile_names(environ)) or "none at all"
        folders = ", ".join(map(str, site_folders(environ)))
        raise SpecError("site", f"there is no profile {name!r} in {folders}; there are: {known}")
    return path


def read_profile(data: Mapping[str, Any], name: str, origin: str) -> Profile:
    """Return the profile that the data of a file describes; ``origin`` is named in errors."""
    kinds = {item.name: item for item in dataclasses.fields(Profile) if item.name != "name"}
    values: dict[str, Any] = {"name": name}
    for key, value in data.items():
        if key not in kinds:
            raise SpecError(key, f"{origin}: a profile has no such key; there are: {', '.join(kinds)}")
        values[key] = _value(key, value, origin)
    return Profile(**values)


def _value(key: str, value: Any, origin: str) -> Any:
    if key in ("modules", "prologue", "extra", "skip"):
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise SpecError(key, f"{origin}: takes a list of strings, not {value!r}")
        return tuple(value)
    if key in ("scheduler", "interface"):
        if not isinstance(value, str):
            raise SpecError(key, f"{origin}: takes a string, not {value!r}")
        return value
    if not isinstance(value, dict):
        raise SpecError(key, f"{origin}: is a table, [{key}]")
    if key == "defaults":
        return _defaults(value, origin)
    kind = Launch if key == "launch" else Limits
    known = [item.name for item in dataclasses.fields(kind)]
    for inner in value:
        if inner not in known:
            raise SpecError(f"{key}.{inner}", f"{origin}: there is no such key; there are: {', '.join(known)}")
    made = kind(**value)
    if isinstance(made, Limits):
        parse_duration_s(made.max_walltime, "max_walltime")
    return made


def _defaults(value: dict[str, Any], origin: str) -> dict[str, Any]:
    for name in value:
        if name in _NO_DEFAULT:
            where = (
                f"write it outside of [defaults]: {name} = ..." if name in (*_ADDED, "launch") else "it is no default"
            )
            raise SpecError(f"defaults.{name}", f"{origin}: {where}")
    tuples = {name: tuple(item) if isinstance(item, list) else item for name, item in value.items()}
    try:
        JobSpec().replace(**tuples)
    except SpecError as error:
        raise SpecError(f"defaults.{error.field}", f"{origin}: {error}") from None
    return tuples
