"""What is summed over the classes of a row: each formula once, for a long row and for a block of short ones.

Exponentials are ``e_k = e^(z_k - m)`` with the row's maximum m and the sum s; ``t'_k = (1 - epsilon) t_k + epsilon/K``
is the smoothed target. Sums of float32 rows are doubles, which have 29 bits to spare; those of float64 rows carry their
rounding errors along. Every sum lies in two fields, the second for these errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import types

from .bits import as_number
from .compile import COMPILED, INLINED, helper, inlined, named, wide_vectors
from .exp import add_in_any_order, multiply_add, overload, pairwise_sum
from .terms import FIELDS, LANES, number_fields

__all__ = [
    "CHUNK",
    "Scalars",
    "add_to",
    "add_two_sum",
    "clear_sum",
    "compensated",
    "sum_of",
    "sum_of_exponentials",
    "sum_of_gaps",
    "sum_of_hits",
    "sum_of_inner",
    "sum_of_mass",
    "sum_of_misses",
    "sum_of_spread",
    "sum_of_squares",
]

CHUNK = 1024
"""So many numbers of a long row are taken together; what is made of them stays in the first-level cache."""

# What is known of a row before its sums: the maximum, and the sum of its exponentials as a pair.
TOP, TOTAL, TOTAL_LOW = number_fields(FIELDS, FIELDS + 3)
# Sums, each with its rounding errors behind it.
GAP, GAP_LOW, HIT, HIT_LOW, OTHER, OTHER_LOW, SPREAD, SPREAD_LOW = number_fields(FIELDS + 3, FIELDS + 11)
SQUARES, SQUARES_LOW, INNER, INNER_LOW, WEIGHT, WEIGHT_LOW = number_fields(FIELDS + 11, FIELDS + 17)
SUM_FIELDS = int(WEIGHT_LOW) + 1


class Scalars(NamedTuple):
    """What is the same for all rows: the smoothed target is ``t' = kept · t + share``.

    ``1 - t'`` is ``kept · (1 - t) + rest``, without the rounding of t'. `total` is the classes' summed weight, `unit`
    that of the weights in the logits' precision, `is_plain` says that there are no weights and no smoothing, and
    `scale` is a factor of the gradient.
    """

    kept: float
    share: float
    rest: float
    smoothing: float
    total: float
    unit: float
    is_plain: bool
    scale: float


@helper
def add_two_sum(high: Any, low: Any, x: Any) -> Any:
    """``(high, low) + x`` where ``low`` gathers the rounding errors (compensated); an infinite sum has none."""
    total = high + x
    shifted = total - high
    error = (high - (total - shifted)) + (x - shifted)
    return total, low + (error if abs(total) < np.inf else 0.0)


def _add_compensated(f: Any, field: Any, i: Any, v: Any, like: Any) -> None:
    high = f[field * LANES + i]
    total = high + v
    shifted = total - high
    f[(field + 1) * LANES + i] += (high - (total - shifted)) + (v - shifted)
    f[field * LANES + i] = total


def _add_plainly(f: Any, field: Any, i: Any, v: Any, like: Any) -> None:
    f[field * LANES + i] += v


def add_to(f: Any, field: Any, i: Any, v: Any, like: Any) -> None:
    """Add a number to the sum in a field, for rows of the dtype of `like`."""
    raise NotImplementedError("runs only inside compiled code")


# Numba requires the two signatures to agree in every detail, annotations included.
@overload(add_to, jit_options=INLINED)
def _typed_add(f: Any, field: Any, i: Any, v: Any, like: Any) -> Any:
    return _add_plainly if like.dtype == types.float32 else _add_compensated


@inlined
def compensated(f: Any, field: Any, lanes: Any, i: Any) -> Any:
    """The sum in a field."""
    high = f[field * lanes + i]
    return high + f[(field + 1) * lanes + i] if abs(high) < np.inf else high


@helper
def clear_sum(f: Any, field: Any) -> None:
    for i in range(2 * LANES):
        f[field * LANES + i] = 0.0


def _sum_in_any_order(values: Any, like: Any) -> Any:
    wide_vectors()
    total = 0.0
    for i in range(len(values)):
        total = add_in_any_order(total, values[i])
    return total


def _sum_by_halves(values: Any, like: Any) -> Any:
    return pairwise_sum(values)


def sum_of(values: Any, like: Any) -> Any:
    """The sum of doubles that come from numbers of the dtype of `like`; they may be overwritten.

    Those that come from single precision may be added in any order.
    """
    raise NotImplementedError("runs only inside compiled code")


@overload(sum_of, jit_options=COMPILED)
def _typed_sum(values: Any, like: Any) -> Any:
    return _sum_by_halves if like.dtype == types.float64 else _sum_in_any_order


def _make_sum(term: Callable[..., Any], name: str) -> Any:
    """Compile the sum of a formula over the classes.

    The sum takes ``(field, z, e, t, w, s, work, f)``: logits, exponentials, target (None for labels), weights of the
    classes, `Scalars`; `work` is a buffer of `CHUNK` doubles for a long row, and None for a block of short rows,
    which lie side by side with the classes outside.
    """
    term = inlined(named(term, f"{name}_term"))

    def of_row(field: Any, z: Any, e: Any, t: Any, w: Any, s: Any, work: Any, f: Any) -> Any:
        wide_vectors()
        top, total, total_low = f[TOP], f[TOTAL], f[TOTAL_LOW]
        high, low = 0.0, 0.0
        for start in range(0, len(e), CHUNK):
            logits, powers, weights = z[start : start + CHUNK], e[start : start + CHUNK], w[start : start + CHUNK]
            target = powers if t is None else t[start : start + CHUNK]
            out = work[: len(powers)]
            for i in range(len(out)):
                goal = 0.0 if t is None else np.float64(target[i])
                v, p = np.float64(as_number(logits[i])), np.float64(powers[i])
                out[i] = term(v, p, goal, weights[i], top, total, total_low, s)
            high, low = add_two_sum(high, low, sum_of(out, e))
        f[field] = high
        f[field + 1] = low

    def of_block(field: Any, z: Any, e: Any, t: Any, w: Any, s: Any, work: Any, f: Any) -> Any:
        wide_vectors()
        for i in range(2 * LANES):
            f[field * LANES + i] = 0.0
        for k in range(len(w)):
            here, end = k * LANES, (k + 1) * LANES
            logits, powers, weight = z[here:end], e[here:end], w[k]
            target = powers if t is None else t[here:end]
            for i in range(LANES):
                goal = 0.0 if t is None else np.float64(target[i])
                top, total, total_low = f[TOP * LANES + i], f[TOTAL * LANES + i], f[TOTAL_LOW * LANES + i]
                v = term(np.float64(logits[i]), np.float64(powers[i]), goal, weight, top, total, total_low, s)
                add_to(f, field, i, v, e)

    def total(field: Any, z: Any, e: Any, t: Any, w: Any, s: Any, work: Any, f: Any) -> Any:
        raise NotImplementedError("runs only inside compiled code")

    def choose(field: Any, z: Any, e: Any, t: Any, w: Any, s: Any, work: Any, f: Any) -> Any:
        return of_block if isinstance(work, types.NoneType) else of_row

    named(of_row, f"{name}_of_row"), named(of_block, f"{name}_of_block")
    overload(total, jit_options=COMPILED)(choose)
    return named(total, name)


def _mass(z: Any, e: Any, t: Any, w: Any, top: Any, total: Any, low: Any, s: Any) -> Any:
    return w * (s.kept * t + s.share)


def _gap(z: Any, e: Any, t: Any, w: Any, top: Any, total: Any, low: Any, s: Any) -> Any:
    v = w * (s.kept * t + s.share)
    return v * (top - z) if v != 0.0 else 0.0


def _hit(z: Any, e: Any, t: Any, w: Any, top: Any, total: Any, low: Any, s: Any) -> Any:
    return e * (s.kept * t)


def _miss(z: Any, e: Any, t: Any, w: Any, top: Any, total: Any, low: Any, s: Any) -> Any:
    return e * (s.kept * (1.0 - t) + s.rest)


def _spread(z: Any, e: Any, t: Any, w: Any, top: Any, total: Any, low: Any, s: Any) -> Any:
    return e * (top - z) if e != 0.0 else 0.0


def _exponential(z: Any, e: Any, t: Any, w: Any, top: Any, total: Any, low: Any, s: Any) -> Any:
    return e


@inlined
def _distance(e: Any, t: Any, total: Any, low: Any, s: Any) -> Any:
    """``e - t' s``, which is s times ``p - t'``."""
    goal = -(s.kept * t + s.share)
    return multiply_add(goal, low, multiply_add(goal, total, e))


def _square(z: Any, e: Any, t: Any, w: Any, top: Any, total: Any, low: Any, s: Any) -> Any:
    d = _distance(e, t, total, low, s)
    return d * d


def _inner(z: Any, e: Any, t: Any, w: Any, top: Any, total: Any, low: Any, s: Any) -> Any:
    return e * _distance(e, t, total, low, s)


sum_of_mass = _make_sum(_mass, "sum_of_mass")
"""``sum w t'``."""

sum_of_gaps = _make_sum(_gap, "sum_of_gaps")
"""``sum w t' (m - z)``; what weighs nothing adds nothing, even where it is masked."""

sum_of_hits = _make_sum(_hit, "sum_of_hits")
"""``sum (1 - epsilon) t e``."""

sum_of_misses = _make_sum(_miss, "sum_of_misses")
"""``sum (1 - t') e``."""

sum_of_spread = _make_sum(_spread, "sum_of_spread")
"""``sum e (m - z)``; a masked class adds nothing."""

sum_of_exponentials = _make_sum(_exponential, "sum_of_exponentials")
"""``sum e``."""

sum_of_squares = _make_sum(_square, "sum_of_squares")
"""``sum (e - t' s)^2``."""

sum_of_inner = _make_sum(_inner, "sum_of_inner")
"""``sum e (e - t' s)``."""
