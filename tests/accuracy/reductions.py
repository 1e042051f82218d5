"""Sample weights and denominators: the reduced value, and the gradient with every row's factor in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
from oracle import Options, Row, Term, mpf

import crossent as ce

from .errors import Errors, Key
from .judge import DTYPES, largest_multiplier, scaled, slack_of

CE: tuple[Term, ...] = oracle.CROSS_ENTROPY
FOCAL: tuple[Term, ...] = (("focal", 1.0, 2.0),)
SETTINGS: list[tuple[ce.Loss, tuple[Term, ...], float]] = [
    (ce.CrossEntropy(), CE, 0.0),
    (ce.CrossEntropy(), CE, 0.1),
    (ce.Focal(2.0), FOCAL, 0.0),
]
NORMALIZERS: tuple[Any, ...] = (None, "count", 1e-6, 1e12, "sum")


def _denominator(normalizer: Any, weight: np.ndarray, sample_weight: np.ndarray, y: np.ndarray) -> Any:
    if normalizer is None:
        return sum(mpf(float(weight[k])) * mpf(float(s)) for k, s in zip(y, sample_weight, strict=True))
    return mpf({"count": len(y), "sum": 1}.get(normalizer, normalizer) if isinstance(normalizer, str) else normalizer)


def as_one(rows: list[Row]) -> Row:
    """The sum of the rows' losses, and their gradients one after the other."""
    gradient, scale = ([x for row in rows for x in getattr(row, name)] for name in ("gradient", "gradient_scale"))
    return Row(sum(r.value for r in rows), gradient, [], sum(r.value_scale for r in rows), scale)


def softmax(repeats: int) -> dict[Key, Errors]:
    """Class weights and sample weights over up to thirty orders of magnitude each, under every denominator."""
    found = {}
    for loss, terms, smoothing in SETTINGS:
        name = "sample weights, smoothed" if smoothing else "sample weights"
        for dtype in DTYPES:
            errors = found[repr(loss), name, np.dtype(dtype).name] = Errors.of(terms, dtype)
            for seed in range(repeats):
                rng = np.random.default_rng([seed, 11])
                k = (3, 5, 70)[seed % 3] if not smoothing else (3, 5, 9)[seed % 3]
                orders = (2.0, 15.0, 30.0)[seed // 3 % 3]
                weight, sample_weight = (10.0 ** rng.uniform(-orders / 2, orders / 2, n) for n in (k, 4))
                z = rng.normal(scale=rng.choice([0.1, 1.0, 4.0], (4, 1)), size=(4, k)).astype(dtype)
                z[:2, 0] += dtype(rng.choice([5.0, 40.0, 90.0]))
                y = rng.integers(0, k, 4)
                exact = oracle.softmax_row if smoothing else oracle.tail_row
                given = Options(terms, weight=weight, label_smoothing=smoothing)
                rows = [exact(row, int(label), given) for row, label in zip(z, y, strict=True)]
                normalizer = NORMALIZERS[seed % len(NORMALIZERS)]
                reduction = {"reduction": "sum"} if normalizer == "sum" else {"normalizer": normalizer}
                denominator = _denominator(normalizer, weight, sample_weight, y)
                factors = [mpf(float(s)) / denominator for s in sample_weight]
                whole = as_one([scaled(row, f) for row, f in zip(rows, factors, strict=True)])
                options = {"loss": loss, "weight": weight, "sample_weight": sample_weight, "label_smoothing": smoothing}
                value, gradient = ce.value_and_grad(z, y, **options, **reduction)
                multiplier = largest_multiplier(terms, z, weight).max() * max(1.0, float(max(factors)))
                errors.judge(([value], gradient[None]), [whole], dtype, slack_of(k, dtype, multiplier), len(rows))
    return found


def sigmoid(repeats: int) -> dict[Key, Errors]:
    """Elementwise and sample weights over thirty orders of magnitude, alpha and smoothing, under every denominator."""
    found = {}
    for loss, terms in ((ce.CrossEntropy(), CE), (ce.Focal(2.0), FOCAL)):
        for dtype in DTYPES:
            errors = found[repr(loss), "sigmoid link, weighted", np.dtype(dtype).name] = Errors.of(terms, dtype)
            for seed in range(repeats):
                rng = np.random.default_rng([seed, 13])
                z = (rng.normal(size=(3, 4)) * 10.0 ** rng.uniform(-3, 2, (3, 4))).astype(dtype)
                y = rng.integers(0, 2, (3, 4))
                weight, sample_weight = 10.0 ** rng.uniform(-15, 15, (3, 4)), 10.0 ** rng.uniform(-15, 15, 3)
                alpha = (None, 0.25, 1e-6)[seed % 3]
                normalizer = NORMALIZERS[seed % len(NORMALIZERS)]
                reduction = {"reduction": "sum"} if normalizer == "sum" else {"normalizer": normalizer}
                sides = None if alpha is None else [1 - alpha, alpha]
                rows, multiplier = [], 1.0
                denominator = mpf(y.size) if normalizer in (None, "count") else _denominator(normalizer, z, z, y)
                for i in range(3):
                    for k in range(4):
                        row = oracle.sigmoid_row(z[i, k], int(y[i, k]), Options(terms, weight=sides))
                        f = mpf(float(weight[i, k])) * mpf(float(sample_weight[i])) / denominator
                        rows.append(scaled(row, f))
                        multiplier = max(multiplier, float(f))
                options = {"loss": loss, "weight": weight, "sample_weight": sample_weight, "alpha": alpha}
                value, gradient = ce.value_and_grad(z, y, link="sigmoid", **options, **reduction)
                slack = slack_of(2, dtype, multiplier * largest_multiplier(terms, z).max())
                errors.judge(([value], gradient.reshape(1, -1)), [as_one(rows)], dtype, slack, len(rows))
    return found
