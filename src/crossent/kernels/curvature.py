"""Kernel for Hessian products of softmax regression: ``u_i`` becomes ``a_i (diag p_i - p_i p_iᵀ) u_i``.

Arrays are class-major, (K, n): the loops run across rows, so that they become vector code whatever the number of
classes, in tiles that stay in the first-level cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .numba.compile import kernel

__all__ = ["curvature_columns"]

TILE = 512


@kernel
def curvature_columns(p: Any, top: Any, mass: Any, u: Any) -> None:
    """In place on ``u`` (K, n); ``top`` (n,) is each row's likeliest class, ``mass`` (n,) its weight.

    S u does not change when u is shifted; relative to the likeliest class nothing cancels.
    """
    classes, rows = u.shape
    shifts = np.empty(TILE, u.dtype)
    means = np.empty(TILE, u.dtype)
    for first in range(0, rows, TILE):
        last = min(first + TILE, rows)
        shift = shifts[: last - first]
        mean = means[: last - first]
        largest = top[first:last]
        for i in range(len(shift)):
            shift[i] = u[largest[i], first + i]
            mean[i] = 0.0
        for k in range(classes):
            p_k = p[k, first:last]
            u_k = u[k, first:last]
            for i in range(len(u_k)):
                u_k[i] -= shift[i]
                mean[i] += p_k[i] * u_k[i]
        a = mass[first:last]
        for k in range(classes):
            p_k = p[k, first:last]
            u_k = u[k, first:last]
            for i in range(len(u_k)):
                u_k[i] = (u_k[i] - mean[i]) * (p_k[i] * a[i])
