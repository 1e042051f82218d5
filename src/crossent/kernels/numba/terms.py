"""The losses in compiled form: each one's value, and its derivative with respect to each row statistic.

A loss is a sum of terms; a term is a row ``(code, scale, parameter)`` of a table. The numbers of a row lie in *fields*:
field j of the row in lane i is ``f[j * lanes + i]``. A block of short rows has `LANES` lanes, and every loop over them
becomes vector code; a long row is alone, in one lane.

With ``nll`` the weighted negative log-likelihood, ``W`` the weighted mass of the target, ``n`` the plain
``LSE - z_y`` and ``miss = 1 - p_y``::

    cross-entropy   nll                       d/dnll 1
    focal(g)        miss^g nll                d/dnll miss^g,     d/dmiss g miss^g (nll / miss)
    poly1(c)        nll + c W miss            d/dnll 1,          d/dmiss c W
    generalised(q)  W (1 - e^(-q n)) / q      d/dnll e^(-q n)
    z-penalty       lse^2                     d/dlse 2 lse
    entropy         H                         d/dH 1
    Brier           W brier                   d/dbrier W

At ``miss = 0`` the ratio ``nll / miss`` is its limit W. At ``nll = inf`` (the true class is masked) focal's ``d/dmiss``
only ever multiplies ``p_y = 0``, and the limit of ``p_y nll`` is 0, so the ratio is set to 0. Both keep every gradient
finite for every g >= 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from crossent.losses import (
    FAMILY,
    Brier,
    CrossEntropy,
    Distillation,
    EntropyPenalty,
    Focal,
    GeneralizedCrossEntropy,
    Poly1,
    ZPenalty,
)

from .compile import helper, inlined, intrinsic, wide_vectors
from .exp import exp_sum, fused_multiply_add, integer_power

__all__ = ["FIELDS", "LANES", "evaluate_terms", "lanes_of", "number_fields"]

FORMS = (CrossEntropy, Focal, Poly1, GeneralizedCrossEntropy, ZPenalty, EntropyPenalty, Brier)
"""The losses that `evaluate_terms` computes, as they lie in `FAMILY`."""

CROSS_ENTROPY, FOCAL, POLY1, GENERALIZED, Z_PENALTY, ENTROPY_PENALTY, BRIER_TERM = range(len(FORMS))

# Distillation has a kernel of its own. Compiled code holds the places and is kept on disk by the sources of
# the kernels alone, so the places are written here and compared.
if (*FORMS, Distillation) != FAMILY:
    raise ImportError(f"the compiled forms of losses are {FORMS}, but the losses are {FAMILY}")


def number_fields(start: int, stop: int) -> list[np.int64]:
    """Numbers of fields. Numba would compile a function anew for every plain Python integer that it is called with."""
    return [np.int64(i) for i in range(start, stop)]


# What goes in ...
MASS, NLL, PLAIN, PLAIN_LOW, MISS, LSE, ENTROPY, BRIER = number_fields(0, 8)
# ... and what comes out.
LOSS, D_NLL, D_MISS, D_LSE, D_ENTROPY, D_BRIER, WORK = number_fields(8, 15)
FIELDS = int(WORK) + 1

LANES = 64


@intrinsic
def lanes_of(typingctx: Any, work: Any) -> Any:
    """How many rows lie in the fields: 1 with a buffer for a long row, `LANES` with None."""
    lanes = LANES if isinstance(work, types.NoneType) else 1
    return types.intp(work), lambda context, builder, signature, arguments: context.get_constant(types.intp, lanes)


@inlined
def evaluate_terms(f: Any, terms: Any, work: Any) -> None:
    """Fill the fields from `LOSS` on from those before it; `work` is None for a block, as `lanes_of` takes it.

    `terms` is None for plain cross-entropy, whose other slopes stay 0: a first call then compiles no other loss.
    """
    if terms is None:
        lanes = lanes_of(work)
        for i in range(lanes):
            f[LOSS * lanes + i] = f[NLL * lanes + i]
            f[D_NLL * lanes + i] = 1.0
    else:
        _add_terms(f, terms, work)


@helper
def _add_terms(f: Any, terms: Any, work: Any) -> None:
    wide_vectors()
    lanes = lanes_of(work)
    for i in range(LOSS * lanes, WORK * lanes):
        f[i] = 0.0
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
                weight = scale * a * f[MASS * lanes + i]  # 0 of cross-entropy
                f[LOSS * lanes + i] += scale * f[NLL * lanes + i] + weight * f[MISS * lanes + i]
                f[D_NLL * lanes + i] += scale
                f[D_MISS * lanes + i] += weight
        elif code == FOCAL:
            n = int(a) if a <= 15.0 else -1
            if n == a:
                for i in range(lanes):
                    f[WORK * lanes + i] = integer_power(f[MISS * lanes + i], n)
            else:
                for i in range(lanes):
                    f[WORK * lanes + i] = math.pow(f[MISS * lanes + i], a)
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
