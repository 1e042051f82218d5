"""A loss is a function of a few numbers per row; a backend only knows how to compute those numbers and their
gradient; everything else composes.

This file holds those numbers, the *row statistics*, in the array-API standard: it is the reference that every kernel
is tested against. For a row of logits z with target t, class weights w and label smoothing ε, let
``t' = (1-ε) t + ε/K``, ``q = w∘t'``, ``mass = Σ q_k``, ``p = softmax(z)``. All logarithms are natural (nats).

=============  ============================  =======================  ========================================
statistic      value                         gradient row             Hessian
=============  ============================  =======================  ========================================
``nll``        ``Σ q_k (LSE - z_k)``         ``mass·p - q``           ``mass (diag p - ppᵀ)``
``nll_plain``  ``LSE - z_y`` (hard targets)  ``p - onehot``           ``diag p - ppᵀ``
``lse``        ``LSE(z)``                    ``p``                    ``diag p - ppᵀ``
``miss``       ``Σ (1 - t'_k) p_k``          ``g = p∘(hit - t')``     ``diag g - g pᵀ - p gᵀ``
``entropy``    ``Σ p_k (LSE - z_k)``         ``-p∘a, a = log p + H``  ``-diag(p∘(a+1)) + ppᵀ∘(a1ᵀ + 1aᵀ + 1)``
``brier``      ``Σ (p_k - t'_k)²``           ``g = 2p∘(r - <p,r>)``   see :meth:`Rows.hessian_product`
=============  ============================  =======================  ========================================

with ``r = p - t'`` and ``hit = Σ t'_k p_k``.

Three habits keep every digit, where ``log(sum(exp(z - max)))`` does not:

* the *tail* ``Σ_{k≠argmax} e^{z_k - m}`` is kept apart from the 1 of the largest logit, so that ``LSE - m =
  log1p(tail)`` is right when the tail is 1e-30;
* ``1 - p_y`` is a sum over the other classes, never a subtraction;
* the rounding error of ``z_k - m`` (a two-sum) is carried into the exponential.
"""

from __future__ import annotations

from functools import cached_property

from crossent.core.arrays import (
    Array,
    array_namespace,
    guarded_product,
    one_hot,
    square_over_square,
    sum_pair,
    two_product,
    two_sum,
)
from crossent.core.target import Target

STATISTICS = ("nll_plain", "nll", "miss", "lse", "entropy", "brier")


