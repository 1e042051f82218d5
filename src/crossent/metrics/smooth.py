"""Smooth calibration error: residuals smoothed by a kernel, not binned, with the bandwidth that the error sets.

With ``r = Σ_i w_i (event_i - p_i) δ(p_i)`` the residuals as a measure on [0, 1] and ``r_σ`` its convolution with a
Gaussian of deviation σ, reflected at 0 and 1, ``smECE_σ = ∫ |r_σ(t)| dt`` falls as σ grows. The error is the σ at which
``smECE_σ = σ``: consistent, and without a number of bins to choose.

J. Błasiok, P. Nakkiran, "Smooth ECE: Principled Reliability Diagrams via Kernel Smoothing", ICLR (2024).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["smooth_error"]

Float64 = NDArray[np.float64]

_CELLS = 2048
_HALVINGS = 30


def smooth_error(values: NDArray[np.floating], residuals: Float64) -> float:
    """Return smECE of residuals ``w_i (event_i - v_i) / Σ w`` at values in [0, 1].

    Residuals are shared between the two nearest of 2049 points, and the reflected kernel is applied to their cosine
    series, where it is a factor ``exp(-(σ π k)² / 2)``.
    """
    place = values.astype(np.float64) * _CELLS
    left = np.minimum(place.astype(np.intp), _CELLS - 1)
    share = place - left
    mass = np.bincount(left, weights=residuals * (1 - share), minlength=_CELLS + 1)
    mass += np.bincount(left + 1, weights=residuals * share, minlength=_CELLS + 1)
    # The even, periodic continuation: a point's mirror image carries the same mass; the ends are their own.
    mass[[0, -1]] *= 2
    series = np.fft.rfft(np.concatenate([mass, mass[-2:0:-1]]))
    decay = -0.5 * (np.pi * np.arange(_CELLS + 1)) ** 2

    def error(sigma: float) -> float:
        smooth = np.abs(np.fft.irfft(series * np.exp(decay * sigma**2), 2 * _CELLS)[: _CELLS + 1])
        return float(smooth.sum() - 0.5 * (smooth[0] + smooth[-1]))

    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if error(middle) > middle:
            low = middle
        else:
            high = middle
    return error(high) if low > 0 else 0.0
