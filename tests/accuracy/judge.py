"""The bars of the accuracy table, and how far results are from the oracle's, in ulps.

==========================  =======  =======
bar, in ulps                float32  float64
==========================  =======  =======
value                       2        4
gradient component          4        8
entry of the diagonal       16       16
==========================  =======  =======

Values and gradients of hard-target cross-entropy, focal and generalised cross-entropy are judged relative to
themselves, all else relative to the summed magnitudes of the formula's terms; focal's bars are multiplied by 1 + γ; an
absolute error of K smallest normal numbers times the largest multiplier is free, since terms may underflow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import oracle
from oracle import Row, Term

VALUE_BAR = {np.float32: 2, np.float64: 4}
GRADIENT_BAR = {np.float32: 4, np.float64: 8}
HESSIAN_BAR = 16
DIVERGENCE_BAR = {np.float32: 4, np.float64: 8}
"""Of the value of a divergence, relative to itself; a gradient's is as ever."""
DTYPES = [np.float32, np.float64]
WHAT = ("value", "gradient", "diagonal")


def bars(dtype: Any) -> tuple[float, float, float]:
    """The bars of value, gradient and diagonal."""
    return VALUE_BAR[dtype], GRADIENT_BAR[dtype], HESSIAN_BAR


def factor(terms: tuple[Term, ...]) -> float:
    """1 + γ: a power multiplies relative errors."""
    return 1 + max(parameter if name == "focal" else 0.0 for name, _, parameter in terms)


def largest_multiplier(terms: tuple[Term, ...], z: np.ndarray, weight: Any = 1.0) -> np.ndarray:
    """For each row, what a probability that underflows may be multiplied by: the loss's slopes in its statistics."""
    z = np.where(np.isinf(z), 0.0, z.astype(np.float64))
    with np.errstate(over="ignore"):
        spread = 1 + np.minimum(np.ptp(z, axis=1), 1e300) + np.log(z.shape[1])  # no -log p_k is larger
    lse = 1 + np.abs(z).max(axis=1) + np.log(z.shape[1])
    heaviest = max(1.0, float(np.max(weight, initial=0.0)))
    slopes = {"z_penalty": 2 * lse, "entropy": spread, "focal": heaviest * spread}
    parts = [
        abs(scale) * max(1.0, abs(parameter)) * slopes.get(name, np.full(len(z), heaviest))
        for name, scale, parameter in terms
    ]
    return np.max(parts, axis=0)


def slack_of(num_classes: int, dtype: Any, multiplier: Any = 1.0) -> Any:
    """The absolute error that is free."""
    return num_classes * float(np.finfo(dtype).smallest_normal) * multiplier


@dataclass(frozen=True)
class Entry:
    """One judged number."""

    what: str
    row: int
    index: int
    got: float
    exact: Any
    scale: Any
    ulps: float

    @property
    def is_judged_by_itself(self) -> bool:
        """Whether the error was taken relative to the exact number itself, and not to summed magnitudes."""
        return abs(self.scale) <= abs(self.exact) * (1 + oracle.mpf(10) ** -25)


def entries(results: Sequence[Any], rows: Sequence[Row], dtype: Any, slack: Any) -> Iterator[Entry]:
    """Every value, gradient component and entry of the diagonal, as far as `results` go, with its error."""
    wanted = (
        [([row.value], [row.value_scale]) for row in rows],
        [(row.gradient, row.gradient_scale) for row in rows],
        [(row.hessian, row.hessian_scale) for row in rows],
    )
    slack = np.broadcast_to(slack, len(rows))
    for result, pairs, what in zip(results, wanted, WHAT, strict=False):
        flat = np.asarray(result).reshape(len(rows), -1)
        for i, (exact, scale) in enumerate(pairs):
            for k, (e, s) in enumerate(zip(exact, scale, strict=True)):
                got = flat[i, k]
                yield Entry(what, i, k, got, e, s, oracle.error_in_ulps(got, e, s, dtype, slack[i]))


def scaled(row: Row, factor: Any) -> Row:
    """The row's loss times an exact factor: its weight over the mean's denominator."""
    numbers = [row.gradient, row.hessian, row.gradient_scale, row.hessian_scale]
    gradient, hessian, gradient_scale, hessian_scale = ([factor * x for x in part] for part in numbers)
    value, value_scale = factor * row.value, factor * row.value_scale
    return Row(value, gradient, hessian, value_scale, gradient_scale, hessian_scale)


def judge(results: Sequence[Any], rows: Sequence[Row], terms: tuple[Term, ...], dtype: Any, slack: Any) -> float:
    """Assert that (values, gradients, diagonals) meet the bars; say where they do not. Return the largest share."""
    allowed = dict(zip(WHAT, bars(dtype), strict=True))
    share = 0.0
    for entry in entries(results, rows, dtype, slack):
        bar = allowed[entry.what] * factor(terms)
        assert entry.ulps <= bar, (
            f"{entry.what} of row {entry.row}, entry {entry.index}: {entry.ulps:.3g} ulps, allowed {bar:g}; "
            f"got {entry.got!r}, exact {float(entry.exact)!r}, judged at {float(entry.scale):.3g}"
        )
        share = max(share, entry.ulps / bar)
    return share
