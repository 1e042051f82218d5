"""Plain cross-entropy with distributions as targets, in single precision: no weights of classes, no smoothing.

With ``T = sum t_k``::

    nll = sum t_k (m - z_k) + T log1p(tail)         g_k = A e_k - B t_k,  A = B T / (1 + tail)

What `general` computes for any loss takes four sums over the row more, and all of it in doubles.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from .bfloat16 import as_number, as_stored, exp_tail_into, maximum_of_bits
from .blocks import (
    AGAINST,
    ALONG,
    BLOCK_FIELDS,
    FACTOR,
    TAIL,
    block_exp,
    block_maximum,
    block_tail,
    clear_sum,
    load_rows,
    load_targets,
    store_loss,
    store_rows,
)
from .closed_forms import LANES, LOSS, MASS, NLL
from .compile import helper, kernel, wide_vectors
from .exp import add_in_any_order, log1p, multiply_add, overload
from .rows import CHUNK, MOST_FLOAT, fill_row, row_maximum

__all__ = ["short_rows", "wide_rows"]


def _maximum(z: Any) -> Any:
    """The maximum of numbers or of bfloat16's bits."""
    raise NotImplementedError("runs only inside compiled code")


# Numba requires the two signatures to agree in every detail, annotations included.
@overload(_maximum, jit_options={"error_model": "numpy", "nogil": True})
def _typed_maximum(z):
    return (lambda z: maximum_of_bits(z)) if z.dtype == types.uint16 else (lambda z: row_maximum(z))


@helper
def _target_sums(z: Any, t: Any, top: Any) -> Any:
    """``sum t`` and ``sum t (m - z)``, to which a masked class of no mass adds 0."""
    wide_vectors()
    mass, gap = 0.0, 0.0
    for i in range(len(z)):
        v = np.float64(t[i])
        d = v * (top - np.float64(as_number(z[i])))
        mass = add_in_any_order(mass, v)
        gap = add_in_any_order(gap, d if v != 0.0 else 0.0)
    return mass, gap


@helper
def _gradient(x: Any, t: Any, a: Any, b: Any, out: Any) -> None:
    wide_vectors()
    for i in range(len(out)):
        out[i] = as_stored(multiply_add(x[i], a, -(b * t[i])), out[i])


@helper
def _gradient_in_double(x: Any, t: Any, a: Any, b: Any, out: Any) -> None:
    """For factors that float32 does not hold, though it may hold what they amount to."""
    for i in range(len(out)):
        out[i] = as_stored(a * np.float64(x[i]) - b * np.float64(t[i]), out[i])


@kernel
def wide_rows(
    logits: Any, soft: Any, weight: Any, scale: Any, row_weight: Any, grad: Any, loss: Any, start: Any, stop: Any
) -> None:
    """Rows ``start:stop`` of ``weight`` times the loss; logits and gradient may be bits of bfloat16 numbers."""
    classes = logits.shape[1]
    with_grad = grad.shape[0] > 0
    x = np.empty(classes, np.float32)
    work = np.empty(CHUNK)
    zero = logits.dtype.type(0)
    for i in range(start, stop):
        z, t = logits[i], soft[i]
        factor = scale * weight * (row_weight[i] if len(row_weight) > 0 else 1.0)
        m = _maximum(z)
        mass, gap = _target_sums(z, t, np.float64(m))
        if mass == 0.0 or (len(row_weight) > 0 and row_weight[i] == 0.0):
            loss[i] = 0.0
            if with_grad:
                fill_row(grad[i], zero)
            continue
        tail = exp_tail_into(z, x, m, work)
        loss[i] = weight * (gap + mass * log1p(tail))
        if with_grad:
            a = factor * mass / (1.0 + tail)
            if abs(a) > MOST_FLOAT or abs(factor) * max(mass, 1.0) > MOST_FLOAT:
                _gradient_in_double(x, t, a, factor, grad[i])
            else:
                _gradient(x, t, np.float32(a), np.float32(factor), grad[i])


@helper
def _block_mass(t: Any, row_weight: Any, lanes: Any, f: Any) -> None:
    """``T`` and the rows' factors, 0 where nothing counts."""
    wide_vectors()
    clear_sum(f, MASS)
    for start in range(0, len(t), LANES):
        target = t[start : start + LANES]
        for i in range(LANES):
            f[MASS * LANES + i] += np.float64(target[i])
    for i in range(LANES):
        counts = f[MASS * LANES + i] != 0.0 and i < lanes
        f[FACTOR * LANES + i] = (row_weight[i] if len(row_weight) > 0 else 1.0) if counts else 0.0


@helper
def _block_gap(x: Any, t: Any, m: Any, f: Any) -> None:
    """``sum t (m - z)``; what has no mass adds nothing."""
    wide_vectors()
    clear_sum(f, NLL)
    for start in range(0, len(x), LANES):
        z = x[start : start + LANES]
        target = t[start : start + LANES]
        for i in range(LANES):
            v = np.float64(target[i])
            d = v * (np.float64(m[i]) - np.float64(z[i]))
            f[NLL * LANES + i] += d if v != 0.0 else 0.0


@helper
def _block_gradient(x: Any, t: Any, a: Any, b: Any) -> None:
    wide_vectors()
    for start in range(0, len(x), LANES):
        e = x[start : start + LANES]
        target = t[start : start + LANES]
        for i in range(LANES):
            e[i] = multiply_add(e[i], a[i], -(b[i] * target[i]))


@kernel
def short_rows(
    logits: Any, soft: Any, weight: Any, scale: Any, row_weight: Any, grad: Any, loss: Any, start: Any, stop: Any
) -> None:
    """What `wide_rows` computes, of float32 numbers, for rows as `narrow` takes them."""
    classes = logits.shape[1]
    with_grad = grad.shape[0] > 0
    x = np.empty(classes * LANES, np.float32)
    t = np.zeros(classes * LANES, np.float32)
    m = np.empty(LANES, np.float32)
    a = np.empty(LANES, np.float32)
    b = np.empty(LANES, np.float32)
    f = np.zeros(BLOCK_FIELDS * LANES)
    for first in range(start, stop, LANES):
        last = min(first + LANES, stop)
        load_targets(soft[first:last], t)
        _block_mass(t, row_weight[first:last] if len(row_weight) > 0 else row_weight, last - first, f)
        load_rows(logits[first:last], f, x)
        block_maximum(x, m)
        _block_gap(x, t, m, f)
        block_exp(x, m)
        block_tail(x, f)
        most = 0.0
        for i in range(LANES):
            mass, tail = f[MASS * LANES + i], f[TAIL * LANES + i]
            f[LOSS * LANES + i] = weight * (f[NLL * LANES + i] + mass * log1p(tail))
            along = scale * weight * f[FACTOR * LANES + i]
            f[ALONG * LANES + i] = along * mass / (1.0 + tail)
            f[AGAINST * LANES + i] = along
            most = max(most, abs(along) * max(mass, 1.0))
        store_loss(f, loss[first:last])
        if not with_grad:
            continue
        if most > MOST_FLOAT:
            for k in range(classes):
                for i in range(LANES):
                    e, target = np.float64(x[k * LANES + i]), np.float64(t[k * LANES + i])
                    x[k * LANES + i] = f[ALONG * LANES + i] * e - f[AGAINST * LANES + i] * target
        else:
            for i in range(LANES):
                a[i] = f[ALONG * LANES + i]
                b[i] = f[AGAINST * LANES + i]
            _block_gradient(x, t, a, b)
        store_rows(x, grad[first:last])
