"""The keys that a controller lets in by TCP: one of each role for its connection file, and those handed out besides."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from hpc.transport import new_keypair

# Who gets a file with keys of its own. What peers on this host may be is decided by the unix socket's owner.
ROLES: Final = ("client", "engine", "monitor")
NAME_NBYTES: Final = 4
MAX_KEYS: Final = 1000
MAX_LABEL_LETTERS: Final = 100
_PUBLIC_LETTERS: Final = 40


@dataclass(frozen=True, slots=True)
class Key:
    """A key; its secret half is '' if only its holder has that. ``created`` is in seconds since the epoch."""

    public: str
    role: str
    label: str = ""
    secret: str = field(default="", repr=False)
    created: float = field(default_factory=time.time)

    @property
    def name(self) -> str:
        """What people call it: letters that a shell takes as they are, unlike those of the key."""
        return hashlib.blake2b(self.public.encode(), digest_size=NAME_NBYTES).hexdigest()


class KeyRing:
    """Keys by role and by what they are; whoever has none of them gets no further than the handshake.

    Parameters
    ----------
    pairs
        Public and secret key of each role, if there are such already; all others are made.
    """

    def __init__(self, pairs: Mapping[str, tuple[str, str]] = MappingProxyType({})) -> None:
        self._own: dict[str, Key] = {}
        self._keys: dict[str, Key] = {}
        for role in ROLES:
            self._put(role, pairs.get(role) or new_keypair())

    def __repr__(self) -> str:
        return f"<KeyRing of {len(self._keys)} keys>"

    def authorise(self, public: str) -> str | None:
        """Return the role that a public key stands for, None if it stands for none."""
        key = self._keys.get(public)
        return None if key is None else key.role

    def own(self, role: str) -> Key:
        """Return the key that stands in the connection file of a role."""
        return self._own[role]

    def rows(self) -> list[dict[str, Any]]:
        """Describe all keys in plain types, without what is secret."""
        return [
            {
                "name": key.name,
                "role": key.role,
                "label": key.label or (f"{key.role}.json" if self._own[key.role] is key else ""),
                "created": key.created,
                "public": key.public,
            }
            for key in self._keys.values()
        ]

    def renew(self, role: str) -> Key | None:
        """Put a new key in the place of a role's own; return the old one, which counts no longer."""
        if role not in ROLES:
            raise LookupError(f"there is no role {role!r}; there are {', '.join(ROLES)}")
        old = self._own.get(role)
        if old is not None:
            del self._keys[old.public]
        self._put(role, new_keypair())
        return old

    def admit(self, public: str, role: str, label: str) -> Key:
        """Let in a key whose secret half is somebody else's; raise LookupError, with the reason, if that cannot be."""
        if role not in ROLES:
            raise LookupError(f"there is no role {role!r}; there are {', '.join(ROLES)}")
        if len(public) != _PUBLIC_LETTERS or not public.isascii() or not public.isprintable():
            raise LookupError("that is no public key of CURVE")
        key = Key(public, role, label[:MAX_LABEL_LETTERS])
        if self._named(key.name):
            raise LookupError(f"there is a key {key.name} already")
        if len(self._keys) >= MAX_KEYS:
            raise LookupError(f"there are {MAX_KEYS} keys already: revoke some")
        self._keys[public] = key
        return key

    def revoke(self, name: str) -> Key:
        """Let a key in no longer, and return it; raise LookupError, with the reason, if that cannot be."""
        found = self._named(name) if name else []
        if len(found) != 1:
            raise LookupError(
                f"{'several keys begin' if found else 'no key begins'} with {name!r}: see `ipcluster keys`"
            )
        key = found[0]
        if self._own[key.role] is key:
            raise LookupError(
                f"{key.name} is the key in {key.role}.json:"
                f" put a new one in its place with `ipcluster keys renew {key.role}`"
            )
        del self._keys[key.public]
        return key

    def _put(self, role: str, pair: tuple[str, str]) -> None:
        public, secret = pair
        self._own[role] = self._keys[public] = Key(public, role, secret=secret)

    def _named(self, name: str) -> list[Key]:
        return [key for key in self._keys.values() if key.name.startswith(name)]
