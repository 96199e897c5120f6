"""What takes objects that neither pickle nor cloudpickle can take: nothing, unless somebody asks for dill.

It holds for the whole process. Whoever receives needs no setting, but dill installed.
"""

import importlib
from collections.abc import Callable
from typing import Any

dumps: Callable[[Any], bytes] | None = None


def use(name: str) -> None:
    """Have ``"dill"`` take what everything else refuses; ``""`` for nothing.

    Raises
    ------
    ModuleNotFoundError
        It is not installed here.
    """
    global dumps  # noqa: PLW0603 - one for the process, like pickle's own tables
    dumps = _dumper(importlib.import_module(name)) if name else None


def _dumper(module: Any) -> Callable[[Any], bytes]:
    def dump(obj: Any) -> bytes:
        try:
            # Of a function's globals only those that it uses: the others need not be picklable, or be there.
            taken: bytes = module.dumps(obj, protocol=5, recurse=True)
        except Exception as error:
            from hpc.wire.objects import not_picklable

            raise not_picklable(obj, error) from error
        return taken

    return dump
