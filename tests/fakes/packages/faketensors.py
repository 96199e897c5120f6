"""A package of tensors, as far as it matters here: memory of this process that others see through DLPack."""

import numpy as np


class Tensor:
    def __init__(self, items):
        self.items = items
        self.shape, self.dtype = items.shape, items.dtype

    def __dlpack__(self, **keywords):
        return self.items.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self.items.__dlpack_device__()

    def __getitem__(self, index):
        return Tensor(np.asarray(self.items[index]))

    def __reduce__(self):
        return Tensor, (self.items.copy(),)


def from_dlpack(x):
    return Tensor(np.from_dlpack(x))
