"""How far from the optimum a softmax regression can be, at most: the duality gap, from one gradient.

**The dual.** Let ``f(W, b) = Σ_i c_i (τ_i LSE(z_i) - <u_i, z_i>) + (λ/2)‖W‖²`` with ``z_i = W x_i + b`` and
``τ_i = Σ_k u_ik``: hard labels (u one-hot), soft and smoothed targets, class weights (inside u) and row weights (c) are
all of this form. Write ``a_i = c_i τ_i``, ``A = Σ a_i``. LSE is the conjugate of negative entropy,
``LSE(z) = max_q <q, z> + H(q)`` over distributions q, so for *any* choice of q_i

    f(W, b) ≥ Σ_i a_i H(q_i) + <Q, W> + <Σ_i (a_i q_i - c_i u_i), b> + (λ/2)‖W‖²,   Q = Σ_i (a_i q_i - c_i u_i) x_iᵀ.

Minimise the right-hand side over (W, b). Over a free b it is -∞ unless ``Σ a_i q_i = ȳ := Σ c_i u_i``: the
predicted class masses must be the observed ones, *exactly*. Then, at ``W = -Q/λ``,

    f* ≥ D(q) = Σ_i a_i H(q_i) - ‖Q‖² / (2λ).

**A feasible q from any (W, b).** The predictions p_i are the natural choice, but ``p̄ = Σ a_i p_i`` equals ȳ only
where the intercept's gradient ``p̄ - ȳ`` vanishes; using them regardless "proves" falsehoods. Mix them with one
distribution r:

    q_i = (1 - s) p_i + s r,    s = max(0, max_k (p̄_k - ȳ_k) / p̄_k),    r = (ȳ - (1 - s) p̄) / (s A) ≥ 0,

which is feasible, with the least s for which r is a distribution. Without an intercept s = 0.

**The gap without cancellation.** For any feasible q, by the equality case of the conjugate,

    f(W, b) - D(q) = Σ_i a_i KL(q_i ‖ p_i) + ‖λW + Q‖² / (2λ)

(expand both sides; <Σ a_i q_i - c_i u_i, b> = 0 is used). KL is convex, so ``KL(q_i ‖ p_i) ≤ s KL(r ‖ p_i)``, and

    gap = s Σ_i a_i KL(r ‖ p_i) + ‖λW + (1 - s)(G + M) + s r x̄ᵀ - M‖² / (2λ),

with the data's part of the gradient ``G = Σ (a_i p_i - c_i u_i) x_iᵀ``, ``M = Σ c_i u_i x_iᵀ`` and ``x̄ = Σ a_i x_i``.
Finally ``Σ a_i KL(r ‖ p_i) = Σ a_i LSE(z_i) - <r, W x̄ + A b> - A H(r)``, and ``Σ a_i LSE(z_i)`` is the data's part of f
plus ``<M, W> + <ȳ, b>``: *the certificate costs nothing beyond the gradient*. When s = 0 the gap is
``‖∇_W f‖² / (2λ)``, the bound of strong convexity. The first term is of first order in p̄ - ȳ, the second of second
order in ∇_W: polish b before asking for a proof.

**The sigmoid link** is the same with binary entropies: label k of row i has ``a_ik = c_i τ_ik`` and
``τ softplus(z) - u z``, ``softplus(z) = max_q q z + h(q)``; the conditions are ``Σ_i a_ik q_ik = ȳ_k`` and, for the
other side of each label, the same with A_k - ȳ_k; x̄ and A gain an index k, and one s serves all labels.

There is no such bound for λ = 0 (the dual is then infeasible but at the optimum), nor for losses other than
cross-entropy.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.special import entr

from .arrays import Array, inner, row_blocks
from .blocks import BlockedRows, Workspace
from .interface import DualSums, Evaluation, Objective
from .penalty import Penalty

SMALL = 1 << 14
"""Elements of a dense one-hot matrix that are less work than to build a sparse one."""


@dataclass(frozen=True)
class Gap:
    """An upper bound of f - f*, in two parts.

    `weights` is what the gradient of W accounts for, `intercept` what the mismatch of class masses adds to it.
    """

    weights: float
    intercept: float

    @property
    def total(self) -> float:
        """The duality gap f - D."""
        return self.weights + self.intercept


class Certificate:
    """The constants of the dual of a data set, and the gap at any point.

    One pass over the data (`Objective.dual_sums`) at construction.
    """

    def __init__(self, objective: Objective) -> None:
        if not (objective.penalty.has_dual and objective.is_cross_entropy):
            raise ValueError("a duality gap exists for cross-entropy with an L2 penalty only")
        self._objective = weakref.proxy(objective)  # which keeps this: a cycle would keep its rows after a fit
        self._softmax = objective.link == "softmax"
        self._fit_intercept = objective.fit_intercept
        self._last: tuple[Evaluation, Penalty, Gap] | None = None
        self.moments, self.totals, self.observed, mass = objective.dual_sums()
        self.mass = float(mass[0]) if self._softmax else mass
        """M, x̄, ȳ and A."""

    @classmethod
    def shared(cls, objective: Objective) -> Certificate:
        """Return the objective's certificate, made once for all penalties of a sweep."""
        return objective.once("certificate", lambda: cls(objective))

    def gap(self, at: Evaluation) -> Gap:
        """Return the gap of f at an evaluated point, for the objective's penalty, which must have a dual."""
        penalty = self._objective.penalty
        if self._last is None or self._last[0] is not at or self._last[1] != penalty:
            self._last = (at, penalty, self._gap(at, penalty))
        return self._last[2]

    def _gap(self, at: Evaluation, penalty: Penalty) -> Gap:
        weight, bias = at.theta[:, :-1], at.theta[:, -1]
        gradient = at.data_gradient[:, :-1]
        share, excess = self._mixing(at.data_gradient[:, -1]) if self._fit_intercept else (0.0, np.zeros(len(bias)))
        mixture = excess / (share * self.mass) if share else excess
        weights = mixed = 0.0  # of matrices as large as W no more than a block of rows is made at a time
        for rows in row_blocks(weight):
            weights += penalty.dual_gap(weight[rows], gradient[rows])
            if share:
                spread = mixture[rows, None] * (self.totals if self._softmax else self.totals[rows])
                dual = gradient[rows] + share * (spread - self.moments[rows] - gradient[rows])
                mixed += penalty.dual_gap(weight[rows], dual)
        if share == 0:
            return Gap(weights, 0.0)
        log_normalizers = at.data_loss + inner(self.moments, weight) + float(self.observed @ bias)
        mean_logits = weight @ self.totals if self._softmax else np.einsum("kd,kd->k", weight, self.totals)
        mean_logits += self.mass * bias
        divergence = log_normalizers - float(mixture @ mean_logits) - self._entropy(mixture)
        return Gap(weights, share * max(divergence, 0.0) + mixed - weights)

    def _mixing(self, bias_gradient: Array) -> tuple[float, Array]:
        """Return s and s A r = ȳ - (1 - s) p̄ = s p̄ - (p̄ - ȳ): the difference is the gradient, and has its digits."""
        predicted = bias_gradient + self.observed
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = bias_gradient / predicted
            if not self._softmax:
                shares = np.maximum(shares, bias_gradient / (predicted - self.mass))
        share = min(max(0.0, float(np.fmax.reduce(shares))), 1.0)  # not NaN: 0/0 of a class that nobody has
        excess = np.maximum(share * predicted - bias_gradient, 0.0)
        if not self._softmax:
            return share, np.minimum(excess, share * self.mass)
        total = float(excess.sum())
        if total == 0:
            return 0.0, excess
        return share, excess * (share * self.mass / total)  # differs from `excess` by rounding only

    def _entropy(self, mixture: Array) -> float:
        """Return A H(r), or Σ_k A_k h(r_k)."""
        entropy = entr(mixture) if self._softmax else entr(mixture) + entr(1 - mixture)
        return float((self.mass * entropy).sum())


