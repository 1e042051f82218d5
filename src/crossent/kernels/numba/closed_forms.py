"""The losses as compiled closed forms: the value and its derivative with respect to each row statistic.

A loss is a sum of terms; a term is a row ``(code, scale, parameter)`` of a table. The statistics and the results of a
block of rows lie in one flat float64 array of fields, ``lanes`` numbers each, so that the same source serves one row at
a time (``lanes = 1``) and blocks of rows (``lanes = LANES``), where every loop becomes vector code.

With ``nll`` the weighted negative log-likelihood, ``W`` the weighted mass of the target, ``n`` the plain
``LSE - z_y`` and ``miss = 1 - p_y``::

    cross-entropy   nll                       d/dnll 1
    focal(g)        miss^g nll                d/dnll miss^g,     d/dmiss g miss^g (nll / miss)
    poly1(c)        nll + c W miss            d/dnll 1,          d/dmiss c W
    generalised(q)  W (1 - e^(-q n)) / q      d/dnll e^(-q n)
    z-penalty       lse^2                     d/dlse 2 lse
    entropy         H                         d/dH 1
    Brier           W brier                   d/dbrier W

At ``miss = 0`` the ratio ``nll / miss`` is its limit W; at ``nll = inf`` (the true class is masked) focal's
``d/dmiss`` only ever multiplies ``p_y = 0``, and the limit of ``p_y nll`` is 0, so it is set to 0. Both keep every
gradient finite for every g >= 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .compile import helper
from .exp import exp_sum, fused_multiply_add, integer_power, power

__all__ = ["FIELDS", "LANES", "block_terms", "number_fields", "row_terms"]

CROSS_ENTROPY, FOCAL, POLY1, GENERALIZED, Z_PENALTY, ENTROPY_PENALTY, BRIER_TERM = range(7)


def number_fields(start: int, stop: int) -> list[np.int64]:
    """Numbers of fields. Numba would compile a function anew for every plain Python integer that it is called with."""
    return [np.int64(i) for i in range(start, stop)]


# Fields: what goes in ...
MASS, NLL, PLAIN, PLAIN_LOW, MISS, LSE, ENTROPY, BRIER = number_fields(0, 8)
# ... and what comes out.
LOSS, D_NLL, D_MISS, D_LSE, D_ENTROPY, D_BRIER, WORK = number_fields(8, 15)
FIELDS = int(WORK) + 1

LANES = 64


def _make_terms(lanes: int, name: str) -> Any:
    def evaluate(f: Any, terms: Any) -> None:
        for i in range((WORK - LOSS) * lanes):
            f[LOSS * lanes + i] = 0.0
        for t in range(terms.shape[0]):
            code = int(terms[t, 0])
            scale = terms[t, 1]
            a = terms[t, 2]
            if scale == 0.0:
                for i in range(lanes):
                    f[LOSS * lanes + i] += 0.0 * f[MISS * lanes + i]  # NaN in a row that is NaN
                continue
            if code in (CROSS_ENTROPY, POLY1):
                for i in range(lanes):
                    f[LOSS * lanes + i] += scale * f[NLL * lanes + i]
                    f[D_NLL * lanes + i] += scale
                if code == POLY1:
                    for i in range(lanes):
                        weight = scale * a * f[MASS * lanes + i]
                        f[LOSS * lanes + i] += weight * f[MISS * lanes + i]
                        f[D_MISS * lanes + i] += weight
            elif code == FOCAL:
                n = int(a) if a <= 15.0 else -1
                if n == a:
                    for i in range(lanes):
                        f[WORK * lanes + i] = integer_power(f[MISS * lanes + i], n)
                else:
                    for i in range(lanes):
                        f[WORK * lanes + i] = power(f[MISS * lanes + i], a)
                for i in range(lanes):
                    nll = f[NLL * lanes + i]
                    miss = f[MISS * lanes + i]
                    weight = scale * f[WORK * lanes + i]
                    ratio = nll / miss if miss > 0.0 else f[MASS * lanes + i]
                    ratio = 0.0 if nll == math.inf else ratio
                    f[LOSS * lanes + i] += weight * nll
                    f[D_NLL * lanes + i] += weight
                    f[D_MISS * lanes + i] += a * weight * ratio
            elif code == GENERALIZED:
                for i in range(lanes):
                    plain = f[PLAIN * lanes + i]
                    high = -a * plain
                    low = -a * f[PLAIN_LOW * lanes + i] + fused_multiply_add(-a, plain, -high)
                    # At an infinite loss the two parts are inf - inf.
                    likelihood = 0.0 if plain == math.inf else exp_sum(high, low)
                    loss = -(math.expm1(high) + (low * likelihood if low == low else 0.0)) / a
                    f[LOSS * lanes + i] += scale * f[MASS * lanes + i] * loss
                    f[D_NLL * lanes + i] += scale * likelihood
            elif code == Z_PENALTY:
                for i in range(lanes):
                    lse = f[LSE * lanes + i]
                    f[LOSS * lanes + i] += scale * lse * lse
                    f[D_LSE * lanes + i] += 2.0 * scale * lse
            elif code == ENTROPY_PENALTY:
                for i in range(lanes):
                    f[LOSS * lanes + i] += scale * f[ENTROPY * lanes + i]
                    f[D_ENTROPY * lanes + i] += scale
            else:
                for i in range(lanes):
                    weight = scale * f[MASS * lanes + i]
                    f[LOSS * lanes + i] += weight * f[BRIER * lanes + i]
                    f[D_BRIER * lanes + i] += weight

    # Machine code is found by this name, also across kernels that different processes compiled and kept on disk:
    # under one name, a kernel could be given the other's number of lanes.
    evaluate.__name__ = evaluate.__qualname__ = name
    return helper(evaluate)


row_terms = _make_terms(1, "row_terms")
block_terms = _make_terms(LANES, "block_terms")
