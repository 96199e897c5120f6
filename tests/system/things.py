"""One of everything that may be sent, small and large, and what it means to be the same where it arrives."""

import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

SMALL, LARGE = 60, 120_000  # items: in the message, and by the route


def _records(n: int) -> Any:
    return np.array([(i, i / 2, (1, 2)) for i in range(n)], dtype=[("a", ">i4"), ("b", "f8"), ("c", "i2", (2,))])


def _objects(n: int) -> Any:
    made = np.empty(n, object)
    made[:] = [None if i % 3 else f"s{i}" for i in range(n)]
    return made


def _masked(n: int) -> Any:
    return np.ma.masked_array(np.arange(float(n)), mask=np.arange(n) % 3 == 0, fill_value=-1.0)


def _read_only(n: int) -> Any:
    made = np.arange(n)
    made.flags.writeable = False
    return made


def _frame(n: int) -> Any:
    when = pd.date_range("2020", periods=n, freq="s")
    return pd.DataFrame({"x": np.arange(n) / 2, "when": when, "s": ["ab"] * n, "k": np.arange(n)})


def _tensor(n: int) -> Any:
    import faketensors

    return faketensors.Tensor(np.arange(float(n)))


def _dates(n: int) -> Any:
    return np.array([(i, i % 100) for i in range(n)], dtype=[("when", "M8[s]"), ("k", "i2")])


# Name -> what makes one of n items.
ARRAYS: dict[str, Callable[[int], Any]] = {
    "float": lambda n: np.arange(n, dtype="f8"),
    "half": lambda n: (np.arange(n) % 100).astype("f2"),
    "big-endian": lambda n: np.arange(n, dtype=">i4"),
    "complex": lambda n: np.arange(n) * 1j,
    "longdouble": lambda n: np.arange(n, dtype="g"),
    "bool": lambda n: np.arange(n) % 3 == 0,
    "dates": lambda n: np.arange(n).astype("M8[s]"),
    "durations": lambda n: np.arange(n).astype("m8[ns]"),
    "strings": lambda n: np.arange(n).astype("U7"),
    "bytes": lambda n: np.arange(n).astype("S9"),
    "structured": _records,
    "dates in structures": _dates,
    "objects": _objects,
    "masked": _masked,
    "read-only": _read_only,
    "records": lambda n: np.rec.fromarrays([np.arange(n), np.arange(n) / 2], names="a,b"),
    "matrix": lambda n: np.arange(float(n)).reshape(6, -1).view(np.matrix),
    "Fortran": lambda n: np.asfortranarray(np.arange(float(n)).reshape(6, -1)),
    "strided": lambda n: np.arange(2.0 * n).reshape(6, -1)[:, ::2],
    "negative": lambda n: np.arange(n)[::-1],
    "transposed": lambda n: np.arange(float(n)).reshape(2, 3, -1).transpose(2, 0, 1),
    "column": lambda n: np.arange(4 * n).reshape(-1, 4)[:, 1],
    "spread": lambda n: np.broadcast_to(np.arange(n // 6), (6, n // 6)),
}
if hasattr(np.dtypes, "StringDType"):  # numpy 2
    ARRAYS["text"] = lambda n: np.array([f"{i}" * (i % 7) for i in range(n)], dtype=np.dtypes.StringDType())  # type: ignore[call-arg]
SEQUENCES: dict[str, Callable[[int], Any]] = {
    "list": lambda n: list(range(n)),
    "tuple": lambda n: tuple(range(n)),
    "range": range,
    "str": lambda n: "\N{SNOWMAN}x" * (n // 2) + "y" * (n % 2),
    "bytes-like": lambda n: bytes(i % 100 for i in range(n)),
    "bytearray": lambda n: bytearray(i % 100 for i in range(n)),
    "array.array": lambda n: array.array("d", range(n)),
    "memoryview": lambda n: memoryview(array.array("i", range(n))),
    "tensor": _tensor,
    "DataFrame": _frame,
    "Series": lambda n: _frame(n)["when"],
}
OTHERS: dict[str, Callable[[int], Any]] = {
    "0-d": lambda _: np.array(5, "M8[s]"),
    "scalar": lambda _: np.float32(2.5),
    "nothing": lambda _: np.zeros(0, "f4"),
    "no rows": lambda _: np.zeros((0, 5), "G"),
    "no columns": lambda _: np.zeros((3, 0), [("a", "i4")]),
    "no objects": lambda _: np.zeros((0, 2), object),
    "no bytes": lambda _: (b"", bytearray(), "", memoryview(b""), array.array("d")),
    "set": lambda n: set(range(n)),
    "a hundred": lambda n: {f"k{i}": {"deep": [i, (np.full((n // 6, 6), i)[:, :: 1 + i % 2],)]} for i in range(100)},
}


def same(sent: Any, back: Any, *, order: bool = True) -> bool:
    """Say whether something arrived as what it was, and can be written to.

    With ``order``, the order of an array's items in memory matters.
    """
    if isinstance(sent, memoryview):
        return type(back) is memoryview and back.tolist() == sent.tolist() and not back.readonly
    if type(back) is not type(sent):
        return False
    if type(sent).__name__ == "Tensor":
        return same(sent.items, back.items)
    if isinstance(sent, pd.DataFrame | pd.Series):
        return bool(sent.equals(back)) and bool((sent.index == back.index).all())
    if isinstance(sent, np.ndarray):
        return _same_items(sent, back) and (not order or _orders(sent.copy(order="K")) == _orders(back))
    if isinstance(sent, dict):
        return list(sent) == list(back) and all(same(sent[key], back[key]) for key in sent)
    if isinstance(sent, list | tuple):
        return len(sent) == len(back) and all(map(same, sent, back))
    return bool(back == sent)


def _orders(a: Any) -> tuple[bool, bool]:
    return a.flags.c_contiguous, a.flags.f_contiguous


def _same_items(sent: Any, back: Any) -> bool:
    if (back.dtype, back.shape, back.flags.writeable) != (sent.dtype, sent.shape, True):
        return False
    if isinstance(sent, np.ma.MaskedArray):
        alike = (np.ma.getmaskarray(sent) == np.ma.getmaskarray(back)).all() and sent.fill_value == back.fill_value
        return bool(alike and (sent.compressed() == back.compressed()).all())
    return bool((back == sent).all())