def dual_sums(objective: BlockedRows) -> DualSums:
    """Return the constants of the dual, in one pass over rows in memory."""
    softmax = objective.link == "softmax"
    k, d = objective.num_outputs, objective.num_features

    def new_total() -> DualSums:
        return DualSums(
            np.zeros((k, d)), np.zeros(d if softmax else (k, d)), np.zeros(k), np.zeros(1 if softmax else k)
        )

    def work(workspace: Workspace, rows: slice, total: DualSums) -> float:
        columns = objective.columns(workspace, rows)
        weight = objective.row_weight[rows]
        target = objective.target
        if target.hard and softmax and len(columns) * k > SMALL:
            mass = objective.mass(rows)
            one_hot = csr_array((mass, target.values[rows], np.arange(len(columns) + 1)), shape=(len(columns), k))
            for sum_, part in zip(total, (one_hot.T @ columns, mass @ columns), strict=False):
                sum_ += part
            total.observed[:] += np.bincount(target.values[rows], weights=mass, minlength=k)
            total.mass[:] += mass.sum()
            return 0.0
        u, tau = target.dense(rows)
        u *= weight[:, None]
        a = weight * tau if softmax else weight[:, None] * tau
        # In the columns' precision: the gap has these sums times s, which no gap of many digits lets be large.
        both = np.column_stack([u, a]).astype(columns.dtype, copy=False).T @ columns
        parts = (both[:k], both[k] if softmax else both[k:], u.sum(axis=0), a.sum(axis=0))
        for sum_, part in zip(total, parts, strict=True):
            sum_ += part
        return 0.0

    (sums, _), *others = objective.sum_rows(work, new_total)
    for chunk, _ in others:
        for sum_, part in zip(sums, chunk, strict=True):
            sum_ += part
    return sums
