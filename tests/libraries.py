"""The array libraries that core must run on, and whether Numba is there to be tested."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import numpy as np

HAS_NUMBA = importlib.util.find_spec("numba") is not None and os.environ.get("CROSSENT_DISABLE_NUMBA", "0") in ("", "0")


class Library:
    """An array library: its namespace, and conversions from and to NumPy in float64."""

    def __init__(self, name: str, xp: Any, from_numpy: Callable[[np.ndarray], Any]):
        self.name, self.xp, self._from_numpy = name, xp, from_numpy

    def array(self, values: Any, dtype: Any = None) -> Any:
        return self._from_numpy(np.array(values, dtype=dtype))

    def numpy(self, array: Any) -> np.ndarray:
        return np.asarray(array)


def _numpy() -> Library:
    import array_api_compat.numpy as xp

    def read_only(values: np.ndarray) -> np.ndarray:
        values.flags.writeable = False
        return values

    return Library("numpy", xp, read_only)


def _strict() -> Library:
    import array_api_strict as xp

    return Library("array_api_strict", xp, xp.asarray)


def _torch() -> Library:
    import array_api_compat.torch as xp

    return Library("torch", xp, xp.asarray)


def _jax() -> Library:
    import jax

    jax.config.update("jax_enable_x64", True)
    return Library("jax", jax.numpy, jax.numpy.asarray)


LIBRARIES: dict[str, Callable[[], Library]] = {
    "numpy": _numpy,
    "array_api_strict": _strict,
    "torch": _torch,
    "jax": _jax,
}