class Rows:
    """The statistics of a block of logits (N, K), each computed when first asked for.

    Attributes named in :data:`STATISTICS` are (N,) arrays; so are ``mass``, ``hit``, ``argmax``.
    """

    def __init__(self, logits: Array, target: Target):
        self.xp = array_namespace(logits)
        self.logits = logits
        self.target = target

    # The softmax of the row, with the tail kept apart.

    @cached_property
    def maximum(self) -> Array:
        """The largest logit; NaN, and with it the whole row, where that is infinite or a logit is NaN."""
        maximum = self.xp.max(self.logits, axis=-1)
        return self.xp.where(self.xp.isfinite(maximum), maximum, self.xp.full_like(maximum, self.xp.nan))

    @cached_property
    def argmax(self) -> Array:
        return self.xp.argmax(self.logits, axis=-1)

    @cached_property
    def is_argmax(self) -> Array:
        return one_hot(self.argmax, self.target.num_classes)

    @cached_property
    def _below_two_sum(self) -> tuple[Array, Array]:
        return two_sum(self.maximum[:, None], -self.logits)

    @property
    def below(self) -> Array:
        """``m - z_k ≥ 0``, rounded."""
        return self._below_two_sum[0]

    @property
    def below_error(self) -> Array:
        """What rounding took from `below`."""
        return self._below_two_sum[1]

    @cached_property
    def exponential(self) -> Array:
        """``e^{z_k - m}``. The difference is off by half an ulp at most, so that its error is added to first order."""
        exponential = self.xp.exp(-self.below)
        return exponential - exponential * self.below_error

    @cached_property
    def is_true_class(self) -> Array:
        return self.target.is_true_class

    @cached_property
    def _others(self) -> Array:
        """The exponentials, without the true class's."""
        return self.xp.where(self.is_true_class, self.xp.zeros_like(self.exponential), self.exponential)

    @cached_property
    def tail(self) -> Array:
        """``Σ e^{z_k - m}`` without the largest logit's 1; others that are as large are counted.

        The largest is known by its place. A compiler may round a logit differently in each loop that computes it, so
        that no logit, or another one, equals the maximum there.
        """
        others = self.xp.where(self.is_argmax, self.xp.zeros_like(self.exponential), self.exponential)
        return self.xp.sum(others, axis=-1) + 0 * self.maximum  # NaN stays NaN where there are no others

    @cached_property
    def log1p_tail(self) -> Array:
        """``LSE - m``."""
        return self.xp.log1p(self.tail)

    @cached_property
    def probability(self) -> Array:
        return self.exponential / (1 + self.tail)[:, None]

    @cached_property
    def complement(self) -> Array:
        """``1 - p_k``: for the largest logit the tail's share, elsewhere (p ≤ 1/2) the plain difference."""
        return self.xp.where(self.is_argmax, (self.tail / (1 + self.tail))[:, None], 1 - self.probability)

    @cached_property
    def surprisal(self) -> Array:
        """``-log p_k = LSE - z_k``."""
        return self.below + self.log1p_tail[:, None]

    # The target's side.

    @cached_property
    def distribution(self) -> Array:
        return self.target.distribution(self.logits)

    @cached_property
    def weighted(self) -> Array:
        """q = w∘t'."""
        weight = self.target.class_weight
        return self.distribution if weight is None else self.distribution * weight

    @cached_property
    def mass(self) -> Array:
        if self.target.is_hard and self.target.class_weight is None:
            return self.xp.ones_like(self.maximum)
        return self.xp.sum(self.weighted, axis=-1)

    def _of_true_class(self, values: Array) -> Array:
        return self.xp.take_along_axis(values, self.target.counted_labels[:, None], axis=-1)[:, 0]

    @cached_property
    def residual(self) -> Array:
        """``p - t'``; for a hard target the true class's is minus the sum of the others' probabilities."""
        if self.target.is_hard:
            return self.xp.where(self.is_true_class, -self.miss[:, None], self.probability)
        # p (1 - t') - t' (1 - p) is exact where a distribution is a single class; p - t' rounds less often elsewhere.
        p, t = self.probability, self.distribution
        return self.xp.where(t > 0.5, p * self.target.complement(self.logits) - t * self.complement, p - t)

    # The statistics.

    @cached_property
    def nll_plain(self) -> Array:
        return self._of_true_class(self.below) + self.log1p_tail

    def likelihood_power(self, q: float) -> Array:
        """``p_y^q = e^{-q · nll_plain}``; the rounding errors of nll_plain and of the product are carried."""
        below = self._of_true_class(self.below)
        low = self._of_true_class(self.below_error)
        nll, nll_low = two_sum(below, self.log1p_tail)
        product, product_low = two_product(nll, q)
        correction = product_low + q * (nll_low + low)
        power = self.xp.exp(-product)
        return power - self.xp.where(power == 0, self.xp.zeros_like(power), power * correction)

    def lost_likelihood(self, q: float) -> Array:
        """``1 - p_y^q``."""
        return -self.xp.expm1(-q * self.nll_plain)

    @cached_property
    def nll(self) -> Array:
        if self.target.is_hard:
            return guarded_product(self.mass, self.nll_plain)
        return self.mass * self.log1p_tail + self.xp.sum(guarded_product(self.weighted, self.below), axis=-1)

    @cached_property
    def lse(self) -> Array:
        return self.maximum + self.log1p_tail

    @cached_property
    def hit(self) -> Array:
        if self.target.is_hard:
            return self._of_true_class(self.probability)
        return self.xp.sum(self.distribution * self.probability, axis=-1)

    @cached_property
    def miss(self) -> Array:
        if self.target.is_hard:
            return (self.xp.sum(self._others, axis=-1) + 0 * self.maximum) / (1 + self.tail)
        return self.xp.sum(self.target.complement(self.logits) * self.probability, axis=-1)

    @cached_property
    def entropy(self) -> Array:
        return self.log1p_tail + self.xp.sum(guarded_product(self.probability, self.below), axis=-1)

    @cached_property
    def brier(self) -> Array:
        # A square doubles the errors of p. So numerator and denominator are multiplied by s², s = Σ e_k, and keep what
        # rounding takes.
        if self.target.is_hard:
            others = self._others
            missed, missed_low = sum_pair(others)
            total, total_low = two_sum(missed, self._of_true_class(self.exponential))
            squares = self.xp.sum(others * others, axis=-1)
            return square_over_square(squares, missed, missed_low, total, total_low + missed_low)
        return sum_pair(self.residual**2)[0]

    # Their gradients.

    def _dot(self, a: Array, b: Array) -> Array:
        return self.xp.sum(a * b, axis=-1)[:, None]

    def gradient_row(self, name: str) -> Array:
        """Return ∂(statistic `name`)/∂z, (N, K)."""
        p = self.probability
        if name == "nll_plain":
            return self.residual
        if name == "nll":
            if self.target.is_hard:
                return self.mass[:, None] * self.residual
            # W p - q without the part that cancels, which is exact where a distribution is a single class.
            return p * (self.mass[:, None] - self.weighted) - self.weighted * self.complement
        if name == "lse":
            return p
        if name == "miss":
            if self.target.is_hard:
                return self.xp.where(self.is_true_class, -p * self.miss[:, None], p * self.hit[:, None])
            t = self.distribution
            return p * ((self.hit[:, None] - t * p) - t * self.complement)
        if name == "entropy":
            return guarded_product(p, self.surprisal - self.entropy[:, None])
        if name == "brier":
            return 2 * p * (self.residual - self._dot(p, self.residual))
        raise KeyError(name)

    def hessian_product(self, name: str, vector: Array) -> Array:
        """Return ∇²(statistic `name`) · vector, (N, K).

        For any F(p) with a = ∂F/∂p the gradient is ``g = p∘(a - <p,a>)`` and ``∂p = diag p - ppᵀ``; the Brier
        score's a = 2r moves with p, which adds the terms in ``2p``.
        """
        p = self.probability
        mean = self._dot(p, vector)
        covariance = p * (vector - mean)  # (diag p - ppᵀ) v
        if name in ("nll_plain", "lse"):
            return covariance
        if name == "nll":
            return self.mass[:, None] * covariance
        g = self.gradient_row(name)
        if name == "entropy":
            surplus = self.xp.where(p == 0, self.xp.zeros_like(p), self.entropy[:, None] - self.surprisal)  # a
            return -p * (surplus + 1) * vector + p * ((surplus + 1) * mean + self._dot(p * surplus, vector))
        product = g * (vector - mean) - p * self._dot(g, vector)
        if name == "brier":
            square = p * p
            product = product + p * (2 * covariance - 2 * self._dot(square, vector) + 2 * self._dot(p, p) * mean)
        return product

    def hessian_diagonal(self, name: str) -> Array:
        """Return the diagonal of ∇²(statistic `name`), (N, K)."""
        p = self.probability
        variance = p * self.complement
        if name in ("nll_plain", "lse"):
            return variance
        if name == "nll":
            return self.mass[:, None] * variance
        if name == "entropy":
            surplus = self.xp.where(p == 0, self.xp.zeros_like(p), self.entropy[:, None] - self.surprisal)
            return -p * (surplus + 1) + p * p * (2 * surplus + 1)
        g = self.gradient_row(name)
        diagonal = g * (self.complement - p)
        if name == "brier":
            diagonal = diagonal + 2 * p * (variance - p * p + p * self._dot(p, p))
        return diagonal
