"""Memory for large gradients, used again once nobody holds the old one.

The system hands out large arrays page by page, and clearing the pages takes as long as the whole computation of a
gradient. A loop that asks for a gradient, uses it and asks for the next should pay this once.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import weakref
from typing import Any

import numpy as np

__all__ = ["empty", "forget"]

LARGE = 1 << 25
"""Bytes. The C library keeps smaller blocks for the next allocation itself."""

_CAN_KEEP = hasattr(mmap, "MADV_FREE")
_kept: list[mmap.mmap] = []
"""At most one block, the last that was given back. The system may take its memory at any time (``MADV_FREE``)."""


def _new_block(size: int) -> mmap.mmap:
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages
            block.madvise(mmap.MADV_HUGEPAGE)
    return block


def _take_block(size: int) -> mmap.mmap:
    with contextlib.suppress(IndexError):  # another thread was faster
        if _kept:
            block = _kept.pop()
            if size <= len(block) <= 2 * size:
                return block
    return _new_block(size)


def _give_back(block: mmap.mmap) -> None:
    with contextlib.suppress(OSError):
        block.madvise(mmap.MADV_FREE)
        _kept[:] = [block]


def forget() -> None:
    """Give a kept block back to the system."""
    _kept.clear()


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """``np.empty``, on a block that an array from here left behind if that block fits.

    Every view of the array keeps its memory, as with any array.

    Raises
    ------
    MemoryError
        If there is no memory for it.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE or not _CAN_KEEP:
        return np.empty(shape, dtype)
    try:
        block = _take_block(size)
    except OSError:
        return np.empty(shape, dtype)  # raises NumPy's own error if there is really no memory
    flat = np.frombuffer(block, dtype, math.prod(shape))
    # NumPy makes `flat` the base of every view, so it lives as long as any of them.
    weakref.finalize(flat, _give_back, block).atexit = False
    return flat.reshape(shape)
