"""Value, gradient and Hessian of any loss, composed from the row statistics it reads.

With φ the loss as a function of the statistics s::

    L           = φ(s)
    ∂L/∂z       = Σ_s φ_s · ∂s/∂z
    ∇²L         = Σ_s φ_s · ∇²s + Σ_{s,u} φ_su · (∂s/∂z)(∂u/∂z)ᵀ

φ_s and φ_su come from evaluating the loss's one line on jets. For hard targets the variables are ``nll_plain, lse,
entropy, brier`` (``miss = 1 - e^{-nll_plain}`` is a function of ``nll_plain``); for soft ones ``nll, miss, lse,
entropy, brier``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crossent.core.arrays import Array
from crossent.core.jet import Jet
from crossent.core.links import SigmoidRows
from crossent.core.statistics import Rows
from crossent.core.target import Target, Teacher
from crossent.core.teachers import TeacherRows, TopKRows
from crossent.losses import Loss

# Stands for a larger or infinite nll while derivatives are taken: e^-LARGE is exactly 0 in every dtype, and LARGE·0 is
# 0, the limit of p·nll as p → 0.
LARGE = 1e5


def rows_of(logits: Array, target: Target) -> Rows:
    """Return the statistics of rows of logits (N, K) beside their target; with the sigmoid link, of N·K rows."""
    if target.link == "sigmoid":
        return SigmoidRows(logits, target)
    if target.teacher is None:
        return Rows(logits, target)
    return TopKRows(logits, target) if isinstance(target.teacher, Teacher) else TeacherRows(logits, target)


class _JetStatistics:
    """Hands each statistic to a loss as a jet."""

    def __init__(self, rows: Rows, order: int):
        self._rows, self._order = rows, order

    def _variable(self, name: str) -> Jet:
        return Jet.variable(name, getattr(self._rows, name), order=self._order)

    @property
    def mass(self) -> Array:
        return self._rows.mass

    @property
    def nll_plain(self) -> Jet:
        xp, plain = self._rows.xp, self._rows.nll_plain
        finite = xp.where(plain > LARGE, xp.full_like(plain, LARGE), plain)
        return Jet.variable("nll_plain", finite, order=self._order)

    @property
    def nll(self) -> Jet:
        if self._rows.target.is_hard:
            return self.nll_plain * self.mass
        xp, nll = self._rows.xp, self._rows.nll
        return Jet.variable("nll", xp.where(xp.isinf(nll), xp.zeros_like(nll), nll), order=self._order)

    def lost_likelihood(self, q: float) -> Jet:
        """1 - p_y^q as a function of nll_plain; its derivative there is q p_y^q."""
        power = self._rows.likelihood_power(q)
        return self.nll_plain.chain(self._rows.lost_likelihood(q), q * power, lambda: -q * q * power)

    @property
    def miss(self) -> Jet:
        if self._rows.target.is_hard:
            return self.lost_likelihood(1.0)
        return self._variable("miss")

    @property
    def lse(self) -> Jet:
        return self._variable("lse")

    @property
    def entropy(self) -> Jet:
        return self._variable("entropy")

    @property
    def brier(self) -> Jet:
        return self._variable("brier")

    @property
    def divergence(self) -> Jet:
        return self._variable("divergence")


def _column(x: Any) -> Any:
    """Return a (N,) array as (N, 1), a number as it is."""
    return x[:, None] if getattr(x, "ndim", 0) == 1 else x


def derivatives(loss: Loss, rows: Rows, *, order: int) -> Jet:
    """Return φ as a jet in the statistics."""
    return loss.of(_JetStatistics(rows, order))


def value(loss: Loss, rows: Rows) -> Array:
    """Return the loss of each row, (N,), in nats."""
    return loss.of(rows)


def gradient(loss: Loss, rows: Rows) -> Array:
    """Return ∂L/∂z, (N, K)."""
    total: Any = 0.0
    for name, slope in derivatives(loss, rows, order=1).first.items():
        total = total + _column(slope) * rows.gradient_row(name)
    return total


def _cross_terms(jet: Jet, rows: Rows) -> Iterator[tuple[Any, Array, Array, bool]]:
    assert jet.second is not None
    for (a, b), curvature in jet.second.items():
        if not isinstance(curvature, float) or curvature != 0.0:
            yield _column(curvature), rows.gradient_row(a), rows.gradient_row(b), a == b


def hessian_diagonal(loss: Loss, rows: Rows) -> Array:
    """Return the diagonal of ∇²L, (N, K)."""
    jet = derivatives(loss, rows, order=2)
    total: Any = 0.0
    for name, slope in jet.first.items():
        total = total + _column(slope) * rows.hessian_diagonal(name)
    for curvature, left, right, same in _cross_terms(jet, rows):
        total = total + (curvature * left) * right * (1 if same else 2)
    return total


def hessian_product(loss: Loss, rows: Rows, vector: Array) -> Array:
    """Return ∇²L · vector, (N, K)."""
    jet = derivatives(loss, rows, order=2)
    total: Any = 0.0
    for name, slope in jet.first.items():
        total = total + _column(slope) * rows.hessian_product(name, vector)

    def along(row: Array) -> Array:
        return _column(rows.xp.sum(row * vector, axis=-1))

    for curvature, left, right, same in _cross_terms(jet, rows):
        total = total + (curvature * left) * along(right)
        if not same:
            total = total + (curvature * right) * along(left)
    return total
