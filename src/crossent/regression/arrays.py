"""Parameter-sized arrays: W beside b, float64 (K, D + 1), worked on some rows at a time where they are large."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

BLOCK_ELEMENTS = 1 << 20
"""What is computed from parameter-sized arrays for a moment is computed so many elements at a time."""
_EVERYTHING = (slice(None),)


def row_blocks(array: Array) -> Iterable[slice]:
    """Yield slices of about `BLOCK_ELEMENTS`, so that what is computed from one stays small."""
    if array.size <= BLOCK_ELEMENTS:
        return _EVERYTHING
    size = max(1, BLOCK_ELEMENTS // max(1, array.shape[1]))
    return (slice(start, start + size) for start in range(0, len(array), size))


def inner(a: Array, b: Array) -> float:
    """Return ``Σ a b`` of matrices that need not be contiguous."""
    return float(np.einsum("kd,kd->", a, b))


def squared_norm(array: Array) -> float:
    """Return ``Σ a²``."""
    return float(np.vdot(array, array)) if array.flags.c_contiguous else inner(array, array)
