"""Rows whose target is a teacher: the divergence of its softened distribution from the student's.

``divergence`` is ``T² KL(t ‖ p)`` with ``p = softmax(z/T)``; its gradient row is ``T (p - t)`` and its Hessian
``diag p - ppᵀ``. As a difference of cross-entropy and entropy it would cancel: near equality both are of the size of
log K, and their difference is that of the square of the log-ratios. So it is a sum of terms that are never negative.

With ``d_k = log p_k - log t_k`` and any common shift c, ``w_k = d_k - c``::

    KL(t ‖ p) = log Σ t_k e^{w_k} - Σ t_k w_k

For teacher and student logits ``w_k`` is ``(z_k - v_k)/T`` less its mean under t, a difference of differences of
logits: their maxima, sums of exponentials and common offsets do not enter. Then ``Σ t_k w_k = 0`` and ::

    KL(t ‖ p) = log1p(A),    A = Σ t_k (e^{w_k} - 1 - w_k)

An error δ of the mean changes this by ``δ A / (1 + A)``, an error of ``w_k`` by ``t_k (e^{w_k} - 1)`` times itself, so
the error is a few ulps of the value. Where ``|w_k|`` is large, ``t_k e^{w_k}`` is ``e^{z_k/T}`` times a factor of the
row. Beyond `FAR` nats nothing cancels in the difference of the two logarithms, and A may overflow.
"""

from __future__ import annotations

from functools import cached_property

from crossent.core.arrays import (
    Array,
    array_namespace,
    divergence_terms,
    log_ratio,
    one_hot,
    sum_pair,
    two_product,
    two_sum,
)
from crossent.core.statistics import Rows
from crossent.core.target import Target, Teacher

FAR = 30.0
"""From this many nats on a divergence is the difference of cross-entropy and entropy."""


def _quotient(high: Array, low: Array, divisor: float) -> tuple[Array, Array]:
    """Return ``(high + low) / divisor`` rounded, and what rounding took."""
    quotient = high / divisor
    product, product_low = two_product(quotient, divisor)
    xp = array_namespace(high)
    rest = ((high - product) - product_low + low) / divisor
    return quotient, xp.where(xp.isfinite(rest), rest, xp.zeros_like(rest))


class TemperedRows(Rows):
    """Rows of softmax(z/T): ``below`` and all that follows from it are those of the divided logits."""

    @property
    def temperature(self) -> float:
        return self.target.temperature

    @cached_property
    def _below_two_sum(self) -> tuple[Array, Array]:
        return _quotient(*two_sum(self.maximum[:, None], -self.logits), self.temperature)

    @cached_property
    def mass(self) -> Array:
        return self.xp.ones_like(self.maximum)

    def hessian_product(self, name: str, vector: Array) -> Array:
        return super().hessian_product("lse" if name == "divergence" else name, vector)

    def hessian_diagonal(self, name: str) -> Array:
        return super().hessian_diagonal("lse" if name == "divergence" else name)


class TeacherRows(TemperedRows):
    """Rows of a student beside the logits of its teacher, in the student's dtype."""

    @cached_property
    def teacher(self) -> TemperedRows:
        teacher = self.xp.astype(self.target.teacher, self.logits.dtype)
        return TemperedRows(teacher, Target(self.target.num_classes, temperature=self.temperature))

    @cached_property
    def _differences(self) -> tuple[Array, Array]:
        """``z - v`` less that of the teacher's first choice, as a sum of two; of no meaning where one is masked."""
        xp = self.xp
        high, low = two_sum(self.logits, -self.teacher.logits)
        high = xp.where(xp.isfinite(high), high, xp.zeros_like(high))
        first = self.teacher.argmax[:, None]
        high, rounded = two_sum(high, -xp.take_along_axis(high, first, axis=-1))
        return high, (low - xp.take_along_axis(low, first, axis=-1)) + rounded

    @cached_property
    def _mean(self) -> tuple[Array, Array]:
        """The mean of `_differences` under the teacher, (N,), as a sum of two."""
        high, low = self._differences
        t = self.teacher.probability
        first = self.xp.sum(t * high, axis=-1)
        return first, self.xp.sum(t * ((high - first[:, None]) + low), axis=-1)

    @cached_property
    def log_ratio(self) -> Array:
        """``T w``: ``T log(p/t)`` less its mean under the teacher; 0 where one of them is masked."""
        high, low = self._differences
        first, second = self._mean
        ratio, rounded = two_sum(high, -first[:, None])
        return ratio + (rounded + (low - second[:, None]))

    @cached_property
    def divergence(self) -> Array:
        xp, unit = self.xp, self.temperature
        # The student's lead over the teacher's first choice, less the mean of the differences.
        first = xp.take_along_axis(self.logits, self.teacher.argmax[:, None], axis=-1)[:, 0]
        lead, lead_low = two_sum(self.maximum, -first)
        lead, rounded = two_sum(lead, -self._mean[0])
        shift, shift_low = _quotient(lead, (lead_low - self._mean[1]) + rounded, unit)
        nats = shift + (self.log1p_tail - self.teacher.log1p_tail)
        is_near = nats < FAR
        shift = xp.where(is_near, shift, xp.zeros_like(shift))
        factor = xp.exp(shift) * (1 + shift_low) / (1 + self.teacher.tail)
        t = self.teacher.probability
        # The sum carries its error: beside one large term, many small ones would round off the same way.
        total, low = sum_pair(divergence_terms(xp, t, factor[:, None] * self.exponential, self.log_ratio, unit))
        total = total + low
        excess = total / unit / unit
        is_positive = is_near & (excess > 0) & (excess < xp.inf)
        safe = xp.where(is_positive, excess, xp.ones_like(excess))
        near = total * xp.where(is_positive, xp.log1p(safe) / safe, xp.ones_like(safe))
        value = xp.where(is_near, near, unit * (unit * nats))
        is_impossible = xp.any((t > 0) & (self.logits == -xp.inf), axis=-1)
        return xp.where(is_impossible, xp.full_like(value, xp.inf), value)

    def gradient_row(self, name: str) -> Array:
        if name != "divergence":
            return super().gradient_row(name)
        xp, unit = self.xp, self.temperature
        p, t = self.probability, self.teacher.probability
        # log p - log t is w - KL: where p and t are close, their difference is t times its expm1. Not where w is large,
        # as its ulp is that of the logarithms then.
        ratio = (self.log_ratio - (self.divergence / unit)[:, None]) / unit
        is_near = (p > 0) & (t > 0) & (xp.abs(ratio) <= 0.5) & (xp.abs(self.log_ratio) <= unit)
        close = t * xp.expm1(xp.where(is_near, ratio, xp.zeros_like(ratio)))
        return unit * xp.where(is_near, close, p - t)


