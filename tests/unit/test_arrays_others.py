"""Arrays and tables of other packages: what speaks DLPack, and pandas."""

import sys
import types

import numpy as np
import pytest
from test_arrays import LARGE, in_band_nbytes, travel

from hpc.wire import arrays
from hpc.wire.objects import dumps, loads


class Tensor:
    """What torch does, as far as it matters here: memory that numpy can see through DLPack."""

    __module__ = "faketorch"

    def __init__(self, items, device=1):
        self.items, self.device = items, device

    def __dlpack__(self, **keywords):
        if self.device != 1:
            raise BufferError("not in this memory")
        return self.items.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return (self.device, 0)

    def __reduce__(self):
        return rebuilt_by_pickle, (self.items.tolist(), self.device)


def rebuilt_by_pickle(items, device):
    tensor = Tensor(np.array(items), device)
    tensor.by_pickle = True
    return tensor


@pytest.fixture
def faketorch(monkeypatch):
    module = types.ModuleType("faketorch")
    module.Tensor, module.from_dlpack = Tensor, lambda x: Tensor(np.from_dlpack(x))
    monkeypatch.setitem(sys.modules, "faketorch", module)
    arrays._makers.clear()
    arrays.reducers.pop(Tensor, None)
    yield module
    arrays._makers.clear()


def test_what_speaks_dlpack_travels_out_of_band(faketorch):
    tensor = Tensor(np.arange(float(LARGE)))
    frames = dumps({"weights": tensor})
    assert len(frames[0]) < 1000
    assert np.shares_memory(np.frombuffer(frames[1], np.uint8), tensor.items)
    back = loads([bytes(frames[0]), bytearray(frames[1])])["weights"]
    assert type(back) is Tensor
    assert (back.items == tensor.items).all()
    assert back.items.flags.writeable


def test_small_or_remote_ones_go_their_own_way(faketorch):
    assert travel(Tensor(np.arange(3))).by_pickle
    assert travel(Tensor(np.arange(LARGE), device=2)).by_pickle
    del faketorch.from_dlpack
    arrays._makers.clear()
    assert travel(Tensor(np.arange(LARGE))).by_pickle


def test_pandas():
    pd = pytest.importorskip("pandas")
    n = LARGE
    frame = pd.DataFrame(
        {
            "x": np.arange(n) / 2,
            "y": np.arange(n) / 3,
            "i": np.arange(n),
            "when": pd.date_range("2020-01-01", periods=n, freq="s"),
            "kind": pd.Categorical(["a", "b"] * (n // 2)),
        },
        index=np.arange(n) * 2,
    )
    back = travel(frame)
    pd.testing.assert_frame_equal(back, frame)
    assert in_band_nbytes(frame) < 30_000
    back.loc[0, "x"] = 5.0
    pd.testing.assert_series_equal(travel(frame["when"]), frame["when"])
    words = pd.DataFrame({"s": ["word"] * n, "o": [[1], None] * (n // 2)})
    pd.testing.assert_frame_equal(travel(words), words)
