"""Arrays as the one type that kernels are compiled for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["plain"]

Array = NDArray[Any]


class _Exposed:
    """An array's memory as a writable array, for arguments that are only read."""

    def __init__(self, array: Array) -> None:
        self._array = array
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


def plain(array: Array) -> Array:
    """Return the array contiguous, aligned and writable, copied where only a copy can be.

    To Numba a read-only array is of another type, and so is one with gaps; kernels would be compiled for each.
    """
    if array.flags.carray:
        return array
    if not (array.flags.aligned and array.flags.c_contiguous):
        return array.copy(order="C")
    return np.asarray(_Exposed(array))
