"""Kernels for Hessian products of softmax regression with many classes, where few entries of p hold the curvature.

Entries are kept row after row: row r's are ``starts[r]:starts[r + 1]`` of `classes` and `values`, the likeliest class
first.
"""

from __future__ import annotations

from typing import Any

from .numba.compile import kernel, wide_vectors
from .numba.exp import add_in_any_order

__all__ = ["draw", "multiply"]


@kernel
def draw(
    p: Any, top: Any, rest: Any, mass: Any, least: float, phase: float, rows: Any, ends: Any, classes: Any, values: Any
) -> Any:
    """Keep the entries of p (n, K) whose curvature counts; return how many rows and entries were kept.

    An entry with ``mass · p < least`` is kept with probability ``mass · p / least`` as one of that size (systematic
    sampling from `phase` in [0, 1)). A row of which only the likeliest class, which is always kept, remains is left
    out. `ends` are where the rows' entries end; the outputs are as long as p has rows and entries.
    """
    reached = phase
    num_rows = 0
    num_entries = 0
    for i in range(p.shape[0]):
        limit = least / mass[i]
        if rest[i] < limit and reached + rest[i] / limit < 1.0:  # nothing of this row can be drawn
            reached += rest[i] / limit
            continue
        start = num_entries
        row = p[i]
        largest = top[i]
        classes[num_entries] = largest
        values[num_entries] = row[largest]
        num_entries += 1
        for k in range(len(row)):
            if k == largest:
                continue
            value = row[k]
            if value < limit:
                reached += value / limit
                if reached < 1.0:
                    continue
                reached -= 1.0
                value = limit
            classes[num_entries] = k
            values[num_entries] = value
            num_entries += 1
        if num_entries == start + 1:
            num_entries = start
            continue
        rows[num_rows] = i
        ends[num_rows] = num_entries
        num_rows += 1
    return num_rows, num_entries


@kernel
def multiply(
    columns: Any, rows: Any, starts: Any, classes: Any, values: Any, mass: Any, weight: Any, bias: Any, u: Any, out: Any
) -> None:
    """Add ``Σ_i a_i (diag p_i - p_i p_iᵀ / Σ_k p_ik) (V x_i + b) (x_i, 1)ᵀ`` to `out` (K, D + 1).

    V is `weight` (K, D), b `bias`, x_i ``columns[rows[i]]``; `u` is a buffer for K numbers.
    """
    wide_vectors()
    features = columns.shape[1]
    for i in range(len(rows)):
        x = columns[rows[i]]
        first = starts[i]
        count = starts[i + 1] - first
        total = values[first] - values[first]  # 0 in the arrays' precision
        zero = total
        mean = total
        shift = total
        for j in range(count):
            k = classes[first + j]
            v = weight[k]
            dot = zero
            for d in range(len(x)):
                dot = add_in_any_order(dot, v[d] * x[d])
            dot += bias[k]
            if j == 0:
                shift = dot
            u[j] = dot - shift
            mean += values[first + j] * u[j]
            total += values[first + j]
        mean /= total
        for j in range(count):
            factor = mass[i] * values[first + j] * (u[j] - mean)
            row = out[classes[first + j]]
            gradient = row[:features]
            for d in range(len(x)):
                gradient[d] += factor * x[d]
            row[features] += factor