class TopKRows(TemperedRows):
    """Rows of a student beside a teacher known on k classes.

    The divergence is that of the listed classes and one bucket b of the others, ``Σ t log(t/p) - t + p`` over these:
    of probabilities that sum to 1, as far as rounding lets them, it is ``T² KL``, and it is never negative. Given
    probabilities fix ``log t`` to an ulp of its own: the error is a few ulps of ``Σ t |log(t/p)|``.

    With π the student's distribution inside the bucket, the gradient row is ``T (τ p - t - remainder·π)``, τ the sum of
    all t, and the Hessian ``τ (diag p - ppᵀ) - remainder·(diag π - ππᵀ)``.
    """

    @property
    def known(self) -> Teacher:
        assert isinstance(self.target.teacher, Teacher)
        return self.target.teacher

    @cached_property
    def listed(self) -> tuple[Array, Array]:
        """Return (t on the listed classes and 0 elsewhere; whether a class is listed), both (N, K)."""
        xp = self.xp
        indices, probabilities, _ = self.known
        dense: Array = 0.0
        is_listed: Array = None
        for j in range(indices.shape[1]):
            here = one_hot(indices[:, j], self.target.num_classes)
            probability = probabilities[:, j][:, None]
            dense = dense + xp.where(here, probability, xp.zeros_like(probability))
            is_listed = here if is_listed is None else is_listed | here
        return dense, is_listed

    @cached_property
    def bucket(self) -> TemperedRows:
        """The unlisted classes as rows of their own."""
        _, is_listed = self.listed
        masked = self.xp.where(is_listed, self.xp.full_like(self.logits, -self.xp.inf), self.logits)
        # A bucket without classes, or all masked, has mass 0; a row of zeros stands in and is multiplied by 0.
        empty = self.xp.all(self.xp.isinf(masked) & (masked < 0), axis=-1, keepdims=True)
        masked = self.xp.where(empty, self.xp.zeros_like(masked), masked)
        return TemperedRows(masked, Target(self.target.num_classes, temperature=self.temperature))

    @cached_property
    def bucket_is_possible(self) -> Array:
        _, is_listed = self.listed
        return self.xp.any(~is_listed & (self.logits > -self.xp.inf), axis=-1)

    @cached_property
    def total(self) -> Array:
        """τ, (N, 1)."""
        return (self.xp.sum(self.known.probabilities, axis=-1) + self.known.remainder)[:, None]

    def _terms(self, t: Array, p: Array, surprisal: Array) -> Array:
        xp = self.xp
        safe = xp.where(t > 0, t, xp.ones_like(t))
        ratio = log_ratio(xp, p, safe, -surprisal - xp.log(safe))
        return divergence_terms(xp, t, p, self.temperature * ratio, self.temperature)

    @cached_property
    def divergence(self) -> Array:
        xp = self.xp
        dense, is_listed = self.listed
        zero = xp.zeros_like(self.logits)
        terms = xp.where(is_listed, self._terms(dense, self.probability, self.surprisal), zero)
        others = xp.sum(xp.where(is_listed, zero, self.probability), axis=-1)
        gap, gap_low = two_sum(self.maximum, -self.bucket.maximum)
        surprisal = _quotient(gap, gap_low, self.temperature)[0] + (self.log1p_tail - self.bucket.log1p_tail)
        surprisal = xp.where(self.bucket_is_possible, surprisal, xp.full_like(surprisal, xp.inf))
        bucket = self._terms(self.known.remainder, others, surprisal)
        return xp.sum(terms, axis=-1) + bucket

    @cached_property
    def share(self) -> Array:
        """remainder · π."""
        return self.known.remainder[:, None] * self.xp.where(
            self.bucket_is_possible[:, None], self.bucket.probability, self.xp.zeros_like(self.logits)
        )

    def gradient_row(self, name: str) -> Array:
        if name != "divergence":
            return super().gradient_row(name)
        dense, _ = self.listed
        return self.temperature * (self.total * self.probability - dense - self.share)

    def hessian_product(self, name: str, vector: Array) -> Array:
        product = super().hessian_product(name, vector)
        if name == "divergence":
            mean = self._dot(self.bucket.probability, vector)
            product = self.total * product - self.share * (vector - mean)
        return product

    def hessian_diagonal(self, name: str) -> Array:
        diagonal = super().hessian_diagonal(name)
        if name == "divergence":
            diagonal = self.total * diagonal - self.share * self.bucket.complement
        return diagonal
